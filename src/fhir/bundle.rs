//! Bundles that ask for something: their entries taken apart, and references between entries rewritten once the ids
//! are known (http.html#trules).

use std::collections::HashMap;

use super::definitions::{Primitive, Shape, definitions};
use super::json::Node;
use super::sent::{Held, SentBundle};
use crate::error::{Error, Issue, Kind, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleType {
    Batch,
    Transaction,
}

/// One entry: `Bundle.entry.request` with its resource.
#[derive(Clone)]
pub struct Entry {
    pub full_url: Option<String>,
    pub resource: Option<Held>,
    /// `GET`, `POST` ... as sent.
    pub method: String,
    /// Relative to the base: `Patient/1`, `Patient?name=x`.
    pub url: String,
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub if_none_exist: Option<String>,
}

/// Full urls of the entries of a transaction and what their resources are called here (`Patient/1`). Several entries
/// may have one full url as long as no reference is left with more than one target.
#[derive(Default)]
pub struct Addresses(HashMap<String, Vec<Target>>);

struct Target {
    /// Number of the entry.
    entry: usize,
    address: String,
}

/// The type of a Bundle that asks for something.
///
/// # Errors
/// `Kind::Invalid` when it is no Bundle or of another type.
pub fn type_of(sent: &SentBundle) -> Result<BundleType> {
    let node = &sent.outer;
    if node.get("resourceType").and_then(Node::as_str) != Some("Bundle") {
        return Err(Error::invalid("The base takes a Bundle of type batch or transaction.").at("Bundle"));
    }
    match node.get("type").and_then(Node::as_str) {
        Some("batch") => Ok(BundleType::Batch),
        Some("transaction") => Ok(BundleType::Transaction),
        _ => Err(Error::invalid("The type of the Bundle must be batch or transaction.").at("Bundle.type")),
    }
}

/// Takes the entries out of a Bundle. A fault of one entry is its own, so that a batch can go on without it.
///
/// # Errors
/// `Kind::TooCostly` for more than `entries_max`; `Kind::Invalid` when `entry` is no list.
pub fn entries(sent: SentBundle, entries_max: usize) -> Result<Vec<Result<Entry>>> {
    let SentBundle { mut outer, resources } = sent;
    let list = match outer.get_mut("entry").map(Node::take) {
        None => return Ok(Vec::new()),
        Some(Node::Array(list)) => list,
        Some(_) => return Err(Error::invalid("Bundle.entry must be a list.").at("Bundle.entry")),
    };
    if list.len() > entries_max {
        let text = format!("The Bundle has more than the {entries_max} entries this server takes: send it in parts.");
        return Err(Error::new(Kind::TooCostly, text).at("Bundle.entry"));
    }
    let entries = list.into_iter().zip(resources).enumerate();
    Ok(entries.map(|(n, (node, resource))| entry(node, resource, n)).collect())
}

fn entry(mut node: Node, resource: Option<Held>, n: usize) -> Result<Entry> {
    let place = format!("Bundle.entry[{n}]");
    // What is no object is left for who reads it to refuse.
    let resource = resource.or_else(|| node.get_mut("resource").map(Node::take).map(Held::of));
    let full_url = node.get("fullUrl").and_then(Node::as_str).map(str::to_owned);
    let Some(request) = node.get("request").filter(|request| request.is_object()) else {
        return Err(Error::with_issues(
            Kind::Invalid,
            vec![Issue::error("required", "An entry must say what is asked for.").at(format!("{place}.request"))],
        ));
    };
    let text = |name: &str| match request.get(name) {
        None => Ok(None),
        Some(Node::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid("A text is expected here.").at(format!("{place}.request.{name}"))),
    };
    let required = |name: &str| {
        let missing = || Issue::error("required", "An entry must have this.").at(format!("{place}.request.{name}"));
        text(name)?.ok_or_else(|| Error::with_issues(Kind::Invalid, vec![missing()]))
    };
    Ok(Entry {
        full_url,
        resource,
        method: required("method")?,
        url: required("url")?,
        if_match: text("ifMatch")?,
        if_none_match: text("ifNoneMatch")?,
        if_modified_since: text("ifModifiedSince")?,
        if_none_exist: text("ifNoneExist")?,
    })
}

impl Addresses {
    /// Notes what the resource of an entry is called here.
    pub fn add(&mut self, full_url: &str, entry: usize, address: String) {
        self.0.entry(full_url.to_owned()).or_default().push(Target { entry, address });
    }

    /// The entries noted for a full url so far. One with the same content as another need not be noted: it does not
    /// matter which of the two a reference is to.
    pub fn entries_of(&self, full_url: &str) -> impl Iterator<Item = usize> {
        self.0.get(full_url).into_iter().flatten().map(|target| target.entry)
    }

    /// Rewrites every reference of a resource to an entry of the same Bundle. `full_url` is that of the resource's own
    /// entry: relative references are relative to it. Looks at `Reference.reference`, at elements of type `uri`, `url`,
    /// `oid` and `uuid`, and at links and images of the narrative. Everything else stays as sent.
    ///
    /// # Errors
    /// `Kind::Invalid` when a reference is to a full url of several entries and their types do not tell which is meant.
    pub fn rewrite(&self, resource: &mut Node, full_url: Option<&str>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let base = full_url.and_then(base_of);
        let mut ambiguous = false;
        visit(resource, &mut |found| {
            let (text, target) = match found {
                Link::Reference(text, allowed) => {
                    let target = self.target(text, base, allowed);
                    (text, target)
                }
                Link::Uri(text) => {
                    let target = self.0.get(text.as_str()).map(|targets| one_of(targets, &[]).cloned());
                    (text, target)
                }
                Link::Narrative(text) => return ambiguous |= self.rewrite_narrative(text).is_err(),
            };
            match target {
                Some(Ok(address)) => *text = address,
                Some(Err(Ambiguous)) => ambiguous = true,
                None => {}
            }
        });
        if ambiguous {
            return Err(Error::invalid("It refers to a fullUrl that several entries have, so to no one of them."));
        }
        Ok(())
    }

    /// What a reference is called here, if it is to an entry.
    fn target(&self, reference: &str, base: Option<&str>, allowed: &[&str]) -> Option<Result<String, Ambiguous>> {
        let (plain, fragment) = reference.split_once('#').map_or((reference, None), |(p, f)| (p, Some(f)));
        if plain.is_empty() {
            return None;
        }
        let found = self.0.get(plain).or_else(|| {
            let base = base.filter(|_| !plain.contains(':'))?;
            self.0.get(&format!("{base}/{plain}"))
        })?;
        Some(one_of(found, allowed).map(|address| match fragment {
            Some(fragment) => format!("{address}#{fragment}"),
            None => address.clone(),
        }))
    }

    fn rewrite_narrative(&self, div: &mut String) -> Result<(), Ambiguous> {
        for attribute in ["href=\"", "src=\"", "href='", "src='"] {
            let quote = if attribute.ends_with('"') { '"' } else { '\'' };
            let mut from = 0;
            while let Some(found) = div[from..].find(attribute) {
                let start = from + found + attribute.len();
                let Some(length) = div[start..].find(quote) else { break };
                from = start + length;
                if let Some(targets) = self.0.get(&div[start..from]) {
                    let address = one_of(targets, &[])?;
                    div.replace_range(start..from, address);
                    from = start + address.len();
                }
            }
        }
        Ok(())
    }
}

/// A full url with more than one target.
struct Ambiguous;

/// The one target, of those whose type is allowed (any when the list is empty) if there are several.
fn one_of<'a>(targets: &'a [Target], allowed: &[&str]) -> Result<&'a String, Ambiguous> {
    let fits = |target: &&Target| {
        let kind = target.address.split('/').next().unwrap_or_default();
        targets.len() == 1 || allowed.is_empty() || allowed.contains(&kind)
    };
    let mut fitting = targets.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(target), None) => Ok(&target.address),
        _ => Err(Ambiguous),
    }
}

/// `http://a.example/fhir` of `http://a.example/fhir/Patient/1`.
fn base_of(full_url: &str) -> Option<&str> {
    let (rest, id) = full_url.rsplit_once('/')?;
    let (base, kind) = rest.rsplit_once('/')?;
    (!id.is_empty() && definitions().type_id(kind).is_some()).then_some(base)
}

/// A place that can point to another resource.
enum Link<'a> {
    /// With the types it may be to; none: any.
    Reference(&'a mut String, &'static [&'static str]),
    Uri(&'a mut String),
    Narrative(&'a mut String),
}

/// Calls `see` with every `Reference.reference` of a resource, contained and nested resources included.
pub fn references(resource: &mut Node, mut see: impl FnMut(&mut String)) {
    visit(resource, &mut |found| {
        if let Link::Reference(text, _) = found {
            see(text);
        }
    });
}

fn visit(resource: &mut Node, see: &mut impl FnMut(Link<'_>)) {
    let shape = resource.get("resourceType").and_then(Node::as_str).and_then(|name| definitions().shape(name));
    if let Some(shape) = shape {
        visit_object(resource, shape, &[], see);
    }
}

fn visit_object(
    node: &mut Node,
    shape: &'static Shape,
    allowed: &'static [&'static str],
    see: &mut impl FnMut(Link<'_>),
) {
    let Some(members) = node.as_object_mut() else { return };
    for (name, value) in members {
        if let Some(primitive) = name.strip_prefix('_') {
            if shape.child(primitive).is_some_and(|child| child.primitive.is_some()) {
                let element = definitions().shape("Element");
                each(value, &mut |value| {
                    element.into_iter().for_each(|element| visit_object(value, element, &[], see))
                });
            }
            continue;
        }
        let Some(child) = shape.child(name) else { continue };
        let of_reference = shape.path == "Reference" && child.name == "reference";
        each(value, &mut |value| match (value, child.primitive, child.shape()) {
            (Node::String(text), _, _) if of_reference => see(Link::Reference(text, allowed)),
            (Node::String(text), Some(Primitive::Uri | Primitive::Url | Primitive::Oid | Primitive::Uuid), _) => {
                see(Link::Uri(text));
            }
            (Node::String(text), Some(Primitive::Xhtml), _) => see(Link::Narrative(text)),
            (value, None, Some(inner)) if inner.path == "Resource" => visit(value, see),
            (value, None, Some(inner)) => visit_object(value, inner, &child.element.targets, see),
            _ => {}
        });
    }
}

fn each(value: &mut Node, act: &mut impl FnMut(&mut Node)) {
    match value {
        Node::Array(items) => items.iter_mut().for_each(act),
        one => act(one),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses(pairs: &[(&str, &str)]) -> Addresses {
        let mut addresses = Addresses::default();
        for (n, (full_url, address)) in pairs.iter().enumerate() {
            addresses.add(full_url, n, (*address).to_owned());
        }
        addresses
    }

    #[test]
    fn references_uris_and_narrative_links_are_rewritten_and_nothing_else() {
        let mut node = json!({
            "resourceType": "Observation",
            "text": {"status": "generated", "div": "<div><a href=\"urn:uuid:p\">p</a><img src='urn:uuid:p'/></div>"},
            "contained": [{"resourceType": "Provenance", "target": [{"reference": "urn:uuid:p"}]}],
            "extension": [{"url": "urn:uuid:p", "valueReference": {"reference": "urn:uuid:p"}}],
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:p"}],
            "_status": {"extension": [{"url": "http://x", "valueUri": "urn:uuid:p"}]},
            "status": "final",
            "code": {"text": "urn:uuid:p"},
            "subject": {"reference": "urn:uuid:p", "display": "urn:uuid:p"},
            "performer": [{"reference": "Practitioner/7"}, {"reference": "#c"}, {"reference": "urn:uuid:q#part"}]
        });
        let map = addresses(&[("urn:uuid:p", "Patient/1"), ("urn:uuid:q", "Group/2")]);
        map.rewrite(&mut node, Some("urn:uuid:o")).expect("one target each");
        let expected = json!({
            "resourceType": "Observation",
            "text": {"status": "generated", "div": "<div><a href=\"Patient/1\">p</a><img src='Patient/1'/></div>"},
            "contained": [{"resourceType": "Provenance", "target": [{"reference": "Patient/1"}]}],
            "extension": [{"url": "Patient/1", "valueReference": {"reference": "Patient/1"}}],
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:p"}],
            "_status": {"extension": [{"url": "http://x", "valueUri": "Patient/1"}]},
            "status": "final",
            "code": {"text": "urn:uuid:p"},
            "subject": {"reference": "Patient/1", "display": "urn:uuid:p"},
            "performer": [{"reference": "Practitioner/7"}, {"reference": "#c"}, {"reference": "Group/2#part"}]
        });
        assert_eq!(node, expected);
    }

    #[test]
    fn relative_references_are_relative_to_the_entry() {
        let map = addresses(&[("http://a.example/fhir/Patient/1", "Patient/9")]);
        let resource = |reference: &str| json!({"resourceType": "Observation", "subject": {"reference": reference}});
        for (full_url, reference, expected) in [
            (Some("http://a.example/fhir/Observation/2"), "Patient/1", "Patient/9"),
            (Some("http://b.example/fhir/Observation/2"), "Patient/1", "Patient/1"),
            (Some("urn:uuid:x"), "Patient/1", "Patient/1"),
            (None, "http://a.example/fhir/Patient/1", "Patient/9"),
        ] {
            let mut node = resource(reference);
            map.rewrite(&mut node, full_url).expect("one target");
            assert_eq!(node, resource(expected), "{full_url:?} {reference}");
        }
    }

    #[test]
    fn a_full_url_of_several_entries_must_leave_one_target() {
        let map = addresses(&[("urn:uuid:p", "Patient/1"), ("urn:uuid:p", "DiagnosticReport/2")]);
        assert_eq!(map.entries_of("urn:uuid:p").collect::<Vec<_>>(), [0, 1]);
        // The subject of an Observation can be the Patient only.
        let mut node = json!({"resourceType": "Observation", "subject": {"reference": "urn:uuid:p"}});
        assert!(map.rewrite(&mut node, None).is_ok());
        assert_eq!(node["subject"]["reference"], "Patient/1");
        for ambiguous in [
            json!({"resourceType": "Observation", "focus": [{"reference": "urn:uuid:p"}]}),
            json!({"resourceType": "Observation", "device": {"reference": "urn:uuid:p"}}),
            json!({"resourceType": "Observation", "extension": [{"url": "x", "valueUri": "urn:uuid:p"}]}),
            json!({"resourceType": "Observation", "text": {"div": "<div><a href=\"urn:uuid:p\">x</a></div>"}}),
        ] {
            assert!(map.rewrite(&mut ambiguous.clone(), None).is_err(), "{ambiguous}");
        }
    }

    #[test]
    fn faults_of_entries_name_their_place_and_leave_the_others_alone() {
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": "Patient/1"}},
            {"request": {"method": "GET"}},
            {"resource": {"resourceType": "Patient"}},
        ]});
        let entries = entries(SentBundle::of(bundle.clone()), 3).expect("three entries");
        let places: Vec<Option<String>> = entries
            .iter()
            .map(|entry| entry.as_ref().err().and_then(|error| error.issues[0].expression.clone()))
            .collect();
        let expected =
            [None, Some("Bundle.entry[1].request.url".to_owned()), Some("Bundle.entry[2].request".to_owned())];
        assert_eq!(places, expected);
        assert!(super::entries(SentBundle::of(bundle), 2).is_err_and(|error| error.kind == Kind::TooCostly));
    }

    #[test]
    fn only_batches_and_transactions_ask_for_something() {
        let of = |kind: &str| type_of(&SentBundle::of(json!({"resourceType": "Bundle", "type": kind}))).ok();
        assert_eq!(of("batch"), Some(BundleType::Batch));
        assert_eq!(of("transaction"), Some(BundleType::Transaction));
        assert_eq!(of("searchset"), None);
        assert!(type_of(&SentBundle::of(json!({"resourceType": "Patient"}))).is_err());
    }
}
