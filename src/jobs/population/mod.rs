//! A synthetic population: patients in households, their care and its documents, as FHIR R4 transaction Bundles. The
//! same [`Plan`] gives the same bytes on every machine. Nobody in it exists: numbers come from ranges that are never
//! issued (SSN 9xx, telephone 555-01xx, `example.*` mail). Must not know the store.

mod dice;
mod labs;
mod notes;
mod people;
mod staff;
mod tables;
mod visits;

use jiff::civil::Date;
use serde_json::json;

use people::Household;
use staff::Clinic;

/// A FHIR resource or Bundle as a JSON tree.
type Node = serde_json::Value;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub patients: usize,
    /// The day that is today in this world: appointments lie on both sides of it.
    pub today: Date,
}

impl Plan {
    /// The transaction Bundles: first the clinic (organizations, locations, practitioners), then one per patient, in
    /// an order in which no Bundle refers to a later one. Each is made when it is asked for. Every entry is a PUT
    /// with a fixed id, so that loading one twice changes nothing.
    pub fn bundles(&self) -> Bundles {
        Bundles { clinic: Clinic::new(self), plan: self.clone(), made: 0, household: 0, waiting: Vec::new() }
    }

    /// How many Bundles there are.
    pub fn bundle_count(&self) -> usize {
        self.patients + 1
    }
}

/// The Bundles of a [`Plan`], one at a time; at most one household is held.
pub struct Bundles {
    plan: Plan,
    clinic: Clinic,
    made: usize,
    household: u64,
    /// Members of the current household still to come, last first.
    waiting: Vec<Node>,
}

impl Iterator for Bundles {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        if self.made == self.plan.bundle_count() {
            return None;
        }
        if self.made == 0 {
            self.made = 1;
            return Some(transaction(self.clinic.resources()));
        }
        if self.waiting.is_empty() {
            let household = Household::new(&self.plan, self.household);
            // Patient numbers start at 0 behind the clinic's Bundle.
            let first = self.made - 1;
            self.waiting = (0..household.members.len())
                .map(|member| transaction(household.resources(&self.plan, &self.clinic, member, first + member)))
                .rev()
                .collect();
            self.household += 1;
        }
        self.made += 1;
        self.waiting.pop()
    }
}

fn transaction(resources: Vec<Node>) -> Node {
    let entries: Vec<Node> = resources
        .into_iter()
        .map(|resource| {
            let address = local(&resource);
            json!({
                "fullUrl": format!("urn:uuid:{}", resource["id"].as_str().unwrap_or_default()),
                "resource": resource,
                "request": {"method": "PUT", "url": address},
            })
        })
        .collect();
    json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})
}

/// `Type/id` of a resource of ours.
fn local(resource: &Node) -> String {
    let part = |name: &str| resource[name].as_str().unwrap_or_default();
    format!("{}/{}", part("resourceType"), part("id"))
}

/// A reference with a display.
fn reference(to: &str, display: &str) -> Node {
    json!({"reference": to, "display": display})
}

/// A CodeableConcept of one coding.
fn concept(system: &str, code: &str, display: &str) -> Node {
    json!({"coding": [{"system": system, "code": code, "display": display}], "text": display})
}

const SNOMED: &str = "http://snomed.info/sct";
const LOINC: &str = "http://loinc.org";
const ICD10: &str = "http://hl7.org/fhir/sid/icd-10-cm";
const UCUM: &str = "http://unitsofmeasure.org";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::fhir;

    fn plan(seed: u64, patients: usize) -> Plan {
        Plan { seed, patients, today: Date::constant(2026, 11, 22) }
    }

    fn resources(plan: &Plan) -> Vec<Node> {
        let of = |bundle: Node| bundle["entry"].as_array().cloned().unwrap_or_default();
        plan.bundles().flat_map(of).map(|mut entry| entry["resource"].take()).collect()
    }

    fn text(plan: &Plan) -> String {
        plan.bundles().map(|bundle| bundle.to_string()).collect()
    }

    #[test]
    fn the_same_plan_gives_the_same_bytes_and_another_seed_others() {
        assert_eq!(text(&plan(7, 12)), text(&plan(7, 12)));
        assert_ne!(text(&plan(7, 12)), text(&plan(8, 12)));
    }

    #[test]
    fn there_is_one_bundle_a_patient_and_one_for_the_clinic() {
        for patients in [1, 2, 17] {
            let plan = plan(1, patients);
            assert_eq!(plan.bundles().count(), plan.bundle_count());
            let people = resources(&plan).iter().filter(|r| r["resourceType"] == "Patient").count();
            assert_eq!(people, patients);
        }
    }

    #[test]
    fn every_resource_is_valid_r4() {
        for resource in resources(&plan(42, 60)) {
            let faults = fhir::validate::structure(&resource);
            assert!(faults.is_empty(), "{}: {faults:?}", local(&resource));
        }
    }

    #[test]
    fn ids_are_distinct_and_every_reference_has_its_target_in_this_or_an_earlier_bundle() {
        fn references<'a>(node: &'a Node, into: &mut Vec<&'a str>) {
            match node {
                Node::Object(members) => {
                    for (name, value) in members {
                        match (name.as_str(), value) {
                            ("reference", Node::String(to)) => into.push(to),
                            ("url", Node::String(to)) if to.starts_with("Binary/") => into.push(to),
                            _ => references(value, into),
                        }
                    }
                }
                Node::Array(items) => items.iter().for_each(|item| references(item, into)),
                _ => {}
            }
        }
        let mut seen = HashSet::new();
        for bundle in plan(3, 40).bundles() {
            for entry in bundle["entry"].as_array().unwrap() {
                let address = local(&entry["resource"]);
                assert_eq!(entry["request"]["url"].as_str(), Some(address.as_str()));
                assert!(seen.insert(address.clone()), "{address} twice");
            }
            for entry in bundle["entry"].as_array().unwrap() {
                let mut found = Vec::new();
                references(&entry["resource"], &mut found);
                for to in found {
                    assert!(seen.contains(to), "{to} is referred to before it is there");
                }
            }
        }
    }

    #[test]
    fn the_amount_and_the_kinds_are_those_a_demonstration_needs() {
        let all = resources(&plan(42, 120));
        let per_patient = all.len() / 120;
        assert!((30..=60).contains(&per_patient), "{per_patient} resources a patient");
        let mut statuses: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for resource in &all {
            *kinds.entry(resource["resourceType"].as_str().unwrap()).or_default() += 1;
            if resource["resourceType"] == "Appointment" {
                let planned = resource["requestedPeriod"][0]["start"].as_str();
                let future = resource["start"].as_str().or(planned).unwrap() > "2026-11-23";
                statuses.entry(resource["status"].as_str().unwrap()).or_default()[usize::from(future)] += 1;
            }
        }
        for kind in ["Practitioner", "Organization", "Encounter", "Observation", "Condition", "Binary", "Coverage"] {
            assert!(kinds.get(kind).is_some_and(|n| *n > 3), "{kind}: {kinds:?}");
        }
        assert!(kinds["DocumentReference"] > 120, "{kinds:?}");
        for status in ["fulfilled", "noshow", "cancelled", "entered-in-error"] {
            assert!(statuses[status][0] > 0, "{statuses:?}");
        }
        for status in ["booked", "pending", "proposed", "waitlist", "cancelled"] {
            assert!(statuses[status][1] > 0, "{statuses:?}");
        }
        for status in ["arrived", "checked-in"] {
            assert!(statuses.get(status).is_some_and(|n| n[0] > 0), "{statuses:?}");
        }
    }

    #[test]
    fn no_practitioner_is_booked_twice_at_one_time() {
        let mut taken = HashSet::new();
        for appointment in resources(&plan(5, 300)).iter().filter(|r| r["resourceType"] == "Appointment") {
            let practitioner = appointment["participant"][1]["actor"]["reference"].as_str().unwrap();
            assert!(practitioner.starts_with("Practitioner/"));
            if let Some(start) = appointment["start"].as_str() {
                assert!(taken.insert((practitioner.to_owned(), start.to_owned())), "{practitioner} at {start}");
            }
        }
        assert!(taken.len() > 500);
    }
}
