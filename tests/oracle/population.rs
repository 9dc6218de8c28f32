//! Random resources with few distinct values, so that queries meet them: accents, every precision of dates, open periods,
//! units of one dimension, comparators, several patients in one resource, references of every form.

use serde_json::{Map, Value, json};

use super::random::Random;

pub const FAMILIES: [&str; 8] =
    ["Müller", "Mueller", "Muller-Lüdenscheidt", "van den Berg", "O'Hara", "Øst", "Łukasz", "Straße"];
pub const GIVENS: [&str; 7] = ["Éva", "Eva", "Mary Jane", "Jane", "José", "Jo", "Zoë"];
const CITIES: [&str; 4] = ["Pleasantville", "Pleasant Hill", "São Paulo", "Zürich"];
const CODES: [(&str, &str, &str); 5] = [
    ("http://loinc.org", "8480-6", "Systolic blood pressure"),
    ("http://loinc.org", "8462-4", "Diastolic blood pressure"),
    ("http://snomed.info/sct", "271649006", "Systolic blood pressure"),
    ("http://example.org/codes", "HB", "Haemoglobin"),
    ("http://example.org/codes", "hb", "Haemoglobin in lower case"),
];
const UNITS: [(&str, &str); 6] =
    [("mg", "mg"), ("g", "g"), ("ug", "µg"), ("mm[Hg]", "mmHg"), ("kPa", "kPa"), ("mL", "mL")];
/// Before the name of an extension.
pub const EXTENSIONS: &str = "http://example.org/ext/";
/// Where some of the codes below come from.
pub const CODE_SYSTEM: &str = "http://example.org/codes";
const UCUM: &str = "http://unitsofmeasure.org";
const DATES: [&str; 14] = [
    "2011",
    "2012",
    "2012-12",
    "2012-12-31",
    "2012-12-31T23:30:00Z",
    "2013-01-01T00:15:00+02:00",
    "2013",
    "2013-01",
    "2013-01-01",
    "2013-03-14",
    "2013-03-14T10:20:30Z",
    "2013-03-14T10:20:30.500Z",
    "2014-02-28",
    "2024-02-29",
];

/// Patients and whoever else a resource may name, so that references lead somewhere.
const PATIENTS: usize = 30;
const PRACTITIONERS: usize = 6;
const ORGANIZATIONS: usize = 5;
const ENCOUNTERS: usize = 40;
const OBSERVATIONS: usize = 120;

/// Makes the resource of a number.
type Maker = fn(&mut Random, usize) -> Value;

/// Resources that lie in another one, some of them of its own type.
fn contained(random: &mut Random) -> Value {
    let makers: [Maker; 4] = [practitioner, patient, observation, organization];
    let some: Vec<Value> = (0..1 + random.below(2))
        .map(|n| {
            let number = random.below(ORGANIZATIONS);
            let mut one = random.pick(&makers)(random, number);
            one["id"] = json!(format!("c{n}"));
            one
        })
        .collect();
    json!(some)
}

/// Puts some others into a resource now and then.
fn with_contained(random: &mut Random, mut resource: Value) -> Value {
    let may = ["Patient", "Observation", "Condition", "Encounter", "Provenance", "DocumentReference"];
    if may.iter().any(|kind| resource["resourceType"] == *kind) && random.chance(20) {
        resource["contained"] = contained(random);
    }
    resource
}

fn extensions(random: &mut Random) -> Value {
    let mut all = Vec::new();
    let mut add = |name: &str, member: &str, value: Value| {
        let mut one = json!({"url": format!("{EXTENSIONS}{name}")});
        one[member] = value;
        all.push(one);
    };
    if random.chance(40) {
        add("nick", "valueString", text(random, &["Zoë", "Müsli", "zoe two", "O'Nick"]));
    }
    if random.chance(40) {
        add("eyes", "valueCoding", coding(random));
    }
    if random.chance(40) {
        add("shoe", "valueDecimal", random.pick(&[json!(41), json!(41.5), json!(42.0), json!(38)]).clone());
    }
    if random.chance(40) {
        add("page", "valueUri", text(random, &["http://pages/a", "http://pages/a/b", "http://other/a", "urn:x:1"]));
    }
    if all.is_empty() { Value::Null } else { json!(all) }
}

pub fn make(random: &mut Random) -> Vec<Value> {
    let makers: [(usize, Maker); 16] = [
        (ORGANIZATIONS, organization),
        (PRACTITIONERS, practitioner),
        (PATIENTS, patient),
        (10, related_person),
        (4, group),
        (ENCOUNTERS, encounter),
        (OBSERVATIONS, observation),
        (40, condition),
        (30, appointment),
        (15, document),
        (15, provenance),
        (1, code_system),
        (2, value_set),
        (6, questionnaire),
        (12, response),
        (8, location),
    ];
    let mut made = Vec::new();
    for (count, maker) in makers {
        for n in 0..count {
            let one = maker(random, n);
            made.push(with_contained(random, one));
        }
    }
    made
}

/// An object of the members that are not null.
fn object(members: Value) -> Value {
    let Value::Object(members) = members else { return members };
    Value::Object(members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
}

fn maybe(random: &mut Random, percent: usize, make: impl FnOnce(&mut Random) -> Value) -> Value {
    if random.chance(percent) { make(random) } else { Value::Null }
}

fn list(random: &mut Random, most: usize, mut make: impl FnMut(&mut Random) -> Value) -> Value {
    let items: Vec<Value> = (0..random.below(most + 1)).map(|_| make(random)).collect();
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn text(random: &mut Random, from: &[&str]) -> Value {
    json!(*random.pick(from))
}

fn day(random: &mut Random) -> Value {
    let at = random.below(DATES.len());
    json!(DATES[at].get(..10).unwrap_or(DATES[at]))
}

/// Elements of type dateTime say a time only with an offset: all of these do.
fn moment(random: &mut Random) -> Value {
    text(random, &DATES)
}

fn period(random: &mut Random) -> Value {
    let start = random.below(DATES.len());
    let end = start + random.below(DATES.len() - start);
    match random.below(4) {
        0 => json!({"start": DATES[start]}),
        1 => json!({"end": DATES[end]}),
        _ => json!({"start": DATES[start], "end": DATES[end]}),
    }
}

fn coding(random: &mut Random) -> Value {
    let (system, code, display) = *random.pick(&CODES);
    let (system, display) = (maybe(random, 90, |_| json!(system)), maybe(random, 70, |_| json!(display)));
    object(json!({"system": system, "code": code, "display": display}))
}

fn concept(random: &mut Random) -> Value {
    let text = json!(*random.pick(&["Blood pressure", "Pressure of blood", "Sytème"]));
    match random.below(5) {
        0 => json!({"text": text}),
        1 => json!({"coding": [coding(random), coding(random)], "text": text}),
        _ => json!({"coding": [coding(random)]}),
    }
}

fn identifier(random: &mut Random, n: usize) -> Value {
    let system = maybe(random, 80, |random| text(random, &["http://acme.example/ids", "urn:oid:1.2.36.146"]));
    let kind = maybe(
        random,
        30,
        |_| json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "DL"}], "text": "Licence"}),
    );
    let value = if random.chance(80) { format!("N{n}") } else { "a|b,c$d\\e".into() };
    object(json!({"system": system, "type": kind, "value": value}))
}

fn name(random: &mut Random) -> Value {
    let text_of = maybe(random, 20, |random| text(random, &["Prof. Dr. Éva Müller", "Nick O'Hara"]));
    let family = maybe(random, 90, |random| text(random, &FAMILIES));
    let given = list(random, 2, |random| text(random, &GIVENS));
    let prefix = maybe(random, 20, |_| json!(["Dr."]));
    object(json!({"text": text_of, "family": family, "given": given, "prefix": prefix, "use": "official"}))
}

fn to(random: &mut Random, of: &str, count: usize) -> Value {
    let id = format!("{}{}", of.to_lowercase(), random.below(count));
    json!({"reference": format!("{of}/{id}")})
}

fn to_patient(random: &mut Random) -> Value {
    to(random, "Patient", PATIENTS)
}

fn to_practitioner(random: &mut Random) -> Value {
    match random.below(10) {
        0 => json!({"reference": "https://other.example/fhir/Practitioner/9"}),
        1 => json!({"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}),
        2 => json!({"identifier": {"system": "http://acme.example/ids", "value": "N1"}, "display": "Dr. Who"}),
        _ => to(random, "Practitioner", PRACTITIONERS),
    }
}

fn meta(random: &mut Random) -> Value {
    maybe(random, 30, |random| {
        let tag = text(random, &["x", "y"]);
        json!({"tag": [{"system": "http://example.org/tags", "code": tag}], "profile": ["http://example.org/StructureDefinition/a"]})
    })
}

fn quantity(random: &mut Random) -> Value {
    let (code, unit) = *random.pick(&UNITS);
    let value = random.pick(&[json!(5.4), json!(0.0054), json!(5400), json!(120), json!(16), json!(5.35)]).clone();
    let comparator = maybe(random, 15, |random| text(random, &["<", ">", "<=", ">="]));
    match random.below(5) {
        0 => object(json!({"value": value, "unit": unit, "comparator": comparator})),
        1 => object(json!({"value": value})),
        _ => object(json!({"value": value, "unit": unit, "system": UCUM, "code": code, "comparator": comparator})),
    }
}

fn organization(random: &mut Random, n: usize) -> Value {
    let part_of =
        if n > 0 { json!({"reference": format!("Organization/organization{}", random.below(n))}) } else { Value::Null };
    let meta = meta(random);
    object(json!({
        "resourceType": "Organization", "id": format!("organization{n}"), "meta": meta, "active": random.chance(80),
        "name": format!("{} Hospital", FAMILIES[n]), "identifier": [identifier(random, n)], "partOf": part_of,
        "address": [{"city": *random.pick(&CITIES), "country": "CH"}],
    }))
}

fn practitioner(random: &mut Random, n: usize) -> Value {
    object(json!({
        "resourceType": "Practitioner", "id": format!("practitioner{n}"), "name": [name(random)],
        "identifier": [identifier(random, n)], "gender": *random.pick(&["male", "female"]),
    }))
}

fn patient(random: &mut Random, n: usize) -> Value {
    let meta = meta(random);
    let birth = maybe(random, 90, day);
    let gender = maybe(random, 90, |random| text(random, &["male", "female", "other"]));
    let names = list(random, 2, name);
    let identifiers = list(random, 2, |random| identifier(random, n % 12));
    let doctors = list(random, 2, to_practitioner);
    let organization = maybe(random, 60, |random| to(random, "Organization", ORGANIZATIONS));
    let link = maybe(random, 15, |random| json!([{"other": to_patient(random), "type": "seealso"}]));
    let telecom = maybe(random, 50, |_| json!([{"system": "email", "value": format!("Person{}@Example.org", n % 9)}]));
    let address = maybe(
        random,
        70,
        |random| json!([{"city": *random.pick(&CITIES), "line": ["534 Erewhon St"], "postalCode": "3999"}]),
    );
    let deceased = maybe(random, 20, moment);
    let extensions = extensions(random);
    object(json!({
        "extension": extensions, "resourceType": "Patient", "id": format!("patient{n}"), "meta": meta, "active": random.chance(80), "name": names,
        "identifier": identifiers, "gender": gender, "birthDate": birth, "generalPractitioner": doctors,
        "managingOrganization": organization, "link": link, "telecom": telecom, "address": address,
        "deceasedDateTime": deceased,
    }))
}

fn related_person(random: &mut Random, n: usize) -> Value {
    json!({
        "resourceType": "RelatedPerson", "id": format!("relatedperson{n}"), "patient": to_patient(random),
        "name": [name(random)], "birthDate": day(random),
    })
}

fn group(random: &mut Random, n: usize) -> Value {
    let members = list(random, 4, |random| json!({"entity": to_patient(random)}));
    object(json!({
        "resourceType": "Group", "id": format!("group{n}"), "type": "person", "actual": true, "member": members,
        "identifier": [identifier(random, n)],
    }))
}

fn encounter(random: &mut Random, n: usize) -> Value {
    let subject = maybe(random, 90, to_patient);
    let period = maybe(random, 80, period);
    let people = list(random, 2, |random| json!({"individual": to_practitioner(random)}));
    let organization = maybe(random, 50, |random| to(random, "Organization", ORGANIZATIONS));
    object(json!({
        "resourceType": "Encounter", "id": format!("encounter{n}"),
        "status": *random.pick(&["planned", "in-progress", "finished"]),
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": *random.pick(&["AMB", "IMP"])},
        "subject": subject, "period": period, "participant": people, "serviceProvider": organization,
        "length": {"value": 90, "system": UCUM, "code": "min", "unit": "minutes"},
    }))
}

fn observation(random: &mut Random, n: usize) -> Value {
    let subject = match random.below(12) {
        0 => Value::Null,
        1 => to(random, "Group", 4),
        2 => json!({"reference": "https://other.example/fhir/Patient/patient1"}),
        _ => to_patient(random),
    };
    let encounter = maybe(random, 60, |random| to(random, "Encounter", ENCOUNTERS));
    let performers = list(random, 2, |random| match random.below(4) {
        0 => to_patient(random),
        1 => to(random, "Organization", ORGANIZATIONS),
        _ => to_practitioner(random),
    });
    let (when, span) = match random.below(4) {
        0 => (Value::Null, period(random)),
        1 => (Value::Null, Value::Null),
        _ => (moment(random), Value::Null),
    };
    let (amount, words, of) = match random.below(4) {
        0 => (Value::Null, json!("Éviter"), Value::Null),
        1 => (Value::Null, Value::Null, concept(random)),
        _ => (quantity(random), Value::Null, Value::Null),
    };
    let parts = list(random, 2, |random| json!({"code": concept(random), "valueQuantity": quantity(random)}));
    let members = maybe(random, 20, |random| json!([to(random, "Observation", OBSERVATIONS)]));
    let meta = meta(random);
    object(json!({
        "resourceType": "Observation", "id": format!("observation{n}"), "meta": meta,
        "status": *random.pick(&["final", "preliminary", "amended"]),
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": *random.pick(&["vital-signs", "laboratory"])}]}],
        "code": concept(random), "subject": subject, "encounter": encounter, "performer": performers,
        "effectiveDateTime": when, "effectivePeriod": span, "valueQuantity": amount, "valueString": words,
        "valueCodeableConcept": of, "component": parts, "hasMember": members,
    }))
}

fn condition(random: &mut Random, n: usize) -> Value {
    let onset = maybe(random, 70, moment);
    let encounter = maybe(random, 50, |random| to(random, "Encounter", ENCOUNTERS));
    let recorded = maybe(random, 50, moment);
    object(json!({
        "resourceType": "Condition", "id": format!("condition{n}"), "code": concept(random), "subject": to_patient(random),
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
            "code": *random.pick(&["active", "resolved"])}]},
        "onsetDateTime": onset, "encounter": encounter, "recordedDate": recorded,
    }))
}

fn appointment(random: &mut Random, n: usize) -> Value {
    let starts = ["2024-02-29T08:00:00Z", "2025-01-01T00:00:00+01:00", "2027-06-01T12:30:00Z"];
    let ends = ["2024-02-29T08:30:00Z", "2025-01-01T01:00:00+01:00", "2027-06-01T13:00:00Z"];
    let at = random.below(starts.len());
    let doctor = json!({"actor": to(random, "Practitioner", PRACTITIONERS), "status": "accepted"});
    let mut people =
        vec![json!({"actor": to_patient(random), "status": *random.pick(&["accepted", "needs-action"])}), doctor];
    people.truncate(1 + random.below(2));
    json!({
        "resourceType": "Appointment", "id": format!("appointment{n}"),
        "status": *random.pick(&["proposed", "pending", "booked", "fulfilled"]), "start": starts[at], "end": ends[at],
        "participant": people, "serviceType": [concept(random)],
    })
}

fn document(random: &mut Random, n: usize) -> Value {
    let subject = maybe(random, 90, to_patient);
    let date = maybe(random, 80, |_| json!("2013-03-14T10:20:30Z"));
    object(json!({
        "resourceType": "DocumentReference", "id": format!("documentreference{n}"),
        "status": *random.pick(&["current", "superseded"]), "type": concept(random), "subject": subject, "date": date,
        "description": *random.pick(&["Entlassungsbrief für den Patienten", "Discharge summary"]),
        "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}],
    }))
}

/// The codes of observations, one above the other: what `:below` and `:in` go by.
fn code_system(_: &mut Random, _: usize) -> Value {
    json!({"resourceType": "CodeSystem", "id": "codes", "url": CODE_SYSTEM, "status": "active", "content": "complete",
        "concept": [{"code": "blood", "concept": [{"code": "HB"}, {"code": "WBC"}]}, {"code": "other"}]})
}

fn value_set(_: &mut Random, n: usize) -> Value {
    let include = match n {
        0 => json!([{"system": CODE_SYSTEM, "filter": [{"property": "concept", "op": "is-a", "value": "blood"}]}]),
        _ => json!([{"system": "http://loinc.org", "concept": [{"code": "8480-6"}]}, {"valueSet": [value_set_url(0)]}]),
    };
    json!({"resourceType": "ValueSet", "id": format!("set{n}"), "url": value_set_url(n), "status": "active",
        "compose": {"include": include}})
}

pub fn value_set_url(n: usize) -> String {
    format!("http://example.org/sets/{n}")
}

fn questionnaire(_: &mut Random, n: usize) -> Value {
    json!({"resourceType": "Questionnaire", "id": format!("form{n}"), "url": format!("http://example.org/forms/{}", n / 3),
        "version": (["1", "1.2", "2"][n % 3]), "status": "active", "title": format!("Form {n}")})
}

fn response(random: &mut Random, n: usize) -> Value {
    let form = format!("http://example.org/forms/{}", random.below(2));
    let form = match random.below(4) {
        0 => form,
        other => format!("{form}|{}", ["1", "1.2", "3"][other - 1]),
    };
    json!({"resourceType": "QuestionnaireResponse", "id": format!("response{n}"), "status": "completed",
        "questionnaire": form, "subject": to_patient(random)})
}

fn location(random: &mut Random, n: usize) -> Value {
    let part_of =
        if n > 0 { json!({"reference": format!("Location/location{}", random.below(n))}) } else { Value::Null };
    let position = maybe(
        random,
        80,
        |random| json!({"latitude": 47.0 + random.below(8) as f64 / 10.0, "longitude": 8.0 + random.below(8) as f64 / 10.0}),
    );
    object(json!({"resourceType": "Location", "id": format!("location{n}"), "name": format!("Ward {n}"),
        "partOf": part_of, "position": position}))
}

fn provenance(random: &mut Random, n: usize) -> Value {
    let mut targets = vec![to(random, "Observation", OBSERVATIONS), to_patient(random)];
    targets.truncate(1 + random.below(2));
    json!({
        "resourceType": "Provenance", "id": format!("provenance{n}"), "target": targets,
        "recorded": "2013-03-14T10:20:30Z", "agent": [{"who": to(random, "Practitioner", PRACTITIONERS)}],
    })
}
