//! The care of one patient: appointments on both sides of today, encounters, problems and what was prescribed.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde_json::json;

use super::dice::Dice;
use super::labs::Body;
use super::people::Person;
use super::staff::{Clinic, PANEL_MAX, Practitioner};
use super::tables::{MEDICATIONS, PROBLEMS, Problem};
use super::{ICD10, Node, Plan, SNOMED, notes, reference};

/// Appointments a day on one practitioner's calendar: 20 minutes each from 08:00 to 16:00.
const SLOTS: i64 = 24;
const _: () = assert!(PANEL_MAX as i64 <= SLOTS);

/// One contact with the clinic.
pub struct Visit {
    pub day: Date,
    /// FHIR instants of begin and end.
    pub start: String,
    pub end: String,
    /// References with displays.
    pub patient: Node,
    pub practitioner: Node,
    /// `Encounter/id`.
    pub encounter: String,
}

/// One patient's place in the clinic's calendar.
struct Calendar<'a> {
    practitioner: &'a Practitioner,
    place: i64,
    patient: Node,
    location: String,
    zone: TimeZone,
    taken: BTreeSet<Date>,
}

/// Everything that happened to a patient and what is planned.
pub fn care(dice: &mut Dice, plan: &Plan, clinic: &Clinic, person: &Person, patient: usize) -> Vec<Node> {
    let (practitioner, place) = clinic.panel(patient);
    let mut calendar = Calendar {
        practitioner,
        place: place as i64,
        patient: reference(&format!("Patient/{}", person.id), &person.name()),
        location: format!("Location/{}", clinic.location),
        // The bundled zone data has it; without it the clinic would stand in UTC.
        zone: TimeZone::get("America/New_York").unwrap_or(TimeZone::UTC),
        taken: BTreeSet::new(),
    };
    let mut out = Vec::new();
    let days = past_days(dice, plan, person, &mut calendar);
    let problems = problems(dice, person, plan.today);
    let mut body = Body::new(dice, &problems);
    let mut visits: Vec<Visit> = Vec::new();
    for day in days {
        let visit = calendar.visit(dice, day);
        let appointment = calendar.appointment(dice, "fulfilled", day, "Consultation");
        let begun: Vec<&Problem> = begun_by(&problems, visits.last().map(|last| last.day), day);
        out.push(encounter(&visit, clinic, &appointment, begun.first().copied()));
        out.push(appointment);
        out.extend(body.vital_signs(dice, person, &visit));
        if dice.chance(45) && person.age(day) >= 18 {
            out.extend(body.panel(dice, &visit));
        }
        if dice.chance(65) {
            out.extend(notes::document(dice, clinic, person, &visit, &begun));
        }
        visits.push(visit);
    }
    for (problem, onset) in &problems {
        // Recorded at the first visit after it began.
        if let Some(visit) = visits.iter().find(|visit| visit.day >= *onset).or(visits.last()) {
            out.extend(condition(dice, problem, *onset, visit, plan.today));
        }
    }
    out.extend(other_appointments(dice, plan, person, &mut calendar));
    out
}

fn past_days(dice: &mut Dice, plan: &Plan, person: &Person, calendar: &mut Calendar<'_>) -> Vec<Date> {
    let last = person.died.unwrap_or(plan.today);
    let reach = (i64::from(last.since(person.birth).map_or(0, |span| span.get_days())) - 1).clamp(40, 5 * 365);
    let count = dice.between(2, 5);
    let mut days: Vec<Date> = (0..count)
        .filter_map(|_| calendar.take(last.saturating_sub(dice.between(2, reach).days()), -1))
        .filter(|day| *day >= person.birth)
        .collect();
    days.sort();
    days
}

/// The problems of a person with the day each began, earliest first.
fn problems(dice: &mut Dice, person: &Person, today: Date) -> Vec<(&'static Problem, Date)> {
    let age = person.age(person.died.unwrap_or(today));
    let mut out: Vec<(&Problem, Date)> = Vec::new();
    for problem in PROBLEMS {
        if age < problem.from_age || !dice.chance(problem.percent) {
            continue;
        }
        let onset = if problem.chronic {
            let at = dice.between(problem.from_age, age.min(problem.to_age));
            person.birth.saturating_add((at * 365 + at / 4 + dice.between(0, 300)).days())
        } else if age <= problem.to_age {
            today.saturating_sub(dice.between(20, 900).days())
        } else {
            continue;
        };
        let latest = person.died.unwrap_or(today).saturating_sub(1.days());
        out.push((problem, onset.clamp(person.birth, latest.max(person.birth))));
    }
    out.sort_by_key(|(problem, onset)| (*onset, problem.snomed));
    out
}

fn begun_by(problems: &[(&'static Problem, Date)], after: Option<Date>, until: Date) -> Vec<&'static Problem> {
    let since = |onset: &Date| after.is_none_or(|after| *onset > after) && *onset <= until;
    problems.iter().filter(|(_, onset)| since(onset)).map(|(problem, _)| *problem).collect()
}

impl Calendar<'_> {
    /// The nearest free working day from `day` on in the direction given.
    fn take(&mut self, day: Date, direction: i64) -> Option<Date> {
        let free =
            |day: &Date| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday) && !self.taken.contains(day);
        let day = (0..30).map(|n| day.saturating_add((n * direction).days())).find(free)?;
        self.taken.insert(day);
        Some(day)
    }

    /// Begin and end of this patient's slot on a day: no two patients of a practitioner have the same one.
    fn slot(&self, day: Date) -> (String, String) {
        let ordinal = i64::from(day.day_of_year());
        let minutes = 8 * 60 + (self.place + ordinal * 7) % SLOTS * 20;
        (self.instant(day, minutes), self.instant(day, minutes + 20))
    }

    fn instant(&self, day: Date, minutes: i64) -> String {
        let at = day.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0);
        let offset = self.zone.to_ambiguous_zoned(at).compatible().map_or(0, |zoned| zoned.offset().seconds());
        let (sign, away) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        format!("{at}{sign}{:02}:{:02}", away / 3600, away / 60 % 60)
    }

    fn practitioner(&self) -> Node {
        reference(&format!("Practitioner/{}", self.practitioner.id), &self.practitioner.name)
    }

    fn visit(&self, dice: &mut Dice, day: Date) -> Visit {
        let (start, end) = self.slot(day);
        let encounter = format!("Encounter/{}", dice.uuid());
        Visit { day, start, end, patient: self.patient.clone(), practitioner: self.practitioner(), encounter }
    }

    fn appointment(&self, dice: &mut Dice, status: &str, day: Date, what: &str) -> Node {
        let (start, end) = self.slot(day);
        let tentative = matches!(status, "proposed" | "pending" | "waitlist");
        let mut out = json!({
            "resourceType": "Appointment", "id": dice.uuid(), "status": status,
            "serviceType": [{"text": what}],
            "appointmentType": super::concept("http://terminology.hl7.org/CodeSystem/v2-0276", "ROUTINE",
                "Routine appointment - default if not valued"),
            "description": what,
        });
        if status == "proposed" {
            // Not yet placed: a wish for the week.
            let until = day.saturating_add(7.days());
            out["requestedPeriod"] = json!([{"start": day.to_string(), "end": until.to_string()}]);
        } else {
            out["start"] = json!(start);
            out["end"] = json!(end);
            out["minutesDuration"] = json!(20);
        }
        if matches!(status, "cancelled" | "noshow") {
            let reason = ("http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason", "pat", "Patient");
            out["cancelationReason"] = super::concept(reason.0, reason.1, reason.2);
        }
        let answer = if tentative { "needs-action" } else { "accepted" };
        out["participant"] = json!([
            {"actor": self.patient, "required": "required", "status": "accepted"},
            {"actor": self.practitioner(), "required": "required", "status": answer},
            {"actor": {"reference": self.location}, "required": "required", "status": "accepted"},
        ]);
        out
    }
}

/// Appointments that led to no visit, and those to come.
fn other_appointments(dice: &mut Dice, plan: &Plan, person: &Person, calendar: &mut Calendar<'_>) -> Vec<Node> {
    let mut out = Vec::new();
    let last = person.died.unwrap_or(plan.today);
    let age_days = i64::from(last.since(person.birth).map_or(0, |span| span.get_days()));
    for (status, percent) in [("noshow", 20), ("cancelled", 25), ("entered-in-error", 6)] {
        if age_days > 60 && dice.chance(percent) {
            let wanted = last.saturating_sub(dice.between(3, age_days.min(400) - 30).days());
            out.extend(calendar.take(wanted, -1).map(|day| calendar.appointment(dice, status, day, "Consultation")));
        }
    }
    if person.died.is_some() {
        return out;
    }
    if dice.chance(12) && calendar.taken.insert(plan.today) {
        let status = *dice.pick(&["arrived", "checked-in"]);
        out.push(calendar.appointment(dice, status, plan.today, "Consultation"));
    }
    const PLANNED: &[(&str, u64)] =
        &[("booked", 75), ("booked", 30), ("pending", 20), ("proposed", 15), ("waitlist", 10), ("cancelled", 12)];
    for (status, percent) in PLANNED {
        if dice.chance(*percent) {
            let what = *dice.pick(&["Follow-up", "Annual check-up", "Vaccination", "Laboratory review"]);
            let wanted = plan.today.saturating_add(dice.between(1, 180).days());
            out.extend(calendar.take(wanted, 1).map(|day| calendar.appointment(dice, status, day, what)));
        }
    }
    out
}

fn encounter(visit: &Visit, clinic: &Clinic, appointment: &Node, reason: Option<&Problem>) -> Node {
    let (_, id) = visit.encounter.split_once('/').unwrap_or_default();
    let mut out = json!({
        "resourceType": "Encounter", "id": id, "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB", "display": "ambulatory"},
        "type": [match reason {
            Some(_) => super::concept(SNOMED, "185347001", "Encounter for problem"),
            None => super::concept(SNOMED, "185349003", "Encounter for check up"),
        }],
        "subject": visit.patient,
        "participant": [{"individual": visit.practitioner, "period": {"start": visit.start, "end": visit.end}}],
        "appointment": [{"reference": super::local(appointment)}],
        "period": {"start": visit.start, "end": visit.end},
    });
    if let Some(problem) = reason {
        out["reasonCode"] = json!([super::concept(SNOMED, problem.snomed, problem.display)]);
    }
    out["location"] = json!([{"location": {"reference": format!("Location/{}", clinic.location)}}]);
    out["serviceProvider"] = json!({"reference": format!("Organization/{}", clinic.organization)});
    out
}

/// A Condition and, where there is one for it, the MedicationRequest.
fn condition(dice: &mut Dice, problem: &Problem, onset: Date, visit: &Visit, today: Date) -> Vec<Node> {
    let id = dice.uuid();
    let abatement = onset.saturating_add(dice.between(5, 25).days());
    let resolved = !problem.chronic && abatement < today;
    let (code, display) = if resolved { ("resolved", "Resolved") } else { ("active", "Active") };
    let mut out = json!({
        "resourceType": "Condition", "id": id,
        "clinicalStatus": super::concept("http://terminology.hl7.org/CodeSystem/condition-clinical", code, display),
        "verificationStatus": super::concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed",
                                             "Confirmed"),
        "category": [if problem.chronic {
            super::concept("http://terminology.hl7.org/CodeSystem/condition-category", "problem-list-item",
                           "Problem List Item")
        } else {
            super::concept("http://terminology.hl7.org/CodeSystem/condition-category", "encounter-diagnosis",
                           "Encounter Diagnosis")
        }],
        "code": {"coding": [{"system": SNOMED, "code": problem.snomed, "display": problem.display},
                            {"system": ICD10, "code": problem.icd10}], "text": problem.display},
        "subject": visit.patient,
        "encounter": {"reference": visit.encounter},
        "onsetDateTime": onset.to_string(),
    });
    if resolved {
        out["abatementDateTime"] = json!(abatement.to_string());
    }
    out["recordedDate"] = json!(visit.start);
    out["recorder"] = visit.practitioner.clone();
    let request = MEDICATIONS.iter().find(|(treats, ..)| *treats == problem.snomed).map(|(_, rxnorm, name, text)| {
        json!({
            "resourceType": "MedicationRequest", "id": dice.uuid(), "status": "active", "intent": "order",
            "medicationCodeableConcept": super::concept("http://www.nlm.nih.gov/research/umls/rxnorm", rxnorm, name),
            "subject": visit.patient,
            "encounter": {"reference": visit.encounter},
            "authoredOn": visit.start,
            "requester": visit.practitioner,
            "reasonReference": [{"reference": format!("Condition/{id}")}],
            "dosageInstruction": [{"text": text, "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
        })
    });
    std::iter::once(out).chain(request).collect()
}
