//! Small hospitals: patients, those who care for them or answer for them, what is written about them, and what they
//! forbid. Every relation, state and period comes in kinds that count and kinds that do not. The clock stands at
//! 2026-01-31.

use serde_json::{Value, json};

use super::random::Random;

pub const KINDS: [&str; 15] = [
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "Patient",
    "RelatedPerson",
    "CareTeam",
    "Encounter",
    "Appointment",
    "Observation",
    "Condition",
    "Device",
    "Coverage",
    "Consent",
    "DocumentReference",
    "Composition",
];
const COUNTS: [usize; 15] = [2, 4, 3, 6, 4, 4, 6, 6, 14, 5, 4, 4, 4, 5, 3];

/// The whole life of one resource.
pub struct Life {
    pub kind: &'static str,
    pub id: String,
    pub versions: Vec<Value>,
    pub deleted: bool,
}

impl Life {
    pub fn current(&self) -> Option<&Value> {
        self.versions.last().filter(|_| !self.deleted)
    }

    pub fn address(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }
}

pub fn make(random: &mut Random) -> Vec<Life> {
    let mut lives = Vec::new();
    for (kind, count) in KINDS.into_iter().zip(COUNTS) {
        for n in 0..count {
            // The states of an appointment move by rules of their own.
            let versions = if random.chance(20) && kind != "Appointment" { 2 } else { 1 };
            let versions: Vec<Value> = (0..versions).map(|_| resource(random, kind, n)).collect();
            let id = versions[0]["id"].as_str().expect("an id").to_owned();
            lives.push(Life { kind, id, versions, deleted: random.chance(6) });
        }
    }
    lives
}

/// `Patient` 2 is `patient-2`.
pub fn id(kind: &str, n: usize) -> String {
    format!("{}-{n}", kind.to_ascii_lowercase())
}

fn name(random: &mut Random, kind: &str) -> String {
    let at = KINDS.iter().position(|known| *known == kind).expect("a type of the population");
    format!("{kind}/{}", id(kind, random.below(COUNTS[at])))
}

fn to(random: &mut Random, kind: &str) -> Value {
    json!({"reference": name(random, kind)})
}

/// One of some words.
fn one(random: &mut Random, of: &[&'static str]) -> &'static str {
    of[random.below(of.len())]
}

fn code(system: &str, code: &str) -> Value {
    json!({"coding": [{"system": system, "code": code}]})
}

/// A period that holds now, or is over, or is yet to come, or has no ends.
fn period(random: &mut Random) -> Value {
    random
        .pick(&[
            json!({"start": "2020-01-01"}),
            json!({"start": "2020-01-01", "end": "2030-01-01"}),
            json!({"start": "2026-01-31", "end": "2026-01-31"}),
            json!({"start": "2020-01-01", "end": "2026-01-30"}),
            json!({"start": "2026-02-01"}),
        ])
        .clone()
}

/// When something was measured or written.
fn moment(random: &mut Random) -> Value {
    json!(format!("202{}-0{}-11T10:00:00Z", random.below(6), 1 + random.below(9)))
}

fn carer(random: &mut Random) -> Value {
    let kind = one(random, &["Practitioner", "Practitioner", "PractitionerRole"]);
    to(random, kind)
}

pub fn resource(random: &mut Random, kind: &str, n: usize) -> Value {
    let mut resource = json!({"resourceType": kind, "id": id(kind, n)});
    let members = match kind {
        "Organization" => json!({"name": one(random, &["North", "South"])}),
        "Practitioner" => json!({"name": [{"family": one(random, &["Alder", "Birch"])}]}),
        "PractitionerRole" => json!({
            "active": random.chance(75), "period": period(random),
            "practitioner": to(random, "Practitioner"), "organization": to(random, "Organization"),
        }),
        "Patient" => patient(random, n),
        "RelatedPerson" => json!({
            "active": random.chance(80), "period": period(random), "patient": to(random, "Patient"),
            "name": [{"family": one(random, &["Alder", "Birch"])}],
        }),
        "CareTeam" => json!({
            "status": one(random, &["active", "active", "inactive"]), "period": period(random),
            "subject": to(random, "Patient"),
            "participant": [
                {"member": carer(random), "period": period(random)},
                {"member": carer(random)},
            ],
        }),
        "Encounter" => json!({
            "status": one(random, &["in-progress", "finished", "cancelled"]), "class": {"code": one(random, &["AMB", "EMER"])},
            "subject": to(random, "Patient"), "participant": [{"individual": carer(random)}],
            "period": *random.pick(&[
                &json!({"start": "2026-01-30T10:00:00Z"}), &json!({"start": "2026-01-02", "end": "2026-01-03"}),
                &json!({"start": "2025-10-01", "end": "2025-10-02"}),
            ]),
        }),
        "Appointment" => appointment(random),
        "Observation" => observation(random),
        "Condition" => json!({
            "clinicalStatus": code("http://terminology.hl7.org/CodeSystem/condition-clinical", ["active", "resolved"][n % 2]),
            "code": code("http://snomed.info/sct", one(random, &["1", "2"])), "subject": to(random, "Patient"),
            "encounter": to(random, "Encounter"), "asserter": {"reference": "#in"},
            "contained": [{
                "resourceType": "Practitioner", "id": "in", "name": [{"family": one(random, &["Alder", "Birch"])}],
            }],
        }),
        "Device" if random.chance(50) => json!({"status": "active"}),
        "Device" => json!({"status": "active", "patient": to(random, "Patient")}),
        "Coverage" => json!({
            "status": one(random, &["active", "cancelled"]), "beneficiary": to(random, "Patient"),
            "payor": [to(random, "Organization")], "subscriberId": format!("s{n}"),
        }),
        "DocumentReference" => json!({
            "status": one(random, &["current", "current", "superseded"]), "subject": to(random, "Patient"),
            "type": code("http://loinc.org", one(random, &["34133-9", "11488-4"])), "date": moment(random),
            "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}],
        }),
        "Composition" => json!({
            "status": "final", "type": {"text": "note"}, "date": "2026-01-01", "title": "Note",
            "subject": to(random, "Patient"), "author": [to(random, "Practitioner")],
            "section": [{"title": "all", "entry": [to(random, "Observation"), to(random, "Condition")]}],
        }),
        _ => consent(random),
    };
    resource.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
    resource
}

fn patient(random: &mut Random, n: usize) -> Value {
    let mr = code("http://terminology.hl7.org/CodeSystem/v2-0203", "MR");
    let mut patient = json!({
        "identifier": [
            {"type": mr, "system": "urn:other", "value": format!("m{n}")},
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": format!("999-00-000{n}")},
        ],
        "name": [{"family": one(random, &["Alder", "Birch", "Cedar"])}],
        "gender": one(random, &["female", "male"]), "birthDate": one(random, &["1970-01-31", "1980-02-29"]),
        "telecom": [{"system": "phone", "value": format!("555-{n}")}],
    });
    if random.chance(50) {
        patient["generalPractitioner"] = json!([carer(random)]);
    }
    patient
}

fn appointment(random: &mut Random) -> Value {
    let mut actors = vec![to(random, "Patient"), carer(random)];
    if random.chance(25) {
        actors.push(to(random, "Patient"));
    }
    let participants: Vec<Value> =
        actors.into_iter().map(|actor| json!({"actor": actor, "status": "accepted"})).collect();
    let start = one(random, &["2026-02-03T09:00:00Z", "2026-01-20T09:00:00Z", "2026-04-01T09:00:00Z"]);
    json!({
        "status": one(random, &["booked", "fulfilled", "cancelled"]), "start": start, "end": start,
        "reasonCode": [code("http://snomed.info/sct", one(random, &["1", "2"]))], "participant": participants,
    })
}

fn observation(random: &mut Random) -> Value {
    let category = "http://terminology.hl7.org/CodeSystem/observation-category";
    let mut observation = json!({
        "status": one(random, &["final", "preliminary"]),
        "category": [code(category, one(random, &["laboratory", "vital-signs"]))],
        "code": code("http://loinc.org", one(random, &["1-1", "7-7"])),
        "subject": to(random, "Patient"), "performer": [to(random, "Practitioner")],
        "effectiveDateTime": moment(random),
    });
    if random.chance(20) {
        observation["meta"] = json!({"tag": [{"system": "urn:tags", "code": one(random, &["a", "b", "c"])}]});
    }
    if random.chance(50) {
        observation["encounter"] = to(random, "Encounter");
    }
    if random.chance(25) {
        observation["meta"]["security"] = json!([{"system": "urn:labels", "code": "R"}]);
    }
    if random.chance(30) {
        observation["hasMember"] = json!([to(random, "Observation")]);
    }
    observation
}

fn consent(random: &mut Random) -> Value {
    let mut consent = json!({
        "status": one(random, &["active", "active", "inactive"]), "patient": to(random, "Patient"),
        "scope": code(
            "http://terminology.hl7.org/CodeSystem/consentscope",
            one(random, &["patient-privacy", "patient-privacy", "research"]),
        ),
        "category": [code("http://loinc.org", "59284-0")],
        "provision": provision(random, 0),
    });
    if random.chance(25) {
        consent["policyRule"] = code("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT");
    }
    consent
}

fn provision(random: &mut Random, depth: usize) -> Value {
    let mut made = json!({"type": one(random, &["deny", "deny", "permit"])});
    let mut put = |name: &str, value: Value| made[name] = value;
    if random.chance(20) {
        put("period", period(random));
    }
    if random.chance(40) {
        let kind = one(random, &["Practitioner", "RelatedPerson", "Organization", "CareTeam", "PractitionerRole"]);
        put("actor", json!([{"role": code("urn:roles", "PRCP"), "reference": to(random, kind)}]));
    } else if random.chance(20) {
        let role = one(random, &["NURSE", "PROVIDER", "ADMIN"]);
        put("actor", json!([{"role": code("urn:roles", role), "reference": {"display": "a role"}}]));
    }
    if random.chance(20) {
        put("purpose", json!([{"code": one(random, &["TREAT", "HOPERAT", "HRESCH"])}]));
    }
    if random.chance(30) {
        let kind = one(random, &["Observation", "Patient", "Encounter", "Appointment"]);
        put("class", json!([{"system": "http://hl7.org/fhir/resource-types", "code": kind}]));
    }
    if random.chance(25) {
        put("code", json!([code("http://loinc.org", "7-7")]));
    }
    if random.chance(20) {
        put("securityLabel", json!([{"system": "urn:labels", "code": "R"}]));
    }
    if random.chance(15) {
        put("data", json!([{"meaning": "instance", "reference": to(random, "Observation")}]));
    }
    if random.chance(10) {
        put("action", json!([code("urn:actions", one(random, &["access", "correct"]))]));
    }
    if random.chance(5) {
        put("dataPeriod", json!({"start": "2020"}));
    }
    if depth < 2 && random.chance(50) {
        put("provision", (0..1 + random.below(2)).map(|_| provision(random, depth + 1)).collect());
    }
    made
}
