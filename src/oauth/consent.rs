//! What the person is offered on the consent page, and what their choice grants. Pure.

use crate::access::scope::ResourceScope;
use crate::access::{Scope, Scopes};
use crate::fhir::definitions;

/// One scope as the person sees it.
pub struct Item {
    /// Number by which the form names it.
    pub number: usize,
    /// The scope as asked for.
    pub scope: String,
    /// None: every type.
    pub kind: Option<&'static str>,
    pub may: Vec<&'static str>,
    /// `patient`, `user`.
    pub about: &'static str,
    pub filter: Option<String>,
    /// Narrower scopes that can be granted in its place.
    pub parts: Vec<Part>,
}

pub struct Part {
    pub label: String,
    pub scope: String,
}

/// What the person decided, by the numbers of the items.
#[derive(Default)]
pub struct Choice {
    /// Items that are granted as asked.
    pub whole: Vec<usize>,
    /// (item, part) that are granted in place of the item.
    pub parts: Vec<(usize, usize)>,
    /// `offline_access` or `online_access`, where they were asked for.
    pub lasting: bool,
}

const OBSERVATION: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const CONDITION: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
const US_CORE: &str = "http://hl7.org/fhir/us/core/CodeSystem/condition-category";
const US_CORE_TAG: &str = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category";

/// Categories that US Core has servers offer: type, label, system, code.
const CATEGORIES: &[(&str, &str, &str, &str)] = &[
    ("Condition", "Diagnoses made in visits", CONDITION, "encounter-diagnosis"),
    ("Condition", "Problem list", CONDITION, "problem-list-item"),
    ("Condition", "Health concerns", US_CORE, "health-concern"),
    ("Observation", "Laboratory results", OBSERVATION, "laboratory"),
    ("Observation", "Social history", OBSERVATION, "social-history"),
    ("Observation", "Vital signs", OBSERVATION, "vital-signs"),
    ("Observation", "Surveys and questionnaires", OBSERVATION, "survey"),
    ("Observation", "Social needs", US_CORE_TAG, "sdoh"),
];

/// Types that can be picked out of "everything".
const KINDS: &[&str] = &[
    "Patient",
    "AllergyIntolerance",
    "Appointment",
    "CarePlan",
    "CareTeam",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "Goal",
    "Immunization",
    "Location",
    "MedicationDispense",
    "MedicationRequest",
    "Observation",
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "QuestionnaireResponse",
    "RelatedPerson",
    "ServiceRequest",
    "Specimen",
];

fn parts(scope: &ResourceScope, text: &str) -> Vec<Part> {
    if !scope.filter.is_empty() {
        return Vec::new();
    }
    let Some((about, permissions)) = text.split_once('/').zip(text.rsplit_once('.')) else { return Vec::new() };
    let (about, permissions) = (about.0, permissions.1);
    match scope.kind {
        None => KINDS
            .iter()
            .map(|kind| Part { label: (*kind).to_owned(), scope: format!("{about}/{kind}.{permissions}") })
            .collect(),
        Some(kind) => {
            let kind = definitions().type_name(kind);
            let of_kind = CATEGORIES.iter().filter(|(of, ..)| *of == kind);
            of_kind
                .map(|(_, label, system, code)| Part {
                    label: (*label).to_owned(),
                    scope: format!("{about}/{kind}.{}?category={system}|{code}", scope.letters),
                })
                .collect()
        }
    }
}

/// The resource scopes of a request, as they are offered.
pub fn items(scopes: &Scopes) -> Vec<Item> {
    let mut items = Vec::new();
    for (number, scope) in scopes.0.iter().enumerate() {
        let Scope::Resource(resource) = scope else { continue };
        let words = [('r', "read"), ('s', "search"), ('c', "create"), ('u', "change"), ('d', "delete")];
        let may = words.iter().filter(|(letter, _)| resource.letters.has(*letter)).map(|(_, word)| *word).collect();
        items.push(Item {
            number,
            scope: scope.text().to_owned(),
            kind: resource.kind.map(|kind| definitions().type_name(kind)),
            may,
            about: if scope.text().starts_with("patient/") { "patient" } else { "user" },
            filter: scope.text().split_once('?').map(|(_, filter)| filter.to_owned()),
            parts: parts(resource, scope.text()),
        });
    }
    items
}

impl Choice {
    /// Reads a form: `s3=all` grants item 3, `s3=some` with `p3=0`, `p3=2` parts of it, `lasting=yes` the lasting access.
    pub fn read(form: &[(String, String)]) -> Choice {
        let mut choice = Choice::default();
        let number = |name: &str, letter: char| name.strip_prefix(letter).and_then(|rest| rest.parse::<usize>().ok());
        let some: Vec<usize> =
            form.iter().filter(|(_, value)| value == "some").filter_map(|(name, _)| number(name, 's')).collect();
        for (name, value) in form {
            match (number(name, 's'), number(name, 'p')) {
                (Some(item), _) if value == "all" => choice.whole.push(item),
                (_, Some(item)) if some.contains(&item) => {
                    choice.parts.extend(value.parse::<usize>().ok().map(|part| (item, part)));
                }
                _ => {}
            }
        }
        choice.lasting = form.iter().any(|(name, value)| name == "lasting" && value == "yes");
        choice
    }

    /// What is granted of the scopes, in their order; never more than was offered.
    pub fn granted(&self, scopes: &Scopes) -> Scopes {
        let items = items(scopes);
        let mut granted: Vec<Scope> = Vec::new();
        for (number, scope) in scopes.0.iter().enumerate() {
            let mut add = |scope: Scope| {
                if !granted.contains(&scope) {
                    granted.push(scope);
                }
            };
            match (scope, items.iter().find(|item| item.number == number)) {
                (Scope::Other(name), _) if name.ends_with("line_access") => {
                    if self.lasting {
                        add(scope.clone());
                    }
                }
                (Scope::Other(_), _) => add(scope.clone()),
                (Scope::Resource(_), Some(item)) => {
                    if self.whole.contains(&number) {
                        add(scope.clone());
                        continue;
                    }
                    for (_, part) in self.parts.iter().filter(|(of, _)| *of == number) {
                        let part = item.parts.get(*part).and_then(|part| Scope::parse(&part.scope).ok());
                        part.into_iter().for_each(&mut add);
                    }
                }
                (Scope::Resource(_), None) => {}
            }
        }
        Scopes(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(asked: &str, form: &[(&str, &str)]) -> String {
        let form: Vec<(String, String)> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Choice::read(&form).granted(&Scopes::parse(asked).unwrap()).to_string()
    }

    #[test]
    fn every_part_is_a_scope_within_its_item() {
        let asked = "patient/*.rs user/*.read patient/Condition.rs patient/Observation.read user/Patient.cruds";
        let asked = Scopes::parse(asked).unwrap();
        let mut parts = 0;
        for item in items(&asked) {
            let whole = Scopes::parse(&item.scope).unwrap();
            for part in &item.parts {
                let part = Scopes::parse(&part.scope).unwrap();
                assert_eq!(part.narrowed_by(&whole), part, "{part} of {whole}");
                crate::oauth::client::check_filters(&part, "https://x/fhir", crate::world::Instant(0)).unwrap();
                parts += 1;
            }
        }
        assert_eq!(parts, 2 * KINDS.len() + CATEGORIES.len());
    }

    #[test]
    fn a_choice_grants_what_was_ticked_and_nothing_else() {
        let asked = "openid launch/patient patient/Patient.rs patient/Observation.rs offline_access patient/*.rs";
        assert_eq!(granted(asked, &[]), "openid launch/patient");
        assert_eq!(
            granted(asked, &[("s2", "all"), ("s3", "some"), ("p3", "0"), ("p3", "2"), ("lasting", "yes")]),
            format!(
                "openid launch/patient patient/Patient.rs patient/Observation.rs?category={OBSERVATION}|laboratory \
                 patient/Observation.rs?category={OBSERVATION}|vital-signs offline_access"
            )
        );
        assert_eq!(granted(asked, &[("s5", "some"), ("p5", "0")]), "openid launch/patient patient/Patient.rs");
        // Parts count only where parts were chosen; what was not offered is not there to grant.
        for form in
            [&[("p3", "0")][..], &[("s3", "none"), ("p3", "0")], &[("s3", "some"), ("p3", "99")], &[("s9", "all")]]
        {
            assert_eq!(granted(asked, form), "openid launch/patient", "{form:?}");
        }
        assert_eq!(granted("user/*.cruds", &[("s0", "all")]), "user/*.cruds");
    }
}
