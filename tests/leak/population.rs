//! Small populations whose resources refer to each other, and the scopes of the leak test with a plain predicate for
//! each: what a token may see is decided here, from the JSON alone.

use serde_json::{Value, json};

use crate::oracle::random::Random;

/// A search argument of a scope, and which resources it lets through.
pub struct Filter {
    pub kind: &'static str,
    pub text: &'static str,
    pub lets: fn(&Value) -> bool,
}

pub const KINDS: [&str; 6] = ["Organization", "Practitioner", "Patient", "Encounter", "Observation", "Condition"];
const COUNTS: [usize; 6] = [2, 3, 4, 5, 12, 6];

const OBSERVATION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const CONDITION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
const CONDITION_CLINICAL: &str = "http://terminology.hl7.org/CodeSystem/condition-clinical";
const ACT: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const MR: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";

pub const FILTERS: [Filter; 20] = [
    Filter { kind: "Observation", text: "category=laboratory", lets: |r| coded(&r["category"], "laboratory") },
    Filter {
        kind: "Observation",
        text: "category=http://terminology.hl7.org/CodeSystem/observation-category|vital-signs",
        lets: |r| coded(&r["category"], "vital-signs"),
    },
    Filter {
        kind: "Observation",
        text: "code=http://loinc.org|8480-6",
        lets: |r| coded(&json!([r["code"]]), "8480-6"),
    },
    Filter { kind: "Observation", text: "status=final", lets: |r| r["status"] == "final" },
    Filter { kind: "Observation", text: "status:not=final", lets: |r| r["status"] != "final" },
    Filter { kind: "Observation", text: "subject=Patient/p0", lets: |r| r["subject"]["reference"] == "Patient/p0" },
    Filter {
        kind: "Observation",
        text: "category=laboratory&status=final",
        lets: |r| coded(&r["category"], "laboratory") && r["status"] == "final",
    },
    Filter {
        kind: "Observation",
        text: "category=survey,laboratory",
        lets: |r| coded(&r["category"], "survey") || coded(&r["category"], "laboratory"),
    },
    Filter { kind: "Observation", text: "encounter:missing=true", lets: |r| r.get("encounter").is_none() },
    Filter { kind: "Patient", text: "gender=female", lets: |r| r["gender"] == "female" },
    Filter { kind: "Patient", text: "_id=p1", lets: |r| r["id"] == "p1" },
    Filter { kind: "Patient", text: "birthdate=ge1980", lets: |r| r["birthDate"].as_str() >= Some("1980") },
    Filter { kind: "Patient", text: "family=Alder", lets: |r| r["name"][0]["family"] == "Alder" },
    Filter {
        kind: "Condition",
        text: "clinical-status=active",
        lets: |r| coded(&json!([r["clinicalStatus"]]), "active"),
    },
    Filter {
        kind: "Condition",
        text: "category=problem-list-item",
        lets: |r| coded(&r["category"], "problem-list-item"),
    },
    Filter { kind: "Encounter", text: "status=finished", lets: |r| r["status"] == "finished" },
    Filter { kind: "Encounter", text: "class=AMB", lets: |r| r["class"]["code"] == "AMB" },
    Filter { kind: "Practitioner", text: "active=true", lets: |r| r["active"] == true },
    Filter { kind: "Organization", text: "name=North", lets: |r| r["name"] == "North" },
    Filter { kind: "Organization", text: "active=true", lets: |r| r["active"] == true },
];

fn coded(concepts: &Value, code: &str) -> bool {
    let concepts = concepts.as_array().into_iter().flatten();
    concepts.flat_map(|concept| concept["coding"].as_array().into_iter().flatten()).any(|coding| coding["code"] == code)
}

fn concept(system: &str, code: &str) -> Value {
    json!({"coding": [{"system": system, "code": code}]})
}

/// The whole life of one resource.
pub struct Life {
    pub kind: &'static str,
    pub id: String,
    /// Its contents, oldest first.
    pub versions: Vec<Value>,
    /// Whether a deletion follows them.
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
            let versions = if random.chance(20) { 2 + random.below(2) } else { 1 };
            let versions: Vec<Value> = (0..versions).map(|_| resource(random, kind, n)).collect();
            let id = versions[0]["id"].as_str().expect("an id").to_owned();
            lives.push(Life { kind, id, versions, deleted: random.chance(7) });
        }
    }
    lives
}

fn to(random: &mut Random, kind: &str) -> Value {
    let at = KINDS.iter().position(|known| *known == kind).expect("a type of the population");
    json!({"reference": format!("{kind}/{}{}", letter(kind), random.below(COUNTS[at]))})
}

fn letter(kind: &str) -> char {
    kind.to_ascii_lowercase().chars().next().expect("a name")
}

fn resource(random: &mut Random, kind: &str, n: usize) -> Value {
    let mut resource = json!({"resourceType": kind, "id": format!("{}{n}", letter(kind))});
    let mut put = |name: &str, value: Value| resource[name] = value;
    match kind {
        "Organization" => {
            put("active", json!(random.chance(50)));
            put("name", json!(*random.pick(&["North", "South"])));
        }
        "Practitioner" => {
            put("active", json!(random.chance(50)));
            put("name", json!([{"family": *random.pick(&["Alder", "Birch"])}]));
        }
        "Patient" => {
            // A number of its own: none is drawn, which would differ between two servers.
            put("identifier", json!([{"type": concept(MR, "MR"), "system": "urn:other", "value": format!("m{n}")}]));
            put("gender", json!(*random.pick(&["female", "male"])));
            put("birthDate", json!(*random.pick(&["1970-01-31", "1980-02-29", "1999-12-31"])));
            put("name", json!([{"family": *random.pick(&["Alder", "Birch", "Cedar"])}]));
            if random.chance(60) {
                put("generalPractitioner", json!([to(random, "Practitioner")]));
            }
            if random.chance(60) {
                put("managingOrganization", to(random, "Organization"));
            }
        }
        "Encounter" => {
            put("status", json!(*random.pick(&["finished", "planned"])));
            put("class", json!({"system": ACT, "code": *random.pick(&["AMB", "EMER"])}));
            put("subject", to(random, "Patient"));
            if random.chance(40) {
                put("serviceProvider", to(random, "Organization"));
            }
            if random.chance(40) {
                put("partOf", to(random, "Encounter"));
            }
        }
        "Observation" => {
            let category = *random.pick(&["laboratory", "vital-signs", "survey"]);
            put("status", json!(*random.pick(&["final", "preliminary"])));
            put("category", json!([concept(OBSERVATION_CATEGORY, category)]));
            put("code", concept("http://loinc.org", ["8480-6", "8462-4"][random.below(2)]));
            put("subject", to(random, "Patient"));
            if random.chance(60) {
                put("encounter", to(random, "Encounter"));
            }
            if random.chance(60) {
                let kind = *random.pick(&["Practitioner", "Organization"]);
                put("performer", json!([to(random, kind)]));
            }
            if random.chance(40) {
                put("hasMember", json!([to(random, "Observation"), to(random, "Observation")]));
            }
        }
        _ => {
            put("clinicalStatus", concept(CONDITION_CLINICAL, ["active", "resolved"][random.below(2)]));
            let category = *random.pick(&["problem-list-item", "encounter-diagnosis"]);
            put("category", json!([concept(CONDITION_CATEGORY, category)]));
            put("code", json!({"text": "Hay fever"}));
            put("subject", to(random, "Patient"));
            if random.chance(60) {
                put("encounter", to(random, "Encounter"));
            }
            if random.chance(40) {
                put("asserter", to(random, "Practitioner"));
            }
        }
    }
    resource
}
