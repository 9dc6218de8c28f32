//! Documents to units of work. Every entry gets a stable identity, so that loading the same thing twice changes
//! nothing:
//!
//! - a resource with an id keeps it (PUT);
//! - an entry that a transaction or batch creates (POST) takes the UUID of its `urn:uuid:` fullUrl as its id, else the
//!   id at the end of an absolute fullUrl, else its own id; other entries and lines take their own id first;
//! - without any of these the id is derived from its content: the first 128 bits of its SHA-256, and for the n-th
//!   equal one of a document of content and n.
//!
//! An entry that creates does so once: when its address is taken, by an earlier run or by another file, it counts as
//! unchanged. A PUT writes unless the content is the same.
//!
//! Conditional creates, updates and deletes, PATCH and GET stay as they are.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;
use serde_json::json;

use super::source::Origin;
use crate::error::{Error, Result};
use crate::fhir::bundle::Addresses;
use crate::fhir::json::{self, Node};

/// Entries that are performed together when they need not be.
pub const GROUP_ENTRIES_MAX: usize = 100;

/// One entry of a Bundle as it will be performed.
pub struct Piece {
    pub origin: Origin,
    /// `{fullUrl, resource, request}`.
    pub entry: Node,
}

/// What is performed at once.
pub enum Unit {
    /// All or nothing.
    Transaction { origin: Origin, pieces: Vec<Piece> },
    /// Performed together for speed; each stands for itself.
    Group(Vec<Piece>),
    /// Nothing that could be performed.
    Fault { origin: Origin, error: Error },
    /// What comes next may refer to what came before: all of that is performed first.
    Turn,
}

/// Which name of a resource wins when it has two.
#[derive(Clone, Copy)]
enum Prefer {
    Own,
    FullUrl,
}

/// Makes units of the resources of one document, in order.
#[derive(Default)]
pub struct Units {
    group: Vec<Piece>,
    /// `Type/id` of what the group holds: one entry each.
    held: HashSet<String>,
    /// How often a content without identity was seen.
    seen: HashMap<[u8; 32], u32>,
}

impl Units {
    /// Takes one resource or Bundle of the document; complete units go to `give`.
    pub fn add(&mut self, origin: Origin, node: Result<Node>, give: &mut dyn FnMut(Unit)) {
        let taken = node.and_then(|node| match node["resourceType"].as_str() {
            Some("Bundle") => self.bundle(&origin, node, give),
            Some(_) => {
                let entry = self.put(None, node, Prefer::Own)?;
                self.push(Piece { origin: origin.clone(), entry }, give);
                Ok(())
            }
            None => Err(Error::invalid("no FHIR resource: it has no resourceType")),
        });
        if let Err(error) = taken {
            give(Unit::Fault { origin, error });
        }
    }

    /// The end of the document.
    pub fn finish(&mut self, give: &mut dyn FnMut(Unit)) {
        self.seen.clear();
        self.give_group(give);
    }

    fn push(&mut self, piece: Piece, give: &mut dyn FnMut(Unit)) {
        let address = piece.entry["request"]["url"].as_str().unwrap_or_default().to_owned();
        if self.held.contains(&address) || self.group.len() == GROUP_ENTRIES_MAX {
            self.give_group(give);
        }
        self.held.insert(address);
        self.group.push(piece);
    }

    fn bundle(&mut self, origin: &Origin, mut node: Node, give: &mut dyn FnMut(Unit)) -> Result<()> {
        let kind = node["type"].as_str().unwrap_or_default().to_owned();
        let performed = matches!(kind.as_str(), "transaction" | "batch");
        let stored = matches!(kind.as_str(), "collection" | "searchset" | "document" | "message");
        if !performed && !stored {
            return Err(Error::unsupported(
                "only a Bundle of type transaction, batch, collection, searchset, document or message can be loaded",
            )
            .at("Bundle.type"));
        }
        let Node::Array(entries) = node["entry"].take() else {
            return Ok(());
        };
        let mut pieces = Vec::with_capacity(entries.len());
        for (n, entry) in entries.into_iter().enumerate() {
            let origin = origin.entry(n);
            match self.entry(entry, performed) {
                Ok(entry) => pieces.push(Piece { origin, entry }),
                // Nothing of a transaction with a bad entry is kept.
                Err(error) if kind == "transaction" => return Err(error.at(format!("Bundle.entry[{n}]"))),
                Err(error) => give(Unit::Fault { origin, error }),
            }
        }
        if kind == "transaction" {
            self.give_group(give);
            give(Unit::Transaction { origin: origin.clone(), pieces });
            return Ok(());
        }
        if stored {
            resolve(&mut pieces)?;
        }
        for mut piece in pieces {
            // References are resolved; in a group with others its full url would mean nothing.
            if let Node::Object(members) = &mut piece.entry {
                members.shift_remove("fullUrl");
            }
            self.push(piece, give);
        }
        Ok(())
    }

    fn give_group(&mut self, give: &mut dyn FnMut(Unit)) {
        self.held.clear();
        if !self.group.is_empty() {
            give(Unit::Group(std::mem::take(&mut self.group)));
        }
    }

    /// An entry with a stable identity.
    fn entry(&mut self, mut entry: Node, performed: bool) -> Result<Node> {
        let full_url = entry["fullUrl"].as_str().map(str::to_owned);
        if !performed {
            return match entry["resource"].take() {
                resource @ Node::Object(_) => self.put(full_url, resource, Prefer::Own),
                _ => Err(Error::invalid("an entry without a resource cannot be stored")),
            };
        }
        let request = &entry["request"];
        let conditional = request.get("ifNoneExist").is_some();
        if request["method"].as_str() != Some("POST") || conditional || !entry["resource"].is_object() {
            return Ok(entry);
        }
        // POST to a type; to anything else (an operation) it is left to the interactions to judge.
        let kind = entry["resource"]["resourceType"].as_str();
        match kind.is_some() && kind == request["url"].as_str() {
            true => self.put(full_url, entry["resource"].take(), Prefer::FullUrl),
            false => Ok(entry),
        }
    }

    /// `{resource, request, fullUrl}` that puts a resource at its own, stable address.
    fn put(&mut self, full_url: Option<String>, mut resource: Node, prefer: Prefer) -> Result<Node> {
        let Some(kind) = resource["resourceType"].as_str().map(str::to_owned) else {
            return Err(Error::invalid("no FHIR resource: it has no resourceType"));
        };
        let own = resource["id"].as_str().map(str::to_owned);
        let outer = full_url.as_deref().and_then(|url| named(url, &kind));
        let id = match prefer {
            Prefer::Own => own.clone().or(outer),
            Prefer::FullUrl => outer.or(own.clone()),
        };
        let id = id.unwrap_or_else(|| self.derived(&resource));
        if own.as_deref() != Some(&id) {
            set_id(&mut resource, &id);
        }
        let address = format!("{kind}/{id}");
        let mut entry = json!({"resource": resource, "request": {"method": "PUT", "url": address}});
        if let Prefer::FullUrl = prefer {
            // Created once: what was changed since then is not set back by a second run.
            entry["request"]["ifNoneMatch"] = json!("*");
        }
        if let Some(full_url) = full_url {
            entry["fullUrl"] = Node::String(full_url);
        }
        Ok(entry)
    }

    fn derived(&mut self, resource: &Node) -> String {
        let content = digest::digest(&digest::SHA256, &json::write(resource));
        let key: [u8; 32] = content.as_ref().try_into().unwrap_or_default();
        let count = self.seen.entry(key).or_default();
        *count += 1;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&key);
        if *count > 1 {
            context.update(&count.to_be_bytes());
        }
        crate::world::hex(&context.finish().as_ref()[..16])
    }
}

/// The id that a fullUrl gives a resource of this type.
fn named(full_url: &str, kind: &str) -> Option<String> {
    if let Some(uuid) = full_url.strip_prefix("urn:uuid:") {
        return legal(uuid).then(|| uuid.to_ascii_lowercase());
    }
    let (rest, id) = full_url.rsplit_once('/')?;
    (rest.ends_with(&format!("/{kind}")) && legal(id)).then(|| id.to_owned())
}

fn legal(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Sets the id right behind `resourceType` when it was absent.
fn set_id(resource: &mut Node, id: &str) {
    let Node::Object(members) = resource else { return };
    let id = Node::String(id.to_owned());
    if let Some(own) = members.get_mut("id") {
        *own = id;
        return;
    }
    let place = members.keys().position(|key| key == "resourceType").map_or(0, |at| at + 1);
    members.shift_insert(place, "id".to_owned(), id);
}

/// Makes references between the entries of a Bundle that is no transaction point to the addresses the entries get.
fn resolve(pieces: &mut [Piece]) -> Result<()> {
    let text = |node: &Node| node.as_str().map(str::to_owned);
    let mut addresses = Addresses::default();
    for (n, piece) in pieces.iter().enumerate() {
        if let (Some(full_url), Some(address)) = (text(&piece.entry["fullUrl"]), text(&piece.entry["request"]["url"])) {
            let content = &piece.entry["resource"];
            if !addresses.entries_of(&full_url).any(|other| pieces[other].entry["resource"] == *content) {
                addresses.add(&full_url, n, address);
            }
        }
    }
    for piece in pieces {
        let full_url = text(&piece.entry["fullUrl"]);
        addresses.rewrite(&mut piece.entry["resource"], full_url.as_deref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(documents: &[Node]) -> Vec<Unit> {
        let mut out = Vec::new();
        for document in documents {
            let origin = Origin::of("f");
            let mut units = Units::default();
            units.add(origin, Ok(document.clone()), &mut |unit| out.push(unit));
            units.finish(&mut |unit| out.push(unit));
        }
        out
    }

    fn addresses(unit: &Unit) -> Vec<String> {
        let pieces = match unit {
            Unit::Transaction { pieces, .. } | Unit::Group(pieces) => pieces,
            Unit::Fault { error, .. } => return vec![error.to_string()],
            Unit::Turn => return Vec::new(),
        };
        pieces
            .iter()
            .map(|piece| {
                format!(
                    "{} {}",
                    piece.entry["request"]["method"].as_str().unwrap(),
                    piece.entry["request"]["url"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn created_entries_get_the_same_address_each_time() {
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
            {"fullUrl": "urn:uuid:AB-1", "resource": {"resourceType": "Patient", "id": "own"}, "request": {"method": "POST", "url": "Patient"}},
            {"fullUrl": "http://x/fhir/Observation/o1", "resource": {"resourceType": "Observation"}, "request": {"method": "POST", "url": "Observation"}},
            {"resource": {"resourceType": "Group", "id": "g"}, "request": {"method": "POST", "url": "Group"}},
            {"resource": {"resourceType": "List", "mode": "working"}, "request": {"method": "POST", "url": "List"}},
            {"resource": {"resourceType": "List", "mode": "working"}, "request": {"method": "POST", "url": "List"}},
            {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient", "ifNoneExist": "a=b"}},
            {"request": {"method": "DELETE", "url": "Patient/9"}},
        ]});
        let first: Vec<Vec<String>> = units(std::slice::from_ref(&bundle)).iter().map(addresses).collect();
        let again: Vec<Vec<String>> = units(&[bundle]).iter().map(addresses).collect();
        assert_eq!(first, again);
        let all = &first[0];
        assert_eq!(all[..3], ["PUT Patient/ab-1", "PUT Observation/o1", "PUT Group/g"]);
        assert_eq!(all[5..], ["POST Patient", "DELETE Patient/9"]);
        assert!(all[3].starts_with("PUT List/") && all[3] != all[4], "{all:?}");
    }

    #[test]
    fn a_collection_keeps_its_ids_and_its_references_are_resolved() {
        let units = units(&[json!({"resourceType": "Bundle", "type": "collection", "entry": [
            {"fullUrl": "urn:uuid:1-1", "resource": {"resourceType": "Patient", "id": "p"}},
            {"fullUrl": "urn:uuid:1-2", "resource": {"resourceType": "Observation", "subject": {"reference": "urn:uuid:1-1"}}},
            {"fullUrl": "urn:uuid:1-3"},
        ]})]);
        assert!(matches!(&units[0], Unit::Fault { origin, .. } if origin.entry == Some(2)));
        assert_eq!(addresses(&units[1]), ["PUT Patient/p", "PUT Observation/1-2"]);
        let Unit::Group(pieces) = &units[1] else { panic!("a group") };
        assert_eq!(pieces[1].entry["resource"]["subject"]["reference"], "Patient/p");
        let text = pieces[1].entry["resource"].to_string();
        assert!(text.starts_with(r#"{"resourceType":"Observation","id":"1-2""#), "the id comes behind the type");
    }

    #[test]
    fn groups_are_bounded_and_never_hold_one_address_twice() {
        let mut origin = Origin::of("f");
        origin.line = Some(1);
        let mut out = Vec::new();
        let mut units = Units::default();
        let ids = (0..GROUP_ENTRIES_MAX + 1).chain([GROUP_ENTRIES_MAX]);
        for id in ids {
            units.add(origin.clone(), Ok(json!({"resourceType": "Patient", "id": format!("{id}")})), &mut |unit| {
                out.push(unit)
            });
        }
        units.finish(&mut |unit| out.push(unit));
        let sizes: Vec<usize> = out.iter().map(|unit| addresses(unit).len()).collect();
        assert_eq!(sizes, [GROUP_ENTRIES_MAX, 1, 1]);
    }

    #[test]
    fn what_is_no_resource_is_a_fault_and_a_bad_entry_spoils_its_transaction() {
        let list = units(&[
            json!({"a": 1}),
            json!({"resourceType": "Bundle", "type": "history"}),
            json!({"resourceType": "Bundle", "type": "transaction", "entry": [
                {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}, {"x": 1},
            ]}),
        ]);
        assert!(list[..2].iter().all(|unit| matches!(unit, Unit::Fault { .. })));
        assert!(matches!(&list[2], Unit::Transaction { pieces, .. } if pieces.len() == 2));
    }
}
