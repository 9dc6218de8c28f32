//! The literal references of a resource (`Reference.reference`), each with its place and with the types that the
//! definition of its element allows, and what can be said against them by the definitions alone. Entries of a Bundle and
//! parameters are documents of their own: their references are not those of what they lie in.

use super::definitions::{Shape, definitions};
use super::json::Node;
use super::reference::{self, Reference};
use crate::error::{Issue, Severity};

/// Faults of one resource that are listed.
const FAULTS_MAX: usize = 100;

/// One literal reference.
pub struct Literal<'a, 'w> {
    pub text: &'a str,
    /// Names of the types it may be to; empty: any.
    pub targets: &'static [&'static str],
    steps: &'w [(&'static str, Option<usize>)],
}

impl Literal<'_, '_> {
    /// FHIRPath of the element (`Observation.performer[1]`).
    pub fn place(&self) -> String {
        let mut text = String::new();
        for (name, at) in self.steps {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
            if let Some(at) = at {
                text.push_str(&format!("[{at}]"));
            }
        }
        text
    }
}

/// Shows every literal reference of a resource, those of contained resources too.
pub fn visit<'a>(resource: &'a Node, see: &mut dyn FnMut(Literal<'a, '_>)) {
    let Some(shape) = shape_of(resource) else { return };
    let mut walk = Walk { steps: vec![(shape.path, None)], see };
    walk.object(resource, shape, &[]);
}

fn shape_of(resource: &Node) -> Option<&'static Shape> {
    definitions().shape(resource.get("resourceType")?.as_str()?)
}

struct Walk<'a, 's> {
    steps: Vec<(&'static str, Option<usize>)>,
    see: &'s mut dyn FnMut(Literal<'a, '_>),
}

impl<'a> Walk<'a, '_> {
    fn object(&mut self, node: &'a Node, shape: &'static Shape, targets: &'static [&'static str]) {
        let Some(members) = node.as_object() else { return };
        if shape.path == "Reference"
            && let Some(text) = members.get("reference").and_then(Node::as_str)
        {
            (self.see)(Literal { text, targets, steps: &self.steps });
        }
        for (name, value) in members {
            // Extensions of primitives can hold references too.
            let (plain, beside) = name.strip_prefix('_').map_or((name.as_str(), false), |plain| (plain, true));
            let Some(child) = shape.child(plain) else { continue };
            let inner = match (beside, child.primitive) {
                (true, Some(_)) => definitions().shape("Element"),
                (false, None) => child.shape(),
                _ => continue,
            };
            let Some(inner) = inner else { continue };
            let contained = inner.path == "Resource";
            if contained && child.element.name != "contained" {
                continue;
            }
            let mut one = |at: Option<usize>, value: &'a Node| {
                let inner = if contained { shape_of(value) } else { Some(inner) };
                let Some(inner) = inner else { return };
                self.steps.push((child.element.name, at));
                self.object(value, inner, &child.element.targets);
                self.steps.pop();
            };
            match value {
                Node::Array(items) => items.iter().enumerate().for_each(|(at, item)| one(Some(at), item)),
                value => one(None, value),
            }
        }
    }
}

/// What is wrong with the references of a resource whatever is stored: one to a contained resource that is not there,
/// and one to a type that its element does not allow. Of references to other servers nothing is known. `base` is the
/// server's own.
pub fn faults(resource: &Node, base: &str) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut more = 0usize;
    visit(resource, &mut |literal| {
        let Some(text) = fault(resource, &literal, base) else { return };
        match issues.len() < FAULTS_MAX {
            true => issues.push(Issue::error("value", text).at(literal.place())),
            false => more += 1,
        }
    });
    if more > 0 {
        let text = format!("{more} more references are not listed.");
        issues.push(Issue { severity: Severity::Information, ..Issue::error("informational", text) });
    }
    issues
}

fn fault(resource: &Node, literal: &Literal<'_, '_>, base: &str) -> Option<String> {
    let kind = match reference::parse(literal.text, base) {
        Reference::Local { kind, .. } | Reference::Conditional { kind, .. } => definitions().type_name(kind),
        // The resource that contains the one with the reference.
        Reference::Fragment(id) if id.is_empty() => resource.get("resourceType")?.as_str()?,
        Reference::Fragment(id) => {
            let contained = resource.get("contained").and_then(Node::as_array).into_iter().flatten();
            let mut named = contained.filter(|one| one.get("id").and_then(Node::as_str) == Some(&id));
            match named.next() {
                Some(one) => one.get("resourceType")?.as_str()?,
                None => {
                    return Some("The reference is to a contained resource, but there is none with this id.".into());
                }
            }
        }
        Reference::Absolute { .. } | Reference::Urn(_) | Reference::Other(_) => return None,
    };
    let allowed = literal.targets;
    if allowed.is_empty() || allowed.contains(&kind) {
        return None;
    }
    Some(format!("The reference is to a {kind}, but this element refers to {} only.", allowed.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BASE: &str = "http://host/fhir";

    #[test]
    fn references_have_places_and_entries_of_bundles_are_their_own() {
        let observation = json!({
            "resourceType": "Observation",
            "_status": {"extension": [{"url": "x", "valueReference": {"reference": "Group/1"}}]},
            "contained": [{"resourceType": "Provenance", "id": "c", "target": [{"reference": "#"}]}],
            "subject": {"reference": "Patient/1"},
            "performer": [{"display": "x"}, {"reference": "Practitioner/2"}],
            "note": [{"authorReference": {"reference": "http://host/fhir/Patient/1/_history/2"}}],
            "component": [{"extension": [{"url": "y", "valueReference": {"reference": "Device/3"}}]}],
            "hasMember": [{"identifier": {"assigner": {"reference": "Organization/4"}}}],
        });
        let mut found = Vec::new();
        visit(&observation, &mut |literal| found.push(format!("{} {}", literal.place(), literal.text)));
        let expected = [
            "Observation.status.extension[0].value Group/1",
            "Observation.contained[0].target[0] #",
            "Observation.subject Patient/1",
            "Observation.performer[1] Practitioner/2",
            "Observation.note[0].author http://host/fhir/Patient/1/_history/2",
            "Observation.component[0].extension[0].value Device/3",
            "Observation.hasMember[0].identifier.assigner Organization/4",
        ];
        assert_eq!(found, expected);
        let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": observation}]});
        visit(&bundle, &mut |literal| panic!("{}", literal.place()));
    }

    #[test]
    fn types_and_contained_resources_are_judged_by_the_definitions() {
        let places = |node: Node| -> Vec<String> {
            faults(&node, BASE).into_iter().map(|issue| issue.expression.unwrap_or_default()).collect()
        };
        let of = |subject: &str| json!({"resourceType": "Observation", "subject": {"reference": subject}});
        for fine in [
            "Patient/1",
            "Patient/1/_history/1",
            "http://host/fhir/Group/1",
            "https://other/fhir/Practitioner/1",
            "urn:uuid:0d5b8f2a-9a2b-4c57-8a35-6a1f6e1f1a11",
            "Patient?identifier=1",
            "something else",
        ] {
            assert!(places(of(fine)).is_empty(), "{fine}");
        }
        for wrong in [
            "Practitioner/1",
            "http://host/fhir/Practitioner/1",
            "Practitioner/1/_history/1",
            "Practitioner?name=x",
            "#p",
            "#",
        ] {
            assert_eq!(places(of(wrong)), ["Observation.subject"], "{wrong}");
        }
        let mut contained = of("#p");
        contained["contained"] = json!([{"resourceType": "Patient", "id": "p"}]);
        assert!(places(contained.clone()).is_empty());
        contained["contained"][0]["resourceType"] = json!("Organization");
        assert_eq!(places(contained.clone()), ["Observation.subject"]);
        // From a contained resource to its neighbour, and to what holds both.
        let neighbours = json!({"resourceType": "Observation", "contained": [
            {"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": "#o"}},
            {"resourceType": "Organization", "id": "o"},
            {"resourceType": "Provenance", "id": "q", "target": [{"reference": "#"}]},
        ]});
        assert!(places(neighbours).is_empty());
        assert!(places(json!({"resourceType": "Basic", "subject": {"reference": "Binary/1"}})).is_empty(), "any type");
    }

    #[test]
    fn many_faults_are_counted() {
        let performers: Vec<Node> = (0..FAULTS_MAX + 3).map(|_| json!({"reference": "#x"})).collect();
        let issues = faults(&json!({"resourceType": "Observation", "performer": performers}), BASE);
        assert_eq!(issues.len(), FAULTS_MAX + 1);
        assert!(issues[FAULTS_MAX].diagnostics.starts_with("3 more"), "{}", issues[FAULTS_MAX].diagnostics);
    }
}
