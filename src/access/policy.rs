//! The access policy for people: `mappings/policy/roles.toml` as a checked table of role x type x verb. A line that cannot be
//! read, or that says something twice, is an error at the start. Must not know callers or requests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::grant::Sections;
use super::person::Role;
use super::scope::{Context, LETTERS, Scope, Scopes};
use crate::fhir::{TypeId, definitions};
use crate::mapping::{self, Section};

const FILE: (&str, &str) = ("mappings/policy/roles.toml", include_str!("../../mappings/policy/roles.toml"));

/// Whose rows a role reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The person's own record.
    Own,
    /// Patients that the person answers for, as their RelatedPerson says.
    Wards,
    /// Patients in the person's care.
    Assigned,
    /// The patient that the app was launched for, whoever it is.
    Launch,
    /// Rows that belong to no patient.
    Unowned,
    /// Every row.
    All,
}

/// What a role may do by one verb on one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub whose: Vec<Whose>,
    pub sections: Sections,
}

/// When a provider's encounters and appointments make a patient an assigned one.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Relations {
    pub encounter_statuses: Vec<String>,
    pub encounter_days_after: u16,
    pub appointment_statuses: Vec<String>,
    pub appointment_days_before: u16,
    pub appointment_days_after: u16,
}

/// The policy in force.
pub struct Policy {
    cells: HashMap<(Role, TypeId), [Option<Cell>; 5]>,
    reaches: HashSet<(Role, Whose)>,
    /// Purpose of use (v3 ActReason) of each role where the token says none.
    purposes: HashMap<Role, String>,
    pub relations: Relations,
    pub emergency: Emergency,
}

/// Who may break the glass, why, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    pub roles: Vec<Role>,
    /// Codes of v3 ActReason.
    pub purposes: Vec<String>,
    pub minutes: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: BTreeMap<String, Vec<String>>,
    relations: Relations,
    emergency: Emergency,
    roles: BTreeMap<String, RoleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleTable {
    purpose: String,
    sections: Vec<Section>,
    rules: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    types: Vec<String>,
    verbs: String,
    rows: Vec<Whose>,
    sections: Option<Vec<Section>>,
}

/// The policy; read once. [`check`] says at the start whether it can be.
pub fn policy() -> &'static Policy {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        // Embedded, and a test reads it: a fault here cannot reach a released server.
        read(FILE.0, FILE.1).unwrap_or_else(|fault| panic!("the embedded policy is faulty: {fault}"))
    });
    &POLICY
}

impl Policy {
    /// What the role may do by this verb on this type; None: nothing.
    pub fn cell(&self, role: Role, kind: TypeId, letter: char) -> Option<&Cell> {
        let verb = LETTERS.iter().position(|known| *known == letter)?;
        self.cells.get(&(role, kind))?.get(verb)?.as_ref()
    }

    /// Whether any cell of the role is about these rows.
    pub fn reaches(&self, role: Role, whose: Whose) -> bool {
        self.reaches.contains(&(role, whose))
    }

    pub fn purpose(&self, role: Role) -> &str {
        self.purposes.get(&role).map_or("", String::as_str)
    }
}

/// What of these scopes a person of this role can be granted at all: types and verbs that the policy gives the role
/// nothing of are left out, and so is what only a backend service may have. Whose rows they open is decided later.
pub fn offered(role: Role, scopes: &Scopes) -> Scopes {
    let mut possible = Vec::new();
    for asked in scopes.resources().filter(|asked| asked.context != Context::System) {
        let may = |letter: char| match asked.kind {
            Some(kind) => policy().cell(role, kind, letter).is_some(),
            None => definitions().types().iter().any(|kind| policy().cell(role, *kind, letter).is_some()),
        };
        let letters: String = LETTERS.into_iter().filter(|letter| asked.letters.has(*letter) && may(*letter)).collect();
        let name = asked.kind.map_or("*", |kind| definitions().type_name(kind));
        let context = if asked.context == Context::Patient { "patient" } else { "user" };
        possible.extend(Scope::parse(&format!("{context}/{name}.{letters}")).ok());
    }
    possible.extend(scopes.0.iter().filter(|scope| scope.resource().is_none()).cloned());
    scopes.narrowed_by(&Scopes(possible))
}

/// Whether resources of a type can belong to a patient at all.
pub fn owned(kind: TypeId) -> bool {
    let mapping = mapping::mapping(kind);
    definitions().type_name(kind) == "Patient" || !mapping.compartment.is_empty() || mapping.patient.is_some()
}

fn read(name: &str, text: &str) -> Result<Policy, String> {
    let file: File = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    let mut policy = Policy {
        cells: HashMap::new(),
        reaches: HashSet::new(),
        purposes: HashMap::new(),
        relations: file.relations,
        emergency: file.emergency,
    };
    if !(1..=60).contains(&policy.emergency.minutes) {
        return Err(format!("{name}: emergency.minutes: 1 to 60 are expected"));
    }
    for (group, types) in &file.groups {
        let unknown = types.iter().find(|kind| definitions().type_id(kind).is_none());
        if let Some(kind) = unknown {
            return Err(format!("{name}: groups.{group}: no type {kind}"));
        }
    }
    for (role_name, table) in file.roles {
        let fault = |text: String| format!("{name}: roles.{role_name}: {text}");
        let role = Role::ALL.into_iter().find(|role| role.name() == role_name);
        let role = role.ok_or_else(|| fault("there is no such role".to_owned()))?;
        for line in &table.rules {
            let types = types(line, &file.groups).map_err(fault)?;
            let sections = Sections::of(line.sections.as_ref().unwrap_or(&table.sections));
            rows(role, line, &types).map_err(fault)?;
            policy.reaches.extend(line.rows.iter().map(|whose| (role, *whose)));
            for kind in types {
                let cells = policy.cells.entry((role, kind)).or_default();
                for verb in verbs(line).map_err(fault)? {
                    if cells[verb].is_some() {
                        let twice = format!("{} {} is ruled twice", definitions().type_name(kind), LETTERS[verb]);
                        return Err(fault(twice));
                    }
                    cells[verb] = Some(Cell { whose: line.rows.clone(), sections });
                }
            }
        }
        policy.purposes.insert(role, table.purpose);
    }
    match Role::ALL.into_iter().find(|role| !policy.purposes.contains_key(role)) {
        Some(role) => Err(format!("{name}: roles.{} is missing", role.name())),
        None => Ok(policy),
    }
}

fn types(line: &Line, groups: &BTreeMap<String, Vec<String>>) -> Result<Vec<TypeId>, String> {
    let mut types = Vec::new();
    for name in &line.types {
        match name.strip_prefix('@') {
            _ if name == "*" => types.extend(definitions().types()),
            Some(group) => {
                let members = groups.get(group).ok_or_else(|| format!("there is no group {group}"))?;
                types.extend(members.iter().filter_map(|kind| definitions().type_id(kind)));
            }
            None => types.push(definitions().type_id(name).ok_or_else(|| format!("no type {name}"))?),
        }
    }
    Ok(types)
}

/// The places of a line's verbs among the letters.
fn verbs(line: &Line) -> Result<Vec<usize>, String> {
    let place = |letter: char| LETTERS.iter().position(|known| *known == letter);
    let verbs: Option<Vec<usize>> = line.verbs.chars().map(place).collect();
    let verbs = verbs.filter(|verbs| !verbs.is_empty() && verbs.is_sorted_by(|a, b| a < b));
    verbs.ok_or_else(|| format!("verbs {:?}: letters of cruds in that order are expected", line.verbs))
}

/// Checks that the rows of a line mean something, and that nobody outside the provider is given everyone's.
fn rows(role: Role, line: &Line, types: &[TypeId]) -> Result<(), String> {
    if line.rows.is_empty() || (line.rows.contains(&Whose::All) && line.rows.len() > 1) {
        return Err(format!("types {:?}: rows must name whose, and `all` stands alone", line.types));
    }
    let everyone = |kind: &&TypeId| !role.is_staff() && line.rows.contains(&Whose::All) && owned(**kind);
    match types.iter().find(everyone) {
        Some(kind) => {
            let name = definitions().type_name(*kind);
            Err(format!("{name}: it belongs to patients, so this role may not be given all of it"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// Set to write the golden file instead of comparing it.
    const WRITE: &str = "PHIAL_WRITE_GOLDEN";

    fn cell(cell: &Cell) -> String {
        let whose: Vec<String> = cell.whose.iter().map(|whose| format!("{whose:?}").to_lowercase()).collect();
        let closed = Section::ALL.into_iter().filter(|section| !cell.sections.allows(*section));
        let closed: Vec<&str> = closed.map(Section::name).collect();
        match closed.is_empty() {
            true => whose.join("+"),
            false => format!("{} without {}", whose.join("+"), closed.join(", ")),
        }
    }

    /// Role, type, then verbs of the same meaning together.
    fn golden() -> String {
        let mut out = String::from(
            "# Role x type x verb, made from mappings/policy/roles.toml. Types that a role has nothing of are left out.\n",
        );
        for role in Role::ALL {
            for kind in definitions().types() {
                let mut by_meaning: Vec<(String, String)> = Vec::new();
                for letter in LETTERS {
                    let Some(found) = policy().cell(role, *kind, letter) else { continue };
                    let meaning = cell(found);
                    match by_meaning.iter_mut().find(|(_, known)| *known == meaning) {
                        Some((letters, _)) => letters.push(letter),
                        None => by_meaning.push((letter.to_string(), meaning)),
                    }
                }
                if !by_meaning.is_empty() {
                    let text: Vec<String> = by_meaning.iter().map(|(verbs, of)| format!("{verbs} {of}")).collect();
                    let _ = writeln!(out, "{} {}: {}", role.name(), definitions().type_name(*kind), text.join("; "));
                }
            }
        }
        out
    }

    #[test]
    fn every_change_of_the_policy_shows() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/policy/golden.txt");
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, golden()).expect("the golden file is written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let made = golden();
        for (kept, made) in kept.lines().zip(made.lines()) {
            assert_eq!(kept, made, "the policy changed: look at it, then set {WRITE}=1");
        }
        assert!(kept == made, "the policy changed: look at it, then set {WRITE}=1");
    }

    #[test]
    fn a_role_is_offered_what_it_may_have_at_all() {
        for (role, asked, offer) in [
            (Role::Patient, "patient/*.cruds openid launch/patient", "patient/*.crs openid launch/patient"),
            (Role::Patient, "patient/Observation.rs?category=a", "patient/Observation.rs?category=a"),
            (Role::Patient, "patient/Observation.cud", ""),
            (Role::Provider, "user/Observation.* system/Patient.rs", "user/Observation.*"),
            (Role::Receptionist, "user/Patient.rs user/Observation.rs", "user/Patient.rs"),
            (Role::Staff, "user/Patient.read user/Patient.write", "user/Patient.read"),
        ] {
            assert_eq!(offered(role, &Scopes::parse(asked).unwrap()).to_string(), offer, "{asked}");
        }
    }

    #[test]
    fn what_may_never_be_is_not() {
        let kind = |name: &str| definitions().type_id(name).expect("a type");
        let may = |role, name: &str, letter| policy().cell(role, kind(name), letter);
        for name in ["Observation", "Condition", "DocumentReference", "Encounter", "MedicationRequest", "Binary"] {
            for letter in LETTERS {
                assert!(may(Role::Receptionist, name, letter).is_none(), "{name} {letter}");
                assert!(may(Role::Staff, name, letter).is_none(), "{name} {letter}");
            }
        }
        for role in [Role::Receptionist, Role::Staff] {
            let clinical =
                |name: &str| may(role, name, 'r').is_some_and(|cell| cell.sections.allows(Section::Clinical));
            assert!(!clinical("Patient") && !clinical("Appointment") && !clinical("Coverage"));
        }
        for role in [Role::Patient, Role::Guardian] {
            assert!(may(role, "Patient", 'u').is_none() && may(role, "CareTeam", 'c').is_none());
            assert!(may(role, "RelatedPerson", 'c').is_none() && may(role, "Consent", 'u').is_none());
        }
    }

    #[test]
    fn a_faulty_policy_is_refused_with_the_place() {
        let with = |from: &str, to: &str| {
            assert!(FILE.1.contains(from), "{from}");
            read("p", &FILE.1.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("{to} was read"))
        };
        for (from, to, says) in [
            ("[roles.STAFF]", "[roles.JANITOR]", "roles.JANITOR: there is no such role"),
            ("\"Practitioner\",", "\"Practicioner\",", "groups.directory: no type Practicioner"),
            ("\"@people\", ", "\"@peopel\", ", "no group peopel"),
            ("verbs = \"rus\"", "verbs = \"sur\"", "letters of cruds"),
            ("rows = [\"own\"]", "rows = [\"mine\"]", "mine"),
            ("rows = [\"own\"]", "rows = [\"all\"]", "belongs to patients"),
            ("rows = [\"own\"]", "rows = []", "must name whose"),
            ("rows = [\"all\"] },", "rows = [\"all\", \"own\"] },", "stands alone"),
            ("{ types = [\"Group\"]", "{ types = [\"Patient\"]", "Patient r is ruled twice"),
            ("sections = [\"identity\", \"contact\"]", "sections = [\"identity\", \"everything\"]", "everything"),
            ("purpose = \"TREAT\"", "porpose = \"TREAT\"", "porpose"),
        ] {
            let fault = with(from, to);
            assert!(fault.contains(says), "{to}: {fault}");
        }
        let cut = FILE.1.find("[roles.GUARDIAN]").expect("the last role");
        assert!(read("p", &FILE.1[..cut]).err().expect("refused").contains("GUARDIAN is missing"));
    }
}
