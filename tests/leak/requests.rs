//! Random searches that touch each other's types: filters, chains, `_has`, includes, totals, sorting, paging.

use super::population::KINDS;
use crate::oracle::random::Random;

const OBSERVATION: &[&str] = &[
    "category=laboratory",
    "category:not=laboratory",
    "code=8480-6",
    "status=final",
    "subject=Patient/p0",
    "patient=p1,p2",
    "subject:Patient.gender=female",
    "subject:Patient.family=Alder",
    "patient.birthdate=ge1980",
    "subject.gender=male",
    "encounter.status=finished",
    "encounter.class=AMB",
    "encounter.service-provider.name=North",
    "encounter.subject:Patient.organization.name=South",
    "performer:Practitioner.active=true",
    "performer:Organization.name=North",
    "has-member.status=final",
    "has-member:Observation.code=8480-6",
    "_has:Observation:has-member:status=final",
    "encounter:missing=true",
    "_id=o0,o1,o2,o3",
];
const PATIENT: &[&str] = &[
    "gender=female",
    "family=Alder",
    "birthdate=lt1985",
    "general-practitioner:Practitioner.active=true",
    "organization.name=North",
    "organization:missing=true",
    "_has:Observation:subject:category=laboratory",
    "_has:Observation:patient:code=8480-6",
    "_has:Condition:patient:clinical-status=active",
    "_has:Encounter:patient:_has:Observation:encounter:status=final",
    "_has:Encounter:subject:class=AMB",
    "_id=p0,p3",
];
const CONDITION: &[&str] = &[
    "clinical-status=active",
    "category=problem-list-item",
    "patient.gender=female",
    "subject:Patient.general-practitioner:Practitioner.active=true",
    "encounter.status=finished",
    "encounter.part-of.status=planned",
    "asserter:Practitioner.family=Birch",
];
const ENCOUNTER: &[&str] = &[
    "status=finished",
    "class=EMER",
    "subject:Patient.family=Cedar",
    "service-provider.active=true",
    "part-of.status=finished",
    "_has:Condition:encounter:category=encounter-diagnosis",
    "_has:Observation:encounter:code=8462-4",
    "_has:Encounter:part-of:class=AMB",
];
const PRACTITIONER: &[&str] = &[
    "active=true",
    "family=Alder",
    "_has:Patient:general-practitioner:gender=female",
    "_has:Observation:performer:status=final",
    "_has:Condition:asserter:clinical-status=active",
];
const ORGANIZATION: &[&str] = &[
    "active=true",
    "name=North",
    "_has:Patient:organization:family=Alder",
    "_has:Encounter:service-provider:status=finished",
    "_has:Observation:performer:category=laboratory",
];

const INCLUDES: [&str; 20] = [
    "_include=*",
    "_include=Observation:*",
    "_include=Observation:subject",
    "_include=Observation:encounter:Encounter",
    "_include=Observation:performer",
    "_include=Observation:performer:Organization",
    "_include=Patient:organization",
    "_include=Condition:asserter",
    "_include=Encounter:service-provider",
    "_include:iterate=Patient:general-practitioner",
    "_include:iterate=Observation:has-member",
    "_include:iterate=Encounter:part-of",
    "_include:iterate=Encounter:subject",
    "_include=Encounter:subject",
    "_revinclude=Condition:*",
    "_revinclude=Observation:subject",
    "_revinclude=Observation:*",
    "_revinclude=Condition:encounter",
    "_revinclude:iterate=Observation:has-member",
    "_revinclude:iterate=Encounter:part-of",
];

pub struct Asked {
    pub kind: &'static str,
    pub query: String,
    pub post: bool,
    /// Whether the order of the matches is told by a key that no two of them share.
    pub ordered: bool,
    /// Whether only types of the search's own criteria are named: then the type alone decides about a refusal.
    pub own: bool,
}

pub fn draw(random: &mut Random) -> Asked {
    let kind = *random.pick(&["Observation", "Observation", "Patient", "Patient", "Condition", "Encounter", "*"]);
    let kind = if kind == "*" { *random.pick(&KINDS) } else { kind };
    let table = match kind {
        "Observation" => OBSERVATION,
        "Patient" => PATIENT,
        "Condition" => CONDITION,
        "Encounter" => ENCOUNTER,
        "Practitioner" => PRACTITIONER,
        _ => ORGANIZATION,
    };
    let mut parts: Vec<String> = (0..random.below(3)).map(|_| (*random.pick(table)).to_owned()).collect();
    let own = !parts
        .iter()
        .any(|part| part.split('=').next().is_some_and(|name| name.contains('.') || name.contains("_has")));
    if random.chance(45) {
        parts.extend((0..1 + random.below(3)).map(|_| include(kind, INCLUDES[random.below(INCLUDES.len())])));
    }
    let ordered = random.chance(25);
    if ordered {
        parts.push((*random.pick(&["_sort=_id", "_sort=-_id"])).to_owned());
    }
    match random.below(8) {
        0 | 1 => parts.push("_total=accurate".to_owned()),
        2 => parts.push("_total=estimate".to_owned()),
        3 => parts.push("_summary=count".to_owned()),
        4 => parts.push((*random.pick(&["_summary=true", "_elements=id,meta", "_total=none"])).to_owned()),
        _ => {}
    }
    if random.chance(50) {
        parts.push(format!("_count={}", 1 + random.below(4)));
    }
    Asked { kind, query: parts.join("&"), post: random.chance(30), ordered, own }
}

/// An include that does not start (or, reversed, end) at the type is only taken with `:iterate`.
fn include(kind: &str, include: &str) -> String {
    let starts = include == "_include=*" || include.starts_with(&format!("_include={kind}:"));
    let ends = match include {
        "_revinclude=Observation:subject" => kind == "Patient",
        "_revinclude=Condition:encounter" => kind == "Encounter",
        _ => include.starts_with("_revinclude=") && include.ends_with(":*"),
    };
    if starts || ends { include.to_owned() } else { include.replace("include=", "include:iterate=") }
}
