//! What somebody may see, decided from the JSON alone, row by row: a second opinion that shares nothing with the
//! program. The table of roles is written out here once more, for the types of the population.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::random::Random;
use super::world::{KINDS, Life, id};
use crate::access::{Caller, Person, Role};

const NOW: &str = "2026-01-31";

/// Whose rows of a type a role sees.
fn whose(role: Role, kind: &str) -> &'static [&'static str] {
    let directory = ["Organization", "Practitioner", "PractitionerRole"].contains(&kind);
    match role {
        Role::Admin => &["all"],
        _ if directory => &["all"],
        Role::Receptionist => match kind {
            "Patient" | "RelatedPerson" | "Appointment" | "Coverage" => &["all"],
            _ => &[],
        },
        Role::Staff => match kind {
            "Patient" | "Appointment" => &["all"],
            _ => &[],
        },
        Role::Provider | Role::Nurse if kind == "Device" => &["assigned", "unowned"],
        Role::Provider | Role::Nurse => &["assigned"],
        Role::Patient if kind == "Device" => &["own", "unowned"],
        Role::Patient => &["own"],
        Role::Guardian if kind == "Device" => &["wards", "unowned"],
        Role::Guardian => &["wards"],
    }
}

fn purpose(role: Role) -> &'static str {
    match role {
        Role::Provider | Role::Nurse => "TREAT",
        Role::Patient => "PATRQT",
        Role::Guardian => "FAMRQT",
        _ => "HOPERAT",
    }
}

/// One scope: context, type (None: all), a filter in words and as a predicate.
struct Rule {
    launch: bool,
    kind: Option<&'static str>,
    filter: Option<fn(&Value) -> bool>,
}

/// Type, search argument, and what it lets through.
type Filter = (&'static str, &'static str, fn(&Value) -> bool);

const FILTERS: [Filter; 6] = [
    ("Observation", "category=laboratory", |r| r["category"][0]["coding"][0]["code"] == "laboratory"),
    ("Observation", "code=http://loinc.org|1-1", |r| r["code"]["coding"][0]["code"] == "1-1"),
    ("Observation", "status:not=final", |r| r["status"] != "final"),
    ("Patient", "gender=female", |r| r["gender"] == "female"),
    ("Encounter", "class=AMB", |r| r["class"]["code"] == "AMB"),
    ("Appointment", "status=booked", |r| r["status"] == "booked"),
];

/// Somebody with a token, and what is known of them in this population.
pub struct Somebody {
    pub person: Person,
    /// A backend service: its scopes alone decide, whatever role and person say.
    pub backend: bool,
    pub scopes: String,
    rules: Vec<Rule>,
    own: BTreeSet<String>,
    wards: BTreeSet<String>,
    assigned: BTreeSet<String>,
    /// Relative names.
    names: BTreeSet<String>,
    /// Consents in force.
    consents: Vec<Value>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// Dates of the population compare as texts, cut to the precision of the other.
fn holds(period: &Value) -> bool {
    let (start, end) = (text(period, "/start"), text(period, "/end"));
    (start.is_empty() || start <= NOW) && (end.is_empty() || end >= NOW)
}

/// The patients a resource belongs to.
pub fn patients(resource: &Value) -> BTreeSet<String> {
    let direct = ["/subject/reference", "/patient/reference", "/beneficiary/reference"];
    let direct = direct.iter().map(|pointer| text(resource, pointer));
    let actors = items(resource, "participant").map(|participant| text(participant, "/actor/reference"));
    let mut found: BTreeSet<String> =
        direct.chain(actors).filter_map(|name| name.strip_prefix("Patient/")).map(str::to_owned).collect();
    if resource["resourceType"] == "Patient" {
        found = BTreeSet::from([text(resource, "/id").to_owned()]);
    }
    found
}

impl Somebody {
    pub fn draw(random: &mut Random, lives: &[Life]) -> Somebody {
        let backend = random.chance(20);
        let drawn = *random.pick(&[
            Role::Admin,
            Role::Provider,
            Role::Provider,
            Role::Provider,
            Role::Nurse,
            Role::Receptionist,
            Role::Staff,
            Role::Patient,
            Role::Guardian,
        ]);
        let role = if backend { Role::Admin } else { drawn };
        let user = match role {
            Role::Patient => format!("Patient/{}", id("Patient", random.below(6))),
            Role::Guardian => format!("RelatedPerson/{}", id("RelatedPerson", random.below(4))),
            _ => format!("Practitioner/{}", id("Practitioner", random.below(4))),
        };
        let patient = (!backend && random.chance(60)).then(|| id("Patient", random.below(6)));
        let emergency = (role == Role::Provider && patient.is_some() && random.chance(25)).then(|| "ETREAT".to_owned());
        let authorization = "test".to_owned();
        let person = Person { role, fhir_user: Some(user), patient, encounter: None, authorization, emergency };
        let mut somebody = Somebody {
            person,
            backend,
            scopes: String::new(),
            rules: Vec::new(),
            own: BTreeSet::new(),
            wards: BTreeSet::new(),
            assigned: BTreeSet::new(),
            names: BTreeSet::new(),
            consents: Vec::new(),
        };
        somebody.draw_scopes(random);
        let current: Vec<&Value> = lives.iter().filter_map(Life::current).collect();
        somebody.relate(&current);
        somebody
    }

    fn draw_scopes(&mut self, random: &mut Random) {
        let mut words = Vec::new();
        let launch = self.person.patient.is_some() && random.chance(60);
        let context = match (self.backend, launch) {
            (true, _) => "system",
            (_, true) => "patient",
            (_, false) => "user",
        };
        if random.chance(if self.backend { 10 } else { 55 }) {
            words.push(format!("{context}/*.rs"));
            self.rules.push(Rule { launch, kind: None, filter: None });
        } else {
            for kind in KINDS {
                let own: Vec<_> = FILTERS.iter().filter(|(of, ..)| *of == kind).collect();
                match random.below(4) {
                    0 => continue,
                    1 if !own.is_empty() => {
                        let (_, filter, lets) = **random.pick(&own);
                        words.push(format!("{context}/{kind}.rs?{filter}"));
                        self.rules.push(Rule { launch, kind: Some(kind), filter: Some(lets) });
                    }
                    _ => {
                        words.push(format!("{context}/{kind}.rs"));
                        self.rules.push(Rule { launch, kind: Some(kind), filter: None });
                    }
                }
            }
        }
        self.scopes = words.join(" ");
    }

    /// As the server sees them who hold these scopes.
    pub fn caller(&self, scopes: &str, base: &str) -> Caller {
        match self.backend {
            true => Caller::stand_in("service", scopes, base),
            false => Caller::stand_in_person("somebody", self.person.clone(), scopes, base),
        }
    }

    /// Finds the relations in the population.
    fn relate(&mut self, current: &[&Value]) {
        if self.backend {
            return;
        }
        let user = self.person.fhir_user.clone().unwrap_or_default();
        let (_, id) = user.split_once('/').expect("a relative name");
        let of = |kind: &'static str| current.iter().copied().filter(move |resource| resource["resourceType"] == kind);
        self.names.insert(user.clone());
        let stands = |resource: &Value| resource["active"] != false && holds(&resource["period"]);
        match self.person.role {
            Role::Patient => {
                self.own.insert(id.to_owned());
            }
            Role::Guardian => {
                let mine = of("RelatedPerson").filter(|resource| text(resource, "/id") == id && stands(resource));
                self.wards = mine.flat_map(patients).collect();
            }
            Role::Provider | Role::Nurse => {
                for role in of("PractitionerRole") {
                    if text(role, "/practitioner/reference") == user && stands(role) {
                        self.names.insert(format!("PractitionerRole/{}", text(role, "/id")));
                        self.names.insert(text(role, "/organization/reference").to_owned());
                    }
                }
                let mut teams = Vec::new();
                for resource in current {
                    if self.cares(resource) {
                        self.assigned.extend(patients(resource));
                        if resource["resourceType"] == "CareTeam" {
                            teams.push(format!("CareTeam/{}", text(resource, "/id")));
                        }
                    }
                }
                self.names.extend(teams);
            }
            _ => {}
        }
        let in_force = |consent: &&Value| {
            consent["status"] == "active" && text(consent, "/scope/coding/0/code") == "patient-privacy"
        };
        // Of a row of several patients all are asked, whoever of them is reached.
        self.consents = of("Consent").filter(in_force).cloned().collect();
    }

    /// Whether a resource makes its patients assigned ones.
    fn cares(&self, resource: &Value) -> bool {
        let me = |name: &str| self.names.contains(name) && name.starts_with("Practitioner");
        let (start, end) = (text(resource, "/start"), text(resource, "/period/end"));
        match text(resource, "/resourceType") {
            "Patient" => me(text(resource, "/generalPractitioner/0/reference")),
            "CareTeam" => {
                let mut members = items(resource, "participant");
                let takes_part = |one: &Value| me(text(one, "/member/reference")) && holds(&one["period"]);
                resource["status"] == "active" && holds(&resource["period"]) && members.any(takes_part)
            }
            "Encounter" => {
                let recent = end.is_empty() || end >= "2026-01-01";
                let counts = ["in-progress", "finished"].contains(&text(resource, "/status"));
                counts && recent && me(text(resource, "/participant/0/individual/reference"))
            }
            "Appointment" => {
                let near = ("2026-01-01".."2026-02-15").contains(&start);
                let mut actors = items(resource, "participant");
                let counts = ["booked", "fulfilled"].contains(&text(resource, "/status"));
                counts && near && actors.any(|one| me(text(one, "/actor/reference")))
            }
            _ => false,
        }
    }

    /// Whether role and scopes open the type at all.
    pub fn grant(&self, kind: &str) -> bool {
        !whose(self.person.role, kind).is_empty() && self.rules.iter().any(|rule| rule.kind.is_none_or(|of| of == kind))
    }

    /// Whether this content may be seen.
    pub fn sees(&self, resource: &Value) -> bool {
        let kind = text(resource, "/resourceType");
        let in_scope = |rule: &Rule| {
            rule.kind.is_none_or(|of| of == kind)
                && rule.filter.is_none_or(|lets| lets(resource))
                && self.reaches(resource, rule.launch)
        };
        self.rules.iter().any(in_scope) && !self.consents.iter().any(|consent| self.denied(consent, resource))
    }

    fn reaches(&self, resource: &Value, launch: bool) -> bool {
        let (kind, of) = (text(resource, "/resourceType"), patients(resource));
        let emergency = self.person.emergency.is_some();
        let launched = |patient: &String| self.person.patient.as_ref() == Some(patient);
        let bound = |patient: &String| !(launch || emergency) || launched(patient);
        whose(self.person.role, kind).iter().any(|word| match *word {
            "all" if ["Organization", "Practitioner", "PractitionerRole"].contains(&kind) => true,
            "all" => (!launch && !emergency) || of.iter().any(launched),
            "unowned" => of.is_empty(),
            "own" => of.iter().any(|patient| self.own.contains(patient) && bound(patient)),
            "wards" => of.iter().any(|patient| self.wards.contains(patient) && bound(patient)),
            _ if emergency => of.iter().any(launched),
            _ => of.iter().any(|patient| self.assigned.contains(patient) && bound(patient)),
        })
    }

    fn denied(&self, consent: &Value, resource: &Value) -> bool {
        let about = patients(consent).intersection(&patients(resource)).next().is_some();
        if !about || self.person.emergency.is_some() || self.person.role == Role::Patient {
            return false;
        }
        let family = self.person.role == Role::Guardian;
        let root = &consent["provision"];
        let base = !family && text(consent, "/policyRule/coding/0/code") == "OPTOUT";
        if family && root.get("actor").is_none() {
            return base;
        }
        self.verdict(std::slice::from_ref(root), base, resource)
    }

    /// Whether exceptions to a base decision end in a denial of this row.
    fn verdict(&self, provisions: &[Value], base: bool, resource: &Value) -> bool {
        let fitting = provisions.iter().filter(|provision| self.fits(provision, resource));
        let verdicts: Vec<bool> = fitting
            .map(|provision| {
                let own = provision["type"] == "deny";
                self.verdict(provision["provision"].as_array().map_or(&[], Vec::as_slice), own, resource)
            })
            .collect();
        if verdicts.is_empty() { base } else { verdicts.contains(&true) }
    }

    fn fits(&self, provision: &Value, resource: &Value) -> bool {
        let denies = provision["type"] == "deny";
        let unjudged = provision.get("dataPeriod").is_some();
        let none_or = |name: &str, fits: &dyn Fn(&Value) -> bool| {
            provision.get(name).is_none() || items(provision, name).any(fits)
        };
        let actor = |actor: &Value| match text(actor, "/reference/reference") {
            "" => text(actor, "/role/coding/0/code") == self.person.role.name(),
            name => self.names.contains(name),
        };
        let label = |label: &Value| {
            let labels = resource.pointer("/meta/security").and_then(Value::as_array).into_iter().flatten();
            labels.into_iter().any(|own| own["code"] == label["code"])
        };
        let code = |code: &Value| {
            let same = text(resource, "/code/coding/0/code") == text(code, "/coding/0/code");
            same && text(resource, "/code/coding/0/system") == text(code, "/coding/0/system")
        };
        let address = format!("{}/{}", text(resource, "/resourceType"), text(resource, "/id"));
        (denies || !unjudged)
            && holds(&provision["period"])
            && none_or("actor", &actor)
            && none_or("purpose", &|of| of["code"] == purpose(self.person.role))
            && none_or("action", &|of| text(of, "/coding/0/code") == "access")
            && (unjudged || none_or("class", &|of| of["code"] == resource["resourceType"]))
            && none_or("code", &code)
            && none_or("securityLabel", &label)
            && (unjudged || none_or("data", &|of| text(of, "/reference/reference") == address))
    }

    /// What is left of a resource when the sections that are closed to the role are taken out.
    pub fn cut(&self, resource: &Value) -> Value {
        let mut resource = resource.clone();
        let kind = text(&resource, "/resourceType").to_owned();
        let desk = matches!(self.person.role, Role::Receptionist | Role::Staff);
        if let Some(members) = resource.as_object_mut().filter(|_| desk) {
            if kind == "Appointment" {
                members.remove("reasonCode");
            }
            if kind == "Patient" && self.person.role == Role::Staff {
                let open = |identifier: &&Value| identifier["system"] == "urn:other";
                let kept: Vec<Value> = items(&json!(members), "identifier").filter(open).cloned().collect();
                members.insert("identifier".to_owned(), json!(kept));
            }
        }
        resource
    }
}
