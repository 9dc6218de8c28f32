//! Measurements: vital signs and laboratory panels whose values hang together and move over time.

use jiff::civil::Date;
use serde_json::json;

use super::dice::{Dice, decimal};
use super::people::Person;
use super::tables::{CHOLESTEROL, CREATININE, EGFR, GLUCOSE, HBA1C, LDL, Measure, PANELS, Problem};
use super::visits::Visit;
use super::{LOINC, Node, SNOMED, UCUM, concept};

/// What a person's measurements hang on.
pub struct Body {
    /// Deviation of this person from the usual, in spreads of a measure.
    build: f64,
    systolic: f64,
    pulse: f64,
    diabetic: bool,
    lipids_high: bool,
    kidneys_weak: bool,
    heavy: bool,
    lungs_weak: bool,
    /// Visits so far: treatment brings values down a little each time.
    visits: u32,
    smoking: (&'static str, &'static str),
}

const SMOKING: &[(&str, &str)] = &[
    ("266919005", "Never smoked tobacco"),
    ("266919005", "Never smoked tobacco"),
    ("8517006", "Ex-smoker"),
    ("449868002", "Smokes tobacco daily"),
];

impl Body {
    pub fn new(dice: &mut Dice, problems: &[(&'static Problem, Date)]) -> Body {
        let has = |icd10: &str| problems.iter().any(|(problem, _)| problem.icd10 == icd10);
        Body {
            build: dice.normal(0.0, 0.8),
            systolic: dice.normal(if has("I10") { 148.0 } else { 120.0 }, 7.0),
            pulse: dice.normal(72.0, 6.0),
            diabetic: has("E11.9"),
            lipids_high: has("E78.5"),
            kidneys_weak: has("N18.30"),
            heavy: has("E66.9"),
            lungs_weak: has("J44.9"),
            visits: 0,
            smoking: *dice.pick(SMOKING),
        }
    }

    /// The vital signs of one visit: blood pressure, pulse, breathing, temperature, oxygen, weight, height, BMI.
    pub fn vital_signs(&mut self, dice: &mut Dice, person: &Person, visit: &Visit) -> Vec<Node> {
        let months = (visit.day - person.birth).get_days() as f64 / 30.44;
        let child = months < 18.0 * 12.0;
        let relief = f64::from(self.visits.min(4)) * 3.0;
        let systolic =
            if child { 92.0 + months / 9.0 } else { self.systolic - if self.systolic > 135.0 { relief } else { 0.0 } };
        let systolic = dice.normal(systolic, 4.0);
        let diastolic = dice.normal(systolic * 0.64, 3.0);
        let height =
            stature(HEIGHTS, months) * (1.0 + self.build * 0.03) * if child || person.female { 0.96 } else { 1.02 };
        let mut weight = stature(WEIGHTS, months) * (1.0 + self.build * 0.10) + dice.normal(0.0, 0.6);
        if self.heavy {
            weight *= 1.42;
        }
        let bmi = weight / (height / 100.0) / (height / 100.0);
        let oxygen = if self.lungs_weak { 92.5 } else { 97.8 };
        let pulse = if child { 120.0 - months / 5.0 } else { self.pulse };
        let breaths = if child { 30.0 - months / 15.0 } else { 15.0 };
        self.visits += 1;
        let mut out = vec![blood_pressure(dice, visit, systolic, diastolic)];
        let mut one = |loinc: &str, display: &str, value: f64, unit: &str, ucum: &str, places: usize| {
            let mut sign = observation(dice, visit, "vital-signs", "Vital Signs", concept(LOINC, loinc, display));
            sign["valueQuantity"] = quantity(value, places, unit, ucum);
            out.push(sign);
        };
        one("8867-4", "Heart rate", pulse, "beats/minute", "/min", 0);
        one("9279-1", "Respiratory rate", breaths, "breaths/minute", "/min", 0);
        one("8310-5", "Body temperature", 36.7 + self.build * 0.2, "Cel", "Cel", 1);
        one("2708-6", "Oxygen saturation in Arterial blood", (oxygen + self.build * 0.5).min(100.0), "%", "%", 0);
        one("29463-7", "Body weight", weight, "kg", "kg", 1);
        one("8302-2", "Body height", height, "cm", "cm", 1);
        one("39156-5", "Body mass index (BMI) [Ratio]", bmi, "kg/m2", "kg/m2", 1);
        if !child && self.visits == 1 {
            let mut smoking = observation(
                dice,
                visit,
                "social-history",
                "Social History",
                concept(LOINC, "72166-2", "Tobacco smoking status"),
            );
            smoking["valueCodeableConcept"] = concept(SNOMED, self.smoking.0, self.smoking.1);
            out.push(smoking);
        }
        out
    }

    /// One laboratory panel: the results and the DiagnosticReport over them.
    pub fn panel(&self, dice: &mut Dice, visit: &Visit) -> Vec<Node> {
        let panel = dice.pick(PANELS);
        let results: Vec<Node> = panel.measures.iter().map(|measure| self.result(dice, visit, measure)).collect();
        let references: Vec<Node> = results.iter().map(|one| json!({"reference": super::local(one)})).collect();
        let mut out = results;
        out.push(json!({
            "resourceType": "DiagnosticReport", "id": dice.uuid(), "status": "final",
            "category": [concept("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory")],
            "code": concept(LOINC, panel.loinc, panel.display),
            "subject": visit.patient,
            "encounter": {"reference": visit.encounter},
            "effectiveDateTime": visit.start,
            "issued": visit.end,
            "performer": [visit.practitioner],
            "result": references,
        }));
        out
    }

    fn result(&self, dice: &mut Dice, visit: &Visit, measure: &Measure) -> Node {
        let relief = 1.0 - f64::from(self.visits.min(5)) * 0.1;
        let shift = match measure.loinc {
            GLUCOSE if self.diabetic => 62.0 * relief,
            HBA1C if self.diabetic => 2.6 * relief,
            CHOLESTEROL if self.lipids_high => 58.0 * relief,
            LDL if self.lipids_high => 52.0 * relief,
            CREATININE if self.kidneys_weak => 0.8 / relief,
            EGFR if self.kidneys_weak => -46.0 / relief,
            _ => 0.0,
        };
        let value = dice.normal(measure.mean + shift + self.build * measure.spread * 0.6, measure.spread * 0.5);
        let value = value.max(measure.mean * 0.1);
        let mut out =
            observation(dice, visit, "laboratory", "Laboratory", concept(LOINC, measure.loinc, measure.display));
        out["valueQuantity"] = quantity(value, measure.places, measure.unit, measure.ucum);
        let (code, display) = match (measure.low, measure.high) {
            (Some(low), _) if value < low => ("L", "Low"),
            (_, Some(high)) if value > high => ("H", "High"),
            _ => ("N", "Normal"),
        };
        let system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation";
        out["interpretation"] = json!([concept(system, code, display)]);
        let mut range = json!({});
        for (name, limit) in [("low", measure.low), ("high", measure.high)] {
            if let Some(limit) = limit {
                range[name] = quantity(limit, measure.places, measure.unit, measure.ucum);
            }
        }
        out["referenceRange"] = json!([range]);
        out
    }
}

fn observation(dice: &mut Dice, visit: &Visit, category: &str, display: &str, code: Node) -> Node {
    json!({
        "resourceType": "Observation", "id": dice.uuid(), "status": "final",
        "category": [concept("http://terminology.hl7.org/CodeSystem/observation-category", category, display)],
        "code": code,
        "subject": visit.patient,
        "encounter": {"reference": visit.encounter},
        "effectiveDateTime": visit.start,
        "issued": visit.end,
        "performer": [visit.practitioner],
    })
}

fn blood_pressure(dice: &mut Dice, visit: &Visit, systolic: f64, diastolic: f64) -> Node {
    let mut out = observation(
        dice,
        visit,
        "vital-signs",
        "Vital Signs",
        concept(LOINC, "85354-9", "Blood pressure panel with all children optional"),
    );
    out["component"] = json!([
        {"code": concept(LOINC, "8480-6", "Systolic blood pressure"),
         "valueQuantity": quantity(systolic, 0, "mmHg", "mm[Hg]")},
        {"code": concept(LOINC, "8462-4", "Diastolic blood pressure"),
         "valueQuantity": quantity(diastolic, 0, "mmHg", "mm[Hg]")},
    ]);
    out
}

fn quantity(value: f64, places: usize, unit: &str, ucum: &str) -> Node {
    json!({"value": decimal(value, places), "unit": unit, "system": UCUM, "code": ucum})
}

/// Age in months and centimetres.
const HEIGHTS: &[(f64, f64)] =
    &[(0.0, 50.0), (12.0, 75.0), (24.0, 87.0), (60.0, 110.0), (120.0, 138.0), (180.0, 166.0), (216.0, 171.0)];
/// Age in months and kilograms.
const WEIGHTS: &[(f64, f64)] =
    &[(0.0, 3.4), (12.0, 9.6), (24.0, 12.2), (60.0, 18.5), (120.0, 32.0), (180.0, 56.0), (216.0, 66.0), (480.0, 76.0)];

fn stature(table: &[(f64, f64)], months: f64) -> f64 {
    let last = table.last().map_or(0.0, |row| row.1);
    table
        .windows(2)
        .find(|pair| months < pair[1].0)
        .map_or(last, |pair| pair[0].1 + (pair[1].1 - pair[0].1) * (months - pair[0].0) / (pair[1].0 - pair[0].0))
}
