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
    pub fn of_member(&self, name: &str) -> Section {
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
        let codings = item.get("type").and_then(|kind| kind.get("coding")).and_then(Node::as_array);
        self.pick(system, codings.into_iter().flatten().filter_map(|coding| coding.get("code")?.as_str()))
    }

    /// Whether the rule takes an item of this system and these type codes.
    pub fn pick<'a>(&self, system: &str, mut codes: impl Iterator<Item = &'a str>) -> bool {
        let by_system = self.systems.iter().any(|known| match known.strip_suffix('*') {
            Some(prefix) => system.starts_with(prefix),
            None => system == known,
        });
        // Whatever the system of the type: to hide a number that is none of these is the lesser fault.
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

/// The resource without the parts that lie in sections that are not open, as [`join`] would give it.
///
/// # Errors
/// As [`join`].
pub fn cut(kind: TypeId, resource: &Node, open: impl Fn(Section) -> bool) -> Result<Node> {
    let mut parts = split(kind, resource);
    let all = parts.len();
    parts.retain(|(section, _)| open(*section));
    let missing = parts.len() < all;
    json::parse(&join(parts, missing)?)
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::fhir::definitions;

    fn kind(name: &str) -> TypeId {
        definitions().type_id(name).expect("a type")
    }

    fn copy(parts: &[(Section, Bytes)]) -> Vec<(Section, Bytes)> {
        parts.to_vec()
    }

    fn patient() -> Node {
        json!({
            "resourceType": "Patient", "id": "p1",
            "meta": { "versionId": "1" },
            "text": { "status": "generated", "div": "<div>Ann of 12 Elm Street, 999-11-2222</div>" },
            "identifier": [
                { "type": { "coding": [{ "code": "MR" }] }, "system": "urn:h", "value": "MRN1" },
                { "type": { "coding": [{ "code": "SS" }] }, "value": "999-11-2222" },
                { "system": "urn:oid:2.16.840.1.113883.4.3.25", "value": "S99" },
                { "type": { "coding": [{ "code": "MB" }] }, "value": "W123" },
                { "value": "plain" },
            ],
            "name": [{ "family": "Ann", "given": ["A", null], "_given": [null, { "id": "x" }] }],
            "telecom": [{ "system": "phone", "value": "555-0100" }],
            "gender": "female", "_gender": { "extension": [{ "url": "u", "valueString": "s" }] },
            "birthDate": "1970-01-01",
            "deceasedBoolean": false,
            "address": [{ "line": ["12 Elm Street"] }],
            "contact": [{ "name": { "family": "Bob" } }],
        })
    }

    #[test]
    fn a_patient_is_sealed_in_the_parts_the_mapping_says() {
        let parts = split(kind("Patient"), &patient());
        let sections: Vec<Section> = parts.iter().map(|(section, _)| *section).collect();
        assert_eq!(
            sections,
            [Section::Identity, Section::Contact, Section::GovernmentId, Section::Insurance, Section::Narrative]
        );
        let text = |section: Section| {
            let (_, bytes) = parts.iter().find(|(of, _)| *of == section).unwrap();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let holds: &[(Section, &[&str])] = &[
            (Section::Identity, &["MRN1", "plain", "Ann", "female", "1970-01-01", "_gender"]),
            (Section::Contact, &["555-0100", "Elm Street", "Bob"]),
            (Section::GovernmentId, &["999-11-2222", "S99"]),
            (Section::Insurance, &["W123"]),
            (Section::Narrative, &["Ann of 12 Elm Street"]),
        ];
        for (section, words) in holds {
            for word in *words {
                assert!(text(*section).contains(word), "{word} in {section:?}");
                let elsewhere = sections.iter().filter(|of| *of != section && **of != Section::Narrative);
                for other in elsewhere.filter(|_| *section != Section::Narrative) {
                    assert!(!text(*other).contains(word), "{word} not in {other:?}");
                }
            }
        }
        assert_eq!(**join(copy(&parts), false).unwrap(), *json::write(&patient()));
    }

    #[test]
    fn what_the_caller_may_not_see_is_left_out_and_said() {
        let mut parts = split(kind("Patient"), &patient());
        parts.retain(|(section, _)| [Section::Identity, Section::Insurance].contains(section));
        let seen = json::parse(&join(parts, true).unwrap()).unwrap();
        let mut expected = patient();
        for gone in ["text", "telecom", "address", "contact"] {
            expected.as_object_mut().unwrap().shift_remove(gone);
        }
        let identifiers = expected["identifier"].as_array_mut().unwrap();
        identifiers.retain(|identifier| ["MRN1", "W123", "plain"].contains(&identifier["value"].as_str().unwrap()));
        expected["meta"]["tag"] = json!([{ "system": SUBSETTED_SYSTEM, "code": SUBSETTED_CODE }]);
        assert_eq!(json::write(&seen), json::write(&expected));
    }

    #[test]
    fn an_array_of_which_nothing_is_left_is_left_out() {
        let only = json!({ "resourceType": "Patient", "identifier": [{ "type": { "coding": [{ "code": "SS" }] }, "value": "9" }], "active": true });
        let mut parts = split(kind("Patient"), &only);
        parts.truncate(1);
        let seen = json::parse(&join(parts, true).unwrap()).unwrap();
        assert_eq!(seen["active"], json!(true));
        assert!(seen.get("identifier").is_none());
    }

    #[test]
    fn types_of_one_section_pass_as_they_are() {
        let observation =
            json!({ "resourceType": "Observation", "text": { "div": "<div/>" }, "valueQuantity": { "value": 1 } });
        let parts = split(kind("Observation"), &observation);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].0, &**parts[0].1), (Section::Clinical, &*json::write(&observation)));
        assert_eq!(**join(parts, false).unwrap(), *json::write(&observation));
        // And a Patient without anything that lies elsewhere.
        assert_eq!(split(kind("Patient"), &json!({ "resourceType": "Patient", "active": true })).len(), 1);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let parts = split(kind("Patient"), &patient());
        let kind_of = |parts, missing| join(parts, missing).err().map(|error: Error| error.kind);
        assert_eq!(kind_of(Vec::new(), true), Some(Kind::Forbidden));
        assert_eq!(kind_of(parts[1..].to_vec(), true), Some(Kind::Forbidden), "the base is not there");
        assert_eq!(kind_of(parts[..4].to_vec(), false), Some(Kind::Tampered), "a section is not there");
        let mut doubled = copy(&parts);
        let more = doubled[1].1.clone();
        doubled[1].1.extend_from_slice(&more);
        assert_eq!(kind_of(doubled, false), Some(Kind::Tampered), "something is left over");
        for cut in 1..parts[0].1.len() {
            let mut short = copy(&parts);
            short[0].1.truncate(cut);
            assert_eq!(kind_of(short, false), Some(Kind::Tampered), "frame cut at {cut}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mapping = mapping(kind("Patient"));
        let cases = [
            ("telecom", Section::Contact),
            ("_telecom", Section::Contact),
            ("contact", Section::Contact),
            ("communication", Section::Identity),
            ("text", Section::Narrative),
            ("deceasedDateTime", Section::Identity),
            ("addressee", Section::Identity),
        ];
        for (name, section) in cases {
            assert_eq!(mapping.of_member(name), section, "{name}");
        }
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            Just(Node::Null),
            any::<bool>().prop_map(Node::Bool),
            any::<i32>().prop_map(|n| json!(n)),
            prop_oneof![Just("1.00"), Just("1e-10"), Just("-0.0")].prop_map(|n| serde_json::from_str(n).unwrap()),
            "\\PC{0,8}".prop_map(Node::String),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Node::Array),
                vec(("\\PC{0,5}", inner), 0..4).prop_map(|members| Node::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_identifier() -> impl Strategy<Value = Node> {
        let code = prop::sample::select(vec!["MR", "SS", "DL", "MB", "XX"]);
        let system = prop::sample::select(vec!["urn:a", "http://hl7.org/fhir/sid/us-ssn"]);
        prop_oneof![
            4 => (code, system, "[a-z]{0,6}").prop_map(|(code, system, value)| {
                json!({ "type": { "coding": [{ "code": code }] }, "system": system, "value": value })
            }),
            1 => any_node(),
        ]
    }

    fn any_patient() -> impl Strategy<Value = Node> {
        let names = vec![
            "resourceType",
            "id",
            "meta",
            "text",
            "contained",
            "extension",
            "active",
            "name",
            "telecom",
            "_birthDate",
            "birthDate",
            "address",
            "contact",
            "photo",
            "link",
            "strange \"name\"",
            "",
        ];
        let member = prop_oneof![
            3 => (prop::sample::select(names), any_node()).prop_map(|(name, value)| (name.to_owned(), value)),
            1 => vec(any_identifier(), 0..6).prop_map(|all| ("identifier".to_owned(), Node::Array(all))),
        ];
        vec(member, 0..12).prop_map(|members| Node::Object(members.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn join_undoes_split_byte_for_byte(patient in any_patient()) {
            let parts = split(kind("Patient"), &patient);
            prop_assert_eq!(&**join(parts, false).unwrap(), &*json::write(&patient));
        }

        #[test]
        fn any_choice_of_sections_is_a_resource_without_the_others(patient in any_patient(), allowed in 0u8..32) {
            let mut parts = split(kind("Patient"), &patient);
            let all = parts.len();
            let mut place = 0;
            parts.retain(|_| { place += 1; place == 1 || allowed & (1 << (place - 2)) != 0 });
            let missing = parts.len() < all;
            if let Ok(seen) = join(parts, missing) {
                let seen = json::parse(&seen);
                prop_assert!(seen.is_ok());
                prop_assert_eq!(seen.unwrap()["meta"]["tag"].is_array(), missing || patient["meta"]["tag"].is_array());
            }
        }

        #[test]
        fn frames_of_anything_do_not_panic(frame in vec(any::<u8>(), 0..80), part in vec(any::<u8>(), 0..40)) {
            let mut whole = vec![FRAME];
            whole.extend(frame);
            let _ = join(vec![(Section::Identity, Zeroizing::new(whole)), (Section::Contact, Zeroizing::new(part))], false);
        }
    }
}
