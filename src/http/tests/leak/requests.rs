//! Random searches that touch each other's types: filters, chains, `_has`, includes, totals, sorting, paging.

use super::random::Random;
use super::world::KINDS;

const OF: [(&str, &[&str]); 8] = [
    (
        "Observation",
        &[
            "category=laboratory",
            "code=1-1",
            "code:not=7-7",
            "status=final",
            "patient=patient-0,patient-1",
            "subject:Patient.gender=female",
            "patient.family=Alder",
            "patient.identifier=999-00-0001",
            "patient.general-practitioner:Practitioner.family=Birch",
            "encounter.status=finished",
            "encounter.participant:Practitioner.family=Alder",
            "has-member.code=7-7",
            "_has:Observation:has-member:status=final",
            "_security=R",
            "performer:Practitioner.family=Alder",
        ],
    ),
    (
        "Patient",
        &[
            "gender=female",
            "family=Alder",
            "family:missing=false",
            "identifier=999-00-0002",
            "identifier:missing=true",
            "identifier:not=999-00-0000",
            "phone=555-3",
            "general-practitioner=Practitioner/practitioner-1",
            "general-practitioner:missing=true",
            "_has:Observation:patient:code=7-7",
            "_has:Appointment:patient:status=booked",
            "_has:Appointment:patient:reason-code=1",
            "_has:Consent:patient:status=active",
            "_has:Encounter:subject:_has:Observation:encounter:status=final",
            "_id=patient-0,patient-3",
        ],
    ),
    ("Encounter", &["status=finished", "class=AMB", "patient.gender=male", "_has:Observation:encounter:code=1-1"]),
    (
        "Appointment",
        &[
            "status=booked",
            "reason-code=1",
            "reason-code:missing=true",
            "reason-code:not=2",
            "patient.family=Birch",
            "actor:Practitioner.family=Alder",
            "actor=Patient/patient-1",
            "date=ge2026-02-01",
        ],
    ),
    ("CareTeam", &["status=active", "participant:Practitioner.family=Birch", "patient.gender=female"]),
    ("Condition", &["clinical-status=active", "code=1", "encounter.class=EMER", "patient.identifier=999-00-0001"]),
    (
        "Practitioner",
        &["family=Alder", "_has:Patient:general-practitioner:gender=female", "_has:Appointment:actor:status=booked"],
    ),
    ("Device", &["status=active", "patient:missing=true", "patient.gender=male"]),
];

const INCLUDES: [&str; 12] = [
    "_include=*",
    "_include:iterate=Observation:subject",
    "_include:iterate=Observation:encounter",
    "_include:iterate=Observation:has-member",
    "_include:iterate=Patient:general-practitioner",
    "_include:iterate=Appointment:actor",
    "_include:iterate=Encounter:participant",
    "_include:iterate=CareTeam:participant",
    "_revinclude:iterate=Observation:subject",
    "_revinclude:iterate=Appointment:actor",
    "_revinclude:iterate=Consent:patient",
    "_revinclude:iterate=RelatedPerson:patient",
];

pub struct Asked {
    pub kind: &'static str,
    pub query: String,
    /// Whether a key that no two matches share tells their order.
    pub ordered: bool,
    /// Whether the criteria look at the searched type alone.
    pub own: bool,
}

pub fn draw(random: &mut Random) -> Asked {
    let (kind, table) = match random.below(4) {
        0 => (*random.pick(&KINDS), &[] as &[&str]),
        _ => *random.pick(&OF),
    };
    let count = if table.is_empty() { 0 } else { random.below(3) };
    let mut parts: Vec<String> = (0..count).map(|_| (*random.pick(table)).to_owned()).collect();
    let name = |part: &String| part.split('=').next().unwrap_or_default().to_owned();
    let own = !parts.iter().map(name).any(|name| name.contains('.') || name.contains("_has"));
    if random.chance(40) {
        parts.extend((0..1 + random.below(2)).map(|_| (*random.pick(&INCLUDES)).to_owned()));
    }
    let mut ordered = random.chance(20);
    if ordered {
        parts.push("_sort=_id".to_owned());
    } else if kind == "Patient" && random.chance(15) {
        // Sorting by what may be closed: the order of what is shown must not tell of it.
        parts.push("_sort=identifier,_id".to_owned());
        ordered = true;
    }
    match random.below(6) {
        0 => parts.push("_total=accurate".to_owned()),
        1 => parts.push("_summary=count".to_owned()),
        _ => {}
    }
    if random.chance(40) {
        parts.push(format!("_count={}", 1 + random.below(4)));
    }
    Asked { kind, query: parts.join("&"), ordered, own }
}
