//! Search parameters of the site: random ones of every type that can be defined, over elements and extensions of the
//! population.

use std::sync::Arc;

use phial::fhir::{ParamId, Resource, json as tree};
use phial::search::Customs;
use phial::search::custom::{Defined, Definition, Known, Standing};
use serde_json::{Value, json};

use super::population::EXTENSIONS;
use super::random::Random;

/// Types, expression, types it refers to.
type Simple = (&'static [&'static str], &'static str, &'static [&'static str]);

const STRINGS: &[Simple] = &[
    (&["Patient"], "Patient.name.prefix | Patient.name.text", &[]),
    (&["Observation"], "Observation.component.code.text", &[]),
    (&["Appointment"], "Appointment.serviceType", &[]),
    (&["Patient", "Practitioner"], "Patient.name.where(use = 'official').given | Practitioner.name.given.first()", &[]),
    (&["Patient"], "Patient.extension.where(url = '{ext}nick').value.ofType(string)", &[]),
];
const SOUNDS: &[Simple] = &[
    (&["Patient", "Practitioner"], "Patient.name.where(use = 'official') | Practitioner.name.family", &[]),
    (&["Organization", "Patient"], "Organization.name | Patient.name.given", &[]),
    (&["Appointment"], "Appointment.description", &[]),
];
const TOKENS: &[Simple] = &[
    (&["Observation"], "Observation.component.value.ofType(Quantity).code", &[]),
    (&["Patient"], "Patient.extension.where(url = '{ext}eyes').value.ofType(Coding)", &[]),
    (&["Patient"], "Patient.identifier.where(type.exists())", &[]),
    (&["Appointment"], "Appointment.participant.where(actor.exists()).status", &[]),
    (&["Condition", "Observation"], "Condition.code | Observation.code | Observation.component.code", &[]),
];
const REFERENCES: &[Simple] = &[
    (&["Observation"], "Observation.performer.where(resolve() is Practitioner)", &["Practitioner"]),
    (&["Appointment"], "Appointment.participant.where(status = 'accepted').actor", &["Patient", "Practitioner"]),
    (&["Provenance"], "Provenance.agent.who", &["Practitioner"]),
    (&["Patient"], "Patient.generalPractitioner | Patient.link.other", &["Patient", "Practitioner"]),
    (&["Condition", "Encounter"], "Condition.subject | Encounter.subject", &["Patient"]),
];
const DATES: &[Simple] = &[
    (&["Encounter"], "Encounter.period", &[]),
    (&["Condition"], "Condition.onset.ofType(dateTime) | Condition.recordedDate", &[]),
    (&["Observation"], "Observation.effective.ofType(Period)", &[]),
    (&["Patient"], "Patient.deceased.ofType(dateTime)", &[]),
];
const NUMBERS: &[Simple] = &[
    (&["Patient"], "Patient.extension.where(url = '{ext}shoe').value.ofType(decimal)", &[]),
    (&["Location"], "Location.position.latitude", &[]),
];
const QUANTITIES: &[Simple] = &[
    (&["Observation"], "Observation.component.value.ofType(Quantity)", &[]),
    (&["Encounter"], "Encounter.length", &[]),
];
const URIS: &[Simple] = &[
    (&["Patient"], "Patient.extension.where(url = '{ext}page').value.ofType(uri)", &[]),
    (&["Observation"], "Observation.code.coding.system", &[]),
];

/// Type, expression, and of each component the parameter and the expression.
type Composite = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const COMPOSITES: &[Composite] = &[
    (
        "Observation",
        "Observation.component",
        &[("Observation-component-code", "code"), ("Observation-component-value-quantity", "value.ofType(Quantity)")],
    ),
    (
        "Observation",
        "Observation | Observation.component",
        &[("Observation-combo-code", "code"), ("Observation-combo-value-quantity", "value.ofType(Quantity)")],
    ),
    ("Patient", "Patient.name", &[("individual-family", "family"), ("individual-given", "given")]),
    (
        "Appointment",
        "Appointment.participant",
        &[("Appointment-part-status", "status"), ("Appointment-actor", "actor")],
    ),
    (
        "Encounter",
        "Encounter",
        &[
            ("Encounter-class", "class"),
            ("clinical-date", "period"),
            ("Encounter-participant", "participant.individual"),
        ],
    ),
    // Of another parameter of the site, if it was chosen.
    ("Observation", "Observation.component", &[("clinical-code", "code"), ("site:quantity", "value.ofType(Quantity)")]),
];

fn parameter(n: usize, bases: &[&str], kind: &str, expression: &str) -> Value {
    let expression = expression.replace("{ext}", EXTENSIONS);
    json!({
        "resourceType": "SearchParameter", "id": format!("site{n}"), "url": format!("http://example.org/sp/{n}"),
        "name": format!("site{n}"), "status": "active", "description": "of the site", "code": format!("site{n}"),
        "base": bases, "type": kind, "expression": expression,
    })
}

/// Up to two of each type.
pub fn make(random: &mut Random) -> Vec<Value> {
    let mut made = Vec::new();
    let simple = [
        ("string", STRINGS),
        ("phonetic", SOUNDS),
        ("token", TOKENS),
        ("reference", REFERENCES),
        ("date", DATES),
        ("number", NUMBERS),
        ("quantity", QUANTITIES),
        ("uri", URIS),
    ];
    for (kind, from) in simple {
        let first = random.below(from.len());
        let chosen = [first, (first + 1) % from.len()];
        for at in &chosen[..1 + random.below(2)] {
            let (bases, expression, targets) = from[*at];
            let sound = kind == "phonetic";
            let mut one = parameter(made.len(), bases, if sound { "string" } else { kind }, expression);
            if sound {
                one["xpathUsage"] = json!(kind);
            }
            if !targets.is_empty() {
                one["target"] = json!(targets);
            }
            made.push(one);
        }
    }
    let first = random.below(COMPOSITES.len());
    for at in [first, (first + 1) % COMPOSITES.len()] {
        let (base, expression, parts) = COMPOSITES[at];
        let of_site = made.iter().find(|one| one["type"] == "quantity" && one["base"][0] == base);
        let of_site = of_site.and_then(|one| one["url"].as_str());
        let url = |name: &str| match (name, of_site) {
            ("site:quantity", Some(url)) => url.to_owned(),
            ("site:quantity", None) => "http://hl7.org/fhir/SearchParameter/Observation-value-quantity".to_owned(),
            _ => format!("http://hl7.org/fhir/SearchParameter/{name}"),
        };
        let parts: Vec<Value> =
            parts.iter().map(|(name, expression)| json!({"definition": url(name), "expression": expression})).collect();
        let mut one = parameter(made.len(), &[base], "composite", expression);
        one["component"] = json!(parts);
        made.push(one);
    }
    made
}

/// What these define, all of it ready to be searched by.
pub fn customs(parameters: &[Value]) -> Arc<Customs> {
    let mut customs = Customs::default();
    for parameter in parameters {
        let bytes = serde_json::to_vec(parameter).expect("JSON");
        let resource = Resource::check(tree::parse(&bytes).expect("JSON")).expect("a resource");
        let known = Known { customs: &customs, made: Vec::new() };
        let definition = Definition::read(&resource, &known).expect("can be followed").expect("defines something");
        // The oracle of the other database is in this process too, and gives numbers of its own.
        let numbers = (1..).filter_map(ParamId::custom);
        let param = numbers.filter_map(|id| definition.param(id).expect("can be followed")).next();
        let param = param.expect("a number is free");
        customs.all.push(Defined { definition, param, standing: Standing::Ready });
    }
    Arc::new(customs)
}
