//! A resource in parts by sensitivity. [`split`] takes a resource apart as its mapping says; [`join`] puts the parts
//! together byte for byte, without parsing, or leaves out what the caller may not see.
//!
//! A part of a resource that is not split is its JSON. Otherwise the first part is the frame:
//!
//! ```text
//! 0x01, then pieces until the end:
//! 'T' u32 bytes     members of the resource, comma-separated, as they are
//! 'M' section       here comes a member that lies in that section
//! 'A' u32 bytes     an array begins: `"identifier":[`
//! 'I' u32 bytes     items of it, comma-separated, as they are
//! 'H' section       here comes an item that lies in that section
//! 'E'               the array ends
//! ```
//! and every other part holds what its section owes the frame, in order, each as `u32 bytes`. Numbers are big-endian.
//! The frame says where everything was, so a later change of the mappings cannot misread what is stored.

use std::collections::BTreeMap;

use serde_json::Value;
use zeroize::Zeroizing;

use super::{Element, Items, Mapping, Section, mapping};
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::fhir::json::{self, Node};

const FRAME: u8 = 1;
/// Says that a resource is not complete (R4, security labels).
const SUBSETTED_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
const SUBSETTED_CODE: &str = "SUBSETTED";

type Bytes = Zeroizing<Vec<u8>>;

impl Mapping {
    /// Section of a whole member.
    fn of_member(&self, name: &str) -> Section {
        // `_birthDate` goes with `birthDate`, `deceasedDateTime` with `deceased`.
        let name = name.strip_prefix('_').unwrap_or(name);
        let all = self.elements.iter().filter(|element| element.items.is_none());
        let fits = |element: &&Element| match name.strip_prefix(element.name.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_uppercase()) && !self.names(name),
            None => false,
        };
        all.filter(fits).map(|element| element.section).next().unwrap_or(self.section)
    }

    /// Whether an element has exactly this name: `contactPoint` is no choice of `contact` then.
    fn names(&self, name: &str) -> bool {
        self.elements.iter().any(|element| element.name == name)
    }

    /// Rules for single items of a member.
    fn of_items(&self, name: &str) -> Vec<(&Items, Section)> {
        let rules = self.elements.iter().filter(|element| element.name == name);
        rules.filter_map(|element| element.items.as_ref().map(|items| (items, element.section))).collect()
    }

    /// Whether any part of a resource of this type may lie outside the base section.
    pub fn in_parts(&self) -> bool {
        self.elements.iter().any(|element| element.section != self.section)
    }
}

impl Items {
    fn picks(&self, item: &Node) -> bool {
        let system = item.get("system").and_then(Node::as_str).unwrap_or_default();
        let by_system = self.systems.iter().any(|known| match known.strip_suffix('*') {
            Some(prefix) => system.starts_with(prefix),
            None => system == known,
        });
        // Whatever the system of the type: to hide a number that is none of these is the lesser fault.
        let codings = item.get("type").and_then(|kind| kind.get("coding")).and_then(Node::as_array);
        let mut codes = codings.into_iter().flatten().filter_map(|coding| coding.get("code")?.as_str());
        by_system || codes.any(|code| self.codes.iter().any(|known| known == code))
    }
}

/// The resource in its sections: the base section first, the others by number; one part, its JSON as it is, when all
/// of it lies in one section.
pub fn split(kind: TypeId, resource: &Node) -> Vec<(Section, Bytes)> {
    let mapping = mapping(kind);
    let mut parts = Parts { frame: Zeroizing::new(vec![FRAME]), text: Bytes::default(), owed: BTreeMap::new() };
    if mapping.in_parts()
        && let Value::Object(members) = resource
    {
        for (name, value) in members {
            parts.member(mapping, name, value);
        }
    }
    if parts.owed.is_empty() {
        return vec![(mapping.section, Zeroizing::new(json::write(resource)))];
    }
    parts.flush(b'T');
    std::iter::once((mapping.section, parts.frame)).chain(parts.owed).collect()
}

/// The parts while they grow.
struct Parts {
    frame: Bytes,
    /// Members or items that stay in the base, not yet written to the frame.
    text: Bytes,
    owed: BTreeMap<Section, Bytes>,
}

impl Parts {
    fn member(&mut self, mapping: &Mapping, name: &str, value: &Node) {
        let rules = mapping.of_items(name);
        let all = mapping.of_member(name);
        match value {
            Value::Array(items) if items.iter().any(|item| rules.iter().any(|(rule, _)| rule.picks(item))) => {
                self.flush(b'T');
                let mut head = named(name);
                head.push(b'[');
                piece(&mut self.frame, b'A', &head);
                for item in items {
                    let section = rules.iter().find(|(rule, _)| rule.picks(item)).map_or(all, |(_, section)| *section);
                    let text = Zeroizing::new(json::write(item));
                    self.put(mapping, section, &text, (b'I', b'H'));
                }
                self.flush(b'I');
                self.frame.push(b'E');
            }
            _ => {
                let mut text = named(name);
                text.extend_from_slice(&Zeroizing::new(json::write(value)));
                self.put(mapping, all, &text, (b'T', b'M'));
            }
        }
    }

    /// Puts a member or item where its section wants it: `tags` are those of what stays and of what is owed.
    fn put(&mut self, mapping: &Mapping, section: Section, text: &[u8], tags: (u8, u8)) {
        if section == mapping.section {
            if !self.text.is_empty() {
                self.text.push(b',');
            }
            self.text.extend_from_slice(text);
        } else {
            self.flush(tags.0);
            self.frame.extend_from_slice(&[tags.1, section as u8]);
            sized(self.owed.entry(section).or_default(), text);
        }
    }

    fn flush(&mut self, tag: u8) {
        if !self.text.is_empty() {
            piece(&mut self.frame, tag, &self.text);
            self.text = Bytes::default();
        }
    }
}

/// `"name":`
fn named(name: &str) -> Bytes {
    let mut text = Zeroizing::new(json::write(&Value::String(name.to_owned())));
    text.push(b':');
    text
}

fn piece(into: &mut Vec<u8>, tag: u8, text: &[u8]) {
    into.push(tag);
    sized(into, text);
}

fn sized(into: &mut Vec<u8>, text: &[u8]) {
    // A resource is far below 4 GiB (vault::PLAIN_MAX); the reader checks every length against what is there.
    into.extend_from_slice(&(text.len() as u32).to_be_bytes());
    into.extend_from_slice(text);
}

/// Puts the opened parts of a resource together. `parts` holds the base section first; `missing` says that a section
/// was not opened: what it owes is left out and the resource carries the SUBSETTED tag.
///
/// # Errors
/// `Kind::Forbidden` without the base section, `Kind::Tampered` when the parts do not fit each other.
pub fn join(mut parts: Vec<(Section, Bytes)>, missing: bool) -> Result<Bytes> {
    let whole = match parts.as_slice() {
        [] => return Err(Error::new(Kind::Forbidden, "You may see no part of this resource.")),
        [(_, one)] if one.first() == Some(&b'{') => parts.remove(0).1,
        [(_, frame), owed @ ..] if frame.first() == Some(&FRAME) => {
            assemble(&frame[1..], owed, missing).ok_or_else(|| Error::tampered("sections"))?
        }
        // The base came not first: it was not opened.
        _ if missing => return Err(Error::new(Kind::Forbidden, "You may see no part of this resource.")),
        _ => return Err(Error::tampered("sections")),
    };
    if missing { tag_subsetted(&whole) } else { Ok(whole) }
}

/// Reads sized texts one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let (size, rest) = self.0.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*size) as usize)?;
        self.0 = rest;
        Some(text)
    }
}

/// Text with commas where they belong.
struct Joined {
    out: Bytes,
    /// Whether something stands before, in the object and in the array that is open.
    members: bool,
    items: bool,
    /// Head of an array of which no item has come yet.
    head: Option<Vec<u8>>,
}

impl Joined {
    fn member(&mut self, text: &[u8]) {
        if std::mem::replace(&mut self.members, true) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(text);
    }

    fn item(&mut self, text: &[u8]) {
        if let Some(head) = self.head.take() {
            self.member(&head);
            self.items = false;
        }
        if std::mem::replace(&mut self.items, true) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(text);
    }
}

/// None when the parts do not fit: something owed is not there (unless sections are `missing`), or is left over.
fn assemble(frame: &[u8], owed: &[(Section, Bytes)], missing: bool) -> Option<Bytes> {
    let size = frame.len() + owed.iter().map(|(_, part)| part.len()).sum::<usize>() + 2;
    let mut joined = Joined { out: Zeroizing::new(Vec::with_capacity(size)), members: false, items: false, head: None };
    let mut owed: Vec<(u8, Reader<'_>)> = owed.iter().map(|(of, part)| (*of as u8, Reader(part))).collect();
    let mut frame = Reader(frame);
    let mut open = false;
    joined.out.push(b'{');
    while let Some(tag) = frame.byte() {
        match tag {
            b'T' if !open => joined.member(frame.text()?),
            b'I' if open => joined.item(frame.text()?),
            b'M' | b'H' if open == (tag == b'H') => {
                let section = frame.byte()?;
                match owed.iter_mut().find(|(of, _)| *of == section) {
                    Some((_, part)) if open => joined.item(part.text()?),
                    Some((_, part)) => joined.member(part.text()?),
                    None if missing => {}
                    None => return None,
                }
            }
            b'A' if !open => {
                joined.head = Some(frame.text()?.to_vec());
                open = true;
            }
            b'E' if open => {
                // An array of which every item was left out is left out itself: FHIR has no empty arrays.
                if joined.head.take().is_none() {
                    joined.out.push(b']');
                }
                open = false;
            }
            _ => return None,
        }
    }
    joined.out.push(b'}');
    (!open && owed.iter().all(|(_, rest)| rest.0.is_empty())).then_some(joined.out)
}

/// Adds the SUBSETTED tag to `meta.tag`.
fn tag_subsetted(whole: &[u8]) -> Result<Bytes> {
    let mut resource = json::parse(whole)?;
    let members = resource.as_object_mut().ok_or_else(|| Error::tampered("sections"))?;
    let meta = members.entry("meta").or_insert_with(|| Value::Object(Default::default()));
    let meta = meta.as_object_mut().ok_or_else(|| Error::tampered("sections"))?;
    let tags = meta.entry("tag").or_insert_with(|| Value::Array(Vec::new()));
    let tags = tags.as_array_mut().ok_or_else(|| Error::tampered("sections"))?;
    let is_subsetted = |tag: &Node| {
        tag.get("system").and_then(Node::as_str) == Some(SUBSETTED_SYSTEM)
            && tag.get("code").and_then(Node::as_str) == Some(SUBSETTED_CODE)
    };
    if !tags.iter().any(is_subsetted) {
        tags.push(serde_json::json!({ "system": SUBSETTED_SYSTEM, "code": SUBSETTED_CODE }));
    }
    Ok(Zeroizing::new(json::write(&resource)))
}
