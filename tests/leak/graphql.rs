//! Random GraphQL queries: what a narrowed token is answered is what a server answers that holds the permitted
//! resources only. Reading and searching are granted alike here, as both are used in one query.

use serde_json::json;

use super::population::{self, Life};
use super::scopes::Scopes;
use super::{Side, text};
use crate::harness::{Data, Engine};
use crate::oracle::random::Random;

const QUERIES: usize = 60;

/// Types that refer to one, and by which parameter.
type Inward = &'static [(&'static str, &'static str)];

/// Type, references out of it as selections, and the types that refer to it with their parameters.
const KINDS: [(&str, &[&str], Inward); 6] = [
    (
        "Organization",
        &[],
        &[("Patient", "organization"), ("Encounter", "service_provider"), ("Observation", "performer")],
    ),
    (
        "Practitioner",
        &[],
        &[("Patient", "general_practitioner"), ("Observation", "performer"), ("Condition", "asserter")],
    ),
    (
        "Patient",
        &["managingOrganization", "generalPractitioner"],
        &[("Observation", "patient"), ("Condition", "subject"), ("Encounter", "patient")],
    ),
    (
        "Encounter",
        &["subject", "partOf", "serviceProvider"],
        &[("Observation", "encounter"), ("Condition", "encounter"), ("Encounter", "part_of")],
    ),
    ("Observation", &["subject", "encounter", "performer", "hasMember"], &[("Observation", "has_member")]),
    ("Condition", &["subject", "encounter", "asserter"], &[]),
];

const ARGUMENTS: [(&str, &[&str]); 6] = [
    ("Organization", &["name: \"North\"", "active: true"]),
    ("Practitioner", &["active: true", "family: \"Alder\""]),
    (
        "Patient",
        &[
            "gender: female",
            "family: [\"Alder\", \"Cedar\"]",
            "birthdate: \"ge1980\"",
            "organization: \"Organization/o0\"",
        ],
    ),
    ("Encounter", &["status: finished", "class: AMB"]),
    ("Observation", &["status: final", "category: laboratory", "patient: \"p1\"", "code: \"8480-6\""]),
    ("Condition", &["clinical_status: active", "category: \"problem-list-item\""]),
];

/// How much there was to see.
#[derive(Default, Debug)]
pub struct Seen {
    answered: usize,
    withheld: usize,
    refused: usize,
    erring: usize,
}

impl Seen {
    pub fn is_telling(&self) -> bool {
        self.answered > 0 && self.withheld > 0 && self.refused > 0 && self.erring > 0
    }
}

/// Arguments for searches of a type.
fn arguments(kind: &str) -> &'static [&'static str] {
    ARGUMENTS.iter().find(|(own, _)| *own == kind).map(|(_, all)| *all).expect("a type of the population")
}

/// What is selected of a resource.
fn selection(random: &mut Random, kind: &'static str, depth: usize) -> String {
    let mut out = "resourceType id ".to_owned();
    let (_, outward, inward) = KINDS.iter().find(|(own, ..)| *own == kind).expect("a type of the population");
    if depth == 0 {
        return out;
    }
    for name in outward.iter() {
        if random.chance(50) {
            let optional = if random.chance(70) { "(optional: true)" } else { "" };
            let fragments: String = KINDS
                .iter()
                .map(|(kind, ..)| *kind)
                .filter(|kind| target(name, kind))
                .map(|kind| format!("... on {kind} {{ {} }} ", selection(random, kind, depth - 1)))
                .collect();
            out += &format!("{name} {{ reference resource{optional} {{ resourceType {fragments} }} }} ");
        }
    }
    for (kind, by) in inward.iter() {
        if random.chance(35) {
            out += &search(random, kind, &format!("_reference: {by} "), depth - 1);
        }
    }
    out
}

fn target(name: &str, kind: &str) -> bool {
    match name {
        "managingOrganization" | "serviceProvider" => kind == "Organization",
        "generalPractitioner" | "performer" => ["Practitioner", "Organization"].contains(&kind),
        "subject" => kind == "Patient",
        "encounter" | "partOf" => kind == "Encounter",
        "hasMember" => kind == "Observation",
        _ => kind == "Practitioner",
    }
}

fn search(random: &mut Random, kind: &'static str, first: &str, depth: usize) -> String {
    let mut given = format!("{first}_sort: \"_id\" ");
    if random.chance(50) {
        let argument: &&str = random.pick(arguments(kind));
        given += argument;
    }
    if random.chance(30) {
        given += &format!(" _count: {}", 1 + random.below(3));
    }
    if random.chance(15) {
        given += &format!(" _offset: {}", random.below(3));
    }
    let selected = selection(random, kind, depth);
    match random.chance(30) {
        true => {
            format!("{kind}Connection({given}) {{ count offset pagesize edges {{ resource {{ {selected} }} }} }} ")
        }
        false => format!("{kind}List({given}) {{ {selected} }} "),
    }
}

/// Where a query is asked, and the query.
fn draw(random: &mut Random, lives: &[Life]) -> (String, String) {
    let kind = random.pick(&KINDS).0;
    let life = random.pick(lives);
    let of_life = KINDS.iter().find(|(own, ..)| *own == life.kind).expect("a type of the population").0;
    match random.below(4) {
        0 => (format!("{}/$graphql", life.address()), format!("{{ {} }}", selection(random, of_life, 2))),
        1 => {
            let selected = selection(random, of_life, 2);
            ("$graphql".to_owned(), format!("{{ {of_life}(id: \"{}\") {{ {selected} }} }}", life.id))
        }
        _ => ("$graphql".to_owned(), format!("{{ {} }}", search(random, kind, "", 2))),
    }
}

pub fn compare(data: &Data, whole: &Side, port: u16, lives: &[Life], random: &mut Random, seen: &mut Seen, seed: u64) {
    let scopes = Scopes::draw_alike(random);
    let narrow = whole.with(data.token_for(&scopes.text, port));
    let visible = |life: &&Life| life.current().is_some_and(|now| scopes.let_see(now, 's'));
    let permitted: Vec<&Life> = lives.iter().filter(visible).collect();
    let own_data = Data::new(Engine::Sqlite);
    let server = own_data.serve();
    let own = Side::new(&server.client, server.port());
    own.load(&permitted);
    let kinds = population::KINDS.into_iter().filter(|kind| scopes.grant(kind, 's'));
    let wide: Vec<String> = kinds.map(|kind| format!("system/{kind}.rs")).collect();
    let own = own.with(own_data.token_for(&wide.join(" "), server.port()));
    for _ in 0..QUERIES {
        let (path, query) = draw(random, lives);
        let context = format!("PHIAL_LEAK_SEED={seed} scopes: {}\n{path}\n{query}", scopes.text);
        let ask = |side: &Side| {
            let reply = side.client.post_json(&format!("/fhir/{path}"), &json!({"query": query})).expect("an answer");
            (reply.status, side.plain(&reply))
        };
        let (here, there) = (ask(&narrow), ask(&own));
        assert_eq!(here, there, "{context}");
        for id in ids(&here.1) {
            assert!(permitted.iter().any(|life| life.address() == id), "{context}: shows {id}");
        }
        let all = ask(whole);
        seen.withheld += usize::from(all != here);
        seen.refused += usize::from(here.0 == 403);
        seen.answered += usize::from(here.0 == 200);
        seen.erring += usize::from(here.0 == 200 && here.1.get("errors").is_some());
    }
}

/// Every resource that an answer shows.
fn ids(json: &serde_json::Value) -> Vec<String> {
    match json {
        serde_json::Value::Object(members) => {
            let own = members.get("id").zip(members.get("resourceType"));
            let own = own.map(|(id, kind)| format!("{}/{}", text(kind), text(id)));
            own.into_iter().chain(members.values().flat_map(ids)).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(ids).collect(),
        _ => Vec::new(),
    }
}
