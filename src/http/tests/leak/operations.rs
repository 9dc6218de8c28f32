//! Operations and writes: the same caller, with the same reach, asks the whole population and the server that holds
//! only what the caller may see. Answers and what they leave behind must be the same.
//!
//! One thing cannot be: an id is one for everybody. A client that names the id of what it may not see is told 404, where a
//! new id would be taken. Those updates are measured directly.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Persona, Reply, TestApp};
use super::random::Random;
use super::requests;
use super::truth::Somebody;
use super::world::{self, KINDS, Life, id};
use super::{BASE, PAGES_MAX, Seen as All, address};
use crate::interaction;

const READS: usize = 12;
const WRITES: usize = 30;
const PATIENTS: usize = 6;
const FHIR: &str = "application/fhir+json";

/// How much there was to see.
#[derive(Default, Debug)]
pub struct Seen {
    given: u64,
    denied: u64,
    absent: u64,
    /// Answers that differ from those to somebody without limits.
    withheld: u64,
    written: u64,
    kept: u64,
}

impl Seen {
    pub fn has_read(&self) -> bool {
        [self.given, self.denied, self.absent, self.withheld].iter().all(|n| *n > 0)
    }

    pub fn has_written(&self) -> bool {
        [self.written, self.kept].iter().all(|n| *n > 0)
    }
}

struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn get(path: String) -> Request {
    Request { method: "GET", path, headers: Vec::new(), body: String::new() }
}

fn send(method: &'static str, path: String, body: &Value) -> Request {
    let kind = if method == "PATCH" { "application/json-patch+json" } else { FHIR };
    Request { method, path, headers: vec![("content-type", kind.to_owned())], body: body.to_string() }
}

impl Request {
    fn with(mut self, name: &'static str, value: String) -> Request {
        self.headers.push((name, value));
        self
    }

    async fn of(&self, who: &Persona<'_>) -> Reply {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        who.call(self.method, &self.path, &headers, self.body.clone()).await
    }
}

/// One caller at both servers.
pub struct Pair<'a> {
    here: Persona<'a>,
    there: Persona<'a>,
    writes_here: Persona<'a>,
    writes_there: Persona<'a>,
}

impl<'a> Pair<'a> {
    pub async fn of(whole: &'a TestApp, own: &'a TestApp, who: &Somebody) -> Pair<'a> {
        // What is reached rests on relations that need not be seen: the other server could not look it up.
        let caller = |scopes: String| async move {
            interaction::resolved(whole.app(), &who.caller(&scopes, BASE)).await.expect("the reach is looked up")
        };
        let reads = caller(who.scopes.clone()).await;
        let writes = caller(who.scopes.replace(".rs", ".cruds")).await;
        Pair {
            here: whole.admit(reads.clone()),
            there: own.admit(reads),
            writes_here: whole.admit(writes.clone()),
            writes_there: own.admit(writes),
        }
    }

    pub async fn read(&self, office: &Persona<'_>, lives: &[Life], random: &mut Random, all: &mut All, context: &str) {
        for _ in 0..READS {
            let request = reading(random, lives);
            let context = format!("{context}\n{} {}\n{}", request.method, request.path, request.body);
            let here = whole_answer(&self.here, &request, &context).await;
            let there = whole_answer(&self.there, &request, &context).await;
            assert_eq!(here, there, "{context}");
            all.requests += 1;
            let seen = &mut all.operations;
            match here.0 {
                403 => seen.denied += 1,
                404 | 422 => seen.absent += 1,
                status => {
                    assert!([200, 400, 410].contains(&status), "{context}: {here:?}");
                    seen.given += u64::from(status == 200);
                }
            }
            if random.chance(25) {
                seen.withheld += u64::from(whole_answer(office, &request, &context).await != here);
            }
        }
    }

    pub async fn write(
        &self,
        office: &Persona<'_>,
        lives: &[Life],
        who: &Somebody,
        random: &mut Random,
        all: &mut All,
        context: &str,
    ) {
        let hidden: BTreeSet<String> = lives
            .iter()
            .filter(|life| !who.sees(life.versions.last().expect("a version")))
            .map(Life::address)
            .collect();
        for _ in 0..WRITES {
            let request = writing(random, lives);
            let context =
                format!("{context}\n{} {} {:?}\n{}", request.method, request.path, request.headers, request.body);
            let here = request.of(&self.writes_here).await;
            all.requests += 1;
            let names_hidden = request.method == "PUT" && hidden.contains(&request.path)
                || request.path.contains("mode=update") && hidden.contains(&validated(&request));
            if names_hidden {
                let unseen =
                    [404, 403].contains(&here.status) || here.text().contains("\"not-found\"") || here.status == 412;
                assert!(unseen || here.text().contains("\"forbidden\""), "{context}: {} {}", here.status, here.text());
                continue;
            }
            let there = request.of(&self.writes_there).await;
            assert_eq!(plain(&request, &here), plain(&request, &there), "{context}");
            assert!(here.status < 500, "{context}: {}", here.text());
            all.operations.written += u64::from(here.status < 300);
        }
        for life in lives.iter().filter(|life| hidden.contains(&life.address())) {
            let now = office.get(&life.address()).await;
            all.requests += 1;
            match life.deleted {
                true => assert_eq!(now.status, 410, "{context}: {}", life.address()),
                false => assert_eq!(
                    now.json()["meta"]["versionId"],
                    life.versions.len().to_string(),
                    "{context}: {} was written",
                    life.address()
                ),
            }
            all.operations.kept += 1;
        }
        // What was left behind is the same.
        for kind in KINDS {
            let request = get(format!("{kind}?_count=500"));
            let (here, there) = (request.of(&self.here).await, request.of(&self.there).await);
            all.requests += 1;
            assert_eq!(plain(&request, &here), plain(&request, &there), "{context}\nafter the writes: {kind}");
        }
    }
}

/// The address of what an update is tried for.
fn validated(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("a resource");
    address(&body)
}

/// The answer over all its pages.
async fn whole_answer(who: &Persona<'_>, request: &Request, context: &str) -> (u16, String, Value) {
    let reply = request.of(who).await;
    let mut answer = plain(request, &reply);
    let mut next = (reply.status == 200 && request.path.contains("$everything")).then(|| reply.link("next")).flatten();
    let mut pages = 0;
    while let Some(link) = next {
        pages += 1;
        let reply = who.get(&link).await;
        assert!(reply.status == 200 && pages < PAGES_MAX, "{context}\n{link}: {}", reply.text());
        let more = plain(request, &reply).2["entry"].take();
        let entries = answer.2["entry"].as_array_mut().expect("entries before the last page");
        entries.extend(more.as_array().cloned().unwrap_or_default());
        // What is included stands on every page that leads to it, and so do notes.
        sort(entries);
        entries.dedup();
        next = reply.link("next");
    }
    answer
}

/// Status, place and body without what differs between two servers: moments, drawn ids, the order of rows.
fn plain(request: &Request, reply: &Reply) -> (u16, String, Value) {
    let text = without_drawn(&reply.text());
    let mut body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    without_moments(&mut body);
    let ordered = ["$lastn", "$match"].iter().any(|name| request.path.contains(name));
    if let Some(Value::Array(entries)) = body.get_mut("entry").filter(|_| !ordered) {
        sort(entries);
    }
    (reply.status, without_drawn(reply.header("location")), body)
}

fn without_moments(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for name in ["lastUpdated", "lastModified", "timestamp", "link"] {
                members.remove(name);
            }
            // The other server was given the open part alone, and cuts nothing.
            members.retain(|name, value| name != "tag" || value[0]["code"] != "SUBSETTED");
            members.values_mut().for_each(without_moments);
        }
        Value::Array(items) => items.iter_mut().for_each(without_moments),
        _ => {}
    }
}

fn sort(entries: &mut [Value]) {
    entries.sort_by_cached_key(|entry| (address(&entry["resource"]), entry.to_string()));
}

/// Texts in the form of a UUID are replaced: they were drawn.
fn without_drawn(text: &str) -> String {
    let drawn = |part: &[u8]| {
        let hyphen = |n: usize| [8, 13, 18, 23].contains(&n);
        part.iter().enumerate().all(|(n, byte)| if hyphen(n) { *byte == b'-' } else { byte.is_ascii_hexdigit() })
    };
    let (bytes, mut out, mut at, mut from) = (text.as_bytes(), String::new(), 0, 0);
    while at + 36 <= bytes.len() {
        match drawn(&bytes[at..at + 36]) {
            true => {
                out += &text[from..at];
                out += "drawn";
                at += 36;
                from = at;
            }
            false => at += 1,
        }
    }
    out + &text[from..]
}

fn patient(random: &mut Random) -> String {
    id("Patient", random.below(PATIENTS))
}

fn of_kind<'a>(random: &mut Random, lives: &'a [Life], kind: &str) -> &'a Life {
    let all: Vec<&Life> = lives.iter().filter(|life| life.kind == kind).collect();
    all[random.below(all.len())]
}

fn parameters(all: &[(&str, &Value)]) -> Value {
    let parameter = |(name, resource): &(&str, &Value)| json!({"name": name, "resource": resource});
    json!({"resourceType": "Parameters", "parameter": all.iter().map(parameter).collect::<Vec<_>>()})
}

fn reading(random: &mut Random, lives: &[Life]) -> Request {
    match random.below(17) {
        16 => {
            let compartment = format!("Patient/{}/", patient(random));
            let place = if random.chance(50) { "" } else { &compartment };
            let lying = random.pick(&["true", "true&_containedType=contained", "both", "true&_summary=count"]);
            get(format!("{place}Practitioner?family=Alder&_contained={lying}"))
        }
        0 | 1 => {
            // All types of a compartment are many searches: seldom.
            let narrowing = [
                "",
                "?_type=Observation,Practitioner,Patient&_count=2",
                "?_type=Appointment,Condition,Encounter,Organization",
                "?_type=Observation,Composition,Consent&start=2022-01-01&end=2024-06-01",
            ];
            get(format!("Patient/{}/$everything{}", patient(random), random.pick(&narrowing)))
        }
        2 => get(format!("Encounter/{}/$everything?_count=4", id("Encounter", random.below(6)))),
        3 => get(format!(
            "Patient/$everything{}",
            random.pick(&["?_type=Observation&_count=7", "?_type=Condition,Patient"])
        )),
        4 => {
            let by = random.pick(&["category=laboratory", "code=1-1,7-7", "code=1-1&status=final", "code:not=1-1"]);
            get(format!("Observation/$lastn?patient={}&{by}&max={}", patient(random), 1 + random.below(2)))
        }
        5 => get(format!(
            "DocumentReference/$docref?patient={}{}",
            patient(random),
            random.pick(&["", "&start=2022-01-01", "&type=11488-4"])
        )),
        6 | 7 => matched(random, lives),
        8 => member(random, lives),
        9 => get(format!("{}/$document", of_kind(random, lives, "Composition").address())),
        10 => {
            let levels =
                ["$meta".to_owned(), "Observation/$meta".to_owned(), format!("{}/$meta", random.pick(lives).address())];
            get(random.pick(&levels).clone())
        }
        11 | 12 => graphql(random, lives),
        13 => {
            let asked = requests::draw(random);
            get(format!("{}/$explain?{}", asked.kind, asked.query))
        }
        14 => get(format!("{}/$validate{}", random.pick(lives).address(), random.pick(&["", "?mode=delete"]))),
        _ => send("POST", "$convert".to_owned(), &random.pick(lives).versions[0]),
    }
}

/// Somebody like a patient who is there, as far as is known of them.
fn matched(random: &mut Random, lives: &[Life]) -> Request {
    let mut known = of_kind(random, lives, "Patient").versions[0].clone();
    for member in ["identifier", "telecom", "birthDate"] {
        if random.chance(40) {
            known.as_object_mut().expect("an object").remove(member);
        }
    }
    let options = ["", "?count=1", "?count=3", "?onlyCertainMatches=true"];
    send("POST", format!("Patient/$match{}", random.pick(&options)), &parameters(&[("resource", &known)]))
}

fn member(random: &mut Random, lives: &[Life]) -> Request {
    let coverage = &of_kind(random, lives, "Coverage").versions[0];
    let of = coverage["beneficiary"]["reference"].as_str().unwrap_or_default();
    let patient = lives.iter().find(|life| life.address() == of && random.chance(90));
    let patient = patient.unwrap_or_else(|| of_kind(random, lives, "Patient"));
    let sent = [("MemberPatient", patient.versions.last().expect("a version")), ("CoverageToMatch", coverage)];
    send("POST", "Patient/$member-match".to_owned(), &parameters(&sent))
}

fn graphql(random: &mut Random, lives: &[Life]) -> Request {
    let inner = "id ObservationList(_reference: patient, _sort: \"_id\") { id status performer { resource(optional: true) \
                 { ... on Practitioner { id name { family } } } } } \
                 AppointmentList(_reference: patient, _sort: \"_id\") { id reasonCode { coding { code } } } \
                 identifier { value } generalPractitioner { resource(optional: true) { ... on Practitioner { id } } }";
    let (path, query) = match random.below(4) {
        0 => (format!("Patient/{}/$graphql", patient(random)), format!("{{ {inner} }}")),
        1 => ("$graphql".to_owned(), format!("{{ PatientList(_sort: \"_id\") {{ {inner} }} }}")),
        2 => {
            let life = random.pick(lives);
            ("$graphql".to_owned(), format!("{{ {}(id: \"{}\") {{ id meta {{ versionId }} }} }}", life.kind, life.id))
        }
        _ => {
            let query = "{ ObservationConnection(_sort: \"_id\", patient: \"patient-1\", _count: 2) { count edges { resource \
                         { id subject { resource(optional: true) { ... on Patient { id name { family } } } } \
                         encounter { resource(optional: true) { ... on Encounter { id status } } } } } } }";
            ("$graphql".to_owned(), query.to_owned())
        }
    };
    send("POST", path, &json!({"query": query})).with("accept", "application/json".to_owned())
}

/// A condition that some resources of the type may satisfy.
fn condition(random: &mut Random, kind: &str) -> String {
    match kind {
        "Observation" => format!("patient={}&code={}", patient(random), random.pick(&["1-1", "7-7"])),
        "Patient" => format!("identifier=http://hl7.org/fhir/sid/us-ssn|999-00-000{}", random.below(PATIENTS)),
        _ => format!("_id={}", id(kind, random.below(6))),
    }
}

/// A new content; a Patient brings a number of its own, as those the server gives differ between two servers.
fn content(random: &mut Random, kind: &str, n: usize) -> Value {
    let mut made = world::resource(random, kind, n);
    if kind == "Patient" {
        made["identifier"][0]["value"] = json!(format!("new-{}", random.below(1_000_000)));
    }
    made
}

fn without_id(mut resource: Value) -> Value {
    resource.as_object_mut().expect("an object").remove("id");
    resource
}

fn writing(random: &mut Random, lives: &[Life]) -> Request {
    let kind = *random.pick(&["Observation", "Observation", "Patient", "Condition", "Coverage", "DocumentReference"]);
    let life = of_kind(random, lives, kind);
    let mut patch = json!([{"op": "add", "path": "/language", "value": "de"}]);
    if random.chance(50) {
        let test = json!({"op": "test", "path": "/id", "value": life.id});
        patch.as_array_mut().expect("operations").insert(0, test);
    }
    let n = random.below(4);
    match random.below(13) {
        0 | 1 => {
            let condition = condition(random, kind);
            send("PUT", format!("{kind}?{condition}"), &without_id(content(random, kind, n)))
        }
        2 | 3 => {
            let condition = condition(random, kind);
            send("POST", kind.to_owned(), &without_id(content(random, kind, n))).with("if-none-exist", condition)
        }
        4 => Request { method: "DELETE", ..get(format!("{kind}?{}", condition(random, kind))) },
        5 => send("PATCH", format!("{kind}?{}", condition(random, kind)), &patch),
        6 => {
            let content = content(random, kind, place(life));
            tagged(random, send("PUT", life.address(), &content))
        }
        7 => tagged(random, send("PATCH", life.address(), &patch)),
        8 => tagged(random, Request { method: "DELETE", ..get(life.address()) }),
        9 => {
            let meta = json!({"resourceType": "Parameters", "parameter": [
                {"name": "meta", "valueMeta": {"tag": [{"system": "urn:tags", "code": "new"}]}},
            ]});
            send("POST", format!("{}/$meta-{}", life.address(), random.pick(&["add", "delete"])), &meta)
        }
        10 => transaction(random, kind, n),
        11 => send("POST", format!("{kind}/$validate?mode=update"), &content(random, kind, place(life))),
        _ => send("POST", kind.to_owned(), &without_id(content(random, kind, n))),
    }
}

/// The number in the id of a life.
fn place(life: &Life) -> usize {
    life.id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number at the end of an id")
}

fn tagged(random: &mut Random, request: Request) -> Request {
    match random.below(3) {
        0 => request.with("if-match", format!("W/\"{}\"", 1 + random.below(2))),
        _ => request,
    }
}

/// A conditional reference, a conditional create and a search in one transaction.
fn transaction(random: &mut Random, kind: &str, n: usize) -> Request {
    let mut observation = without_id(content(random, "Observation", n));
    observation["subject"]["reference"] = json!(format!("Patient?{}", condition(random, "Patient")));
    let condition = condition(random, kind);
    let body = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": observation, "request": {"method": "POST", "url": "Observation"}},
        {
            "resource": without_id(content(random, kind, n)),
            "request": {"method": "POST", "url": kind, "ifNoneExist": condition},
        },
    ]});
    send("POST", String::new(), &body)
}
