//! The plaintext of a search capsule: a compact, versioned binary form of [`Values`], readable without decoding all.
//!
//! ```text
//! u8 version, u8 flags (0: wide directory, 1: clinical surrogate follows, 2: links follow)
//! u16 type, varint version, i64 last updated (ms), [i64 clinical], digest (32), id, count + patients
//! [count + links: u16 type, id]
//! count + directory: per parameter, by number: u16 parameter, u16 or u32 end of its bytes in the body
//! body: per parameter a count and the values
//! ```
//! Numbers are little-endian; a text is a varint (twice its length; odd: its number in the table of known strings) and
//! its UTF-8.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::borrowed::{ReferenceRef, Types, ValueIter, ValueRef, put_values};
use super::mask::Mask;
use super::values::{Common, Header, Value, Values};
use super::wire::{Reader, broken, put_text, put_varint};
use crate::error::Result;
use crate::fhir::date::Range;
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};
use crate::vault::Pk;
use crate::world::Instant;

/// Version of the layout.
const VERSION: u8 = 1;
const WIDE: u8 = 1;
const CLINICAL: u8 = 2;
const LINKS: u8 = 4;

/// Bytes of a capsule (to be sealed).
pub fn encode(values: &Values) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    let mut ends = Vec::with_capacity(values.params.len());
    for (param, of) in &values.params {
        put_values(&mut body, of);
        ends.push((param.0, body.len() as u32));
    }
    let wide = body.len() > usize::from(u16::MAX);
    let header = &values.header;
    let mut out = Vec::with_capacity(body.len() + 128 + ends.len() * 6);
    out.push(VERSION);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let linked = !values.links.is_empty();
    out.push(flag(wide, WIDE) | flag(header.clinical.is_some(), CLINICAL) | flag(linked, LINKS));
    out.extend_from_slice(&header.kind.0.to_le_bytes());
    put_varint(&mut out, header.version.into());
    out.extend_from_slice(&header.last_updated.0.to_le_bytes());
    if let Some(pk) = header.clinical {
        out.extend_from_slice(&pk.0.to_le_bytes());
    }
    out.extend_from_slice(&header.digest);
    put_text(&mut out, &header.id);
    put_varint(&mut out, header.patients.len() as u64);
    header.patients.iter().for_each(|patient| put_text(&mut out, patient));
    if linked {
        put_varint(&mut out, values.links.len() as u64);
        for (kind, id) in &values.links {
            out.extend_from_slice(&kind.0.to_le_bytes());
            put_text(&mut out, id);
        }
    }
    put_varint(&mut out, ends.len() as u64);
    for (param, end) in ends {
        out.extend_from_slice(&param.to_le_bytes());
        match wide {
            true => out.extend_from_slice(&end.to_le_bytes()),
            false => out.extend_from_slice(&(end as u16).to_le_bytes()),
        }
    }
    out.extend_from_slice(&body);
    out
}

/// The parameters that hold the canonical url and the business version of a type that is referred to by them.
pub fn canonical_params(kind: TypeId) -> Option<(ParamId, Option<ParamId>)> {
    static KNOWN: LazyLock<HashMap<TypeId, (ParamId, Option<ParamId>)>> = LazyLock::new(|| {
        let all = definitions().types().iter().filter_map(|kind| {
            // Other types have a parameter `url` for something that is not their own (a Subscription's endpoint).
            let own = format!("{}.url", definitions().type_name(*kind));
            let url = definitions().param(*kind, "url").filter(|param| param.kind == ParamKind::Uri)?;
            let url = url.text(*kind).is_some_and(|text| text == own).then_some(url.id)?;
            Some((*kind, (url, definitions().param(*kind, "version").map(|param| param.id))))
        });
        all.collect()
    });
    KNOWN.get(&kind).copied()
}

/// An opened capsule; values are decoded parameter by parameter, when asked for.
#[derive(Clone, Copy)]
pub struct View<'a> {
    kind: TypeId,
    version: u32,
    last_updated: Instant,
    clinical: Option<Pk>,
    digest: [u8; 32],
    id: &'a str,
    patients: Reader<'a>,
    patient_count: usize,
    links: Reader<'a>,
    link_count: usize,
    directory: &'a [u8],
    /// Bytes of one directory entry: 4 or 6.
    stride: usize,
    body: &'a [u8],
    /// What may not be looked at.
    mask: Option<&'a Mask>,
}

impl<'a> View<'a> {
    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule.
    pub fn new(bytes: &'a [u8]) -> Result<View<'a>> {
        let mut bytes = Reader::new(bytes);
        let [version, flags] = bytes.array()?;
        if version != VERSION || flags & !(WIDE | CLINICAL | LINKS) != 0 {
            return Err(broken());
        }
        let kind = TypeId(u16::from_le_bytes(bytes.array()?));
        let version = u32::try_from(bytes.varint()?).map_err(|_| broken())?;
        let last_updated = Instant(i64::from_le_bytes(bytes.array()?));
        let clinical = match flags & CLINICAL {
            0 => None,
            _ => Some(Pk(i64::from_le_bytes(bytes.array()?))),
        };
        let digest = bytes.array()?;
        let id = bytes.text()?;
        let patient_count = bytes.count()?;
        let patients = bytes;
        for _ in 0..patient_count {
            bytes.text()?;
        }
        let link_count = if flags & LINKS == 0 { 0 } else { bytes.count()? };
        let links = bytes;
        for _ in 0..link_count {
            bytes.array::<2>()?;
            bytes.text()?;
        }
        let stride = if flags & WIDE == 0 { 4 } else { 6 };
        let entries = bytes.count()?;
        let directory = bytes.take(entries.checked_mul(stride).ok_or_else(broken)?)?;
        let body = bytes.rest();
        let mask = None;
        Ok(View {
            kind,
            version,
            last_updated,
            clinical,
            digest,
            id,
            patients,
            patient_count,
            links,
            link_count,
            directory,
            stride,
            body,
            mask,
        })
    }

    /// The same capsule, of which closed values cannot be seen. (Who decodes it all, by [`View::to_values`], sees them.)
    pub fn masked<'b>(&self, mask: &'b Mask) -> View<'b>
    where
        'a: 'b,
    {
        View { mask: Some(mask), ..*self }
    }

    pub fn kind(&self) -> TypeId {
        self.kind
    }

    /// The logical id, borrowed.
    pub fn id(&self) -> &'a str {
        self.id
    }

    pub fn last_updated(&self) -> Instant {
        self.last_updated
    }

    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule.
    pub fn header(&self) -> Result<Header> {
        let mut patients = self.patients;
        Ok(Header {
            kind: self.kind,
            id: self.id.into(),
            version: self.version,
            last_updated: self.last_updated,
            patients: (0..self.patient_count).map(|_| patients.text().map(String::from)).collect::<Result<_>>()?,
            clinical: self.clinical,
            digest: self.digest,
        })
    }

    /// The logical ids of the patients it belongs to, borrowed.
    ///
    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule.
    pub fn patients(&self) -> Result<Vec<&'a str>> {
        let mut patients = self.patients;
        (0..self.patient_count).map(|_| patients.text()).collect()
    }

    fn entries(&self) -> usize {
        self.directory.len() / self.stride
    }

    /// Parameter and end of its bytes of one directory entry.
    fn entry(&self, at: usize) -> Result<(ParamId, usize)> {
        let mut bytes = Reader::new(self.directory.get(at * self.stride..).ok_or_else(broken)?);
        let param = ParamId(u16::from_le_bytes(bytes.array()?));
        let end = match self.stride {
            4 => usize::from(u16::from_le_bytes(bytes.array()?)),
            _ => u32::from_le_bytes(bytes.array()?) as usize,
        };
        Ok((param, end))
    }

    fn stored(&self, at: usize) -> Result<ValueIter<'a>> {
        let start = if at == 0 { 0 } else { self.entry(at - 1)?.1 };
        let end = self.entry(at)?.1;
        ValueIter::new(self.body.get(start..end).ok_or_else(broken)?, false)
    }

    fn find(&self, param: ParamId) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, self.entries());
        while low < high {
            let middle = low.midpoint(high);
            match self.entry(middle)?.0.cmp(&param) {
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The values of a parameter, borrowed, `_id` and `_lastUpdated` included.
    ///
    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule (also of each item).
    pub fn values(&self, param: ParamId) -> Result<impl Iterator<Item = Result<ValueRef<'a>>> + use<'a>> {
        let common = Common::get();
        let from_header = if param == common.id {
            Some(ValueRef::Identifier { system: None, value: Some(self.id), text: None, types: Types::NONE })
        } else if param == common.last_updated {
            Some(ValueRef::Date(Range { lo: self.last_updated.0, hi: self.last_updated.0 }))
        } else {
            None
        };
        let stored = match from_header {
            Some(_) => None,
            None => self.find(param)?,
        };
        let stored = stored.map_or_else(|| Ok(ValueIter::none()), |at| self.stored(at))?;
        let mask = self.mask;
        let open = stored.filter_map(move |value| match (mask, value) {
            (Some(mask), Ok(value)) => mask.hides(param, &value).map(|hidden| (!hidden).then_some(value)).transpose(),
            (_, value) => Some(value),
        });
        Ok(from_header.into_iter().map(Ok).chain(open))
    }

    /// [`View::values`], owned.
    pub fn param(&self, id: ParamId) -> Result<Vec<Value>> {
        self.values(id)?.map(|value| value?.to_value()).collect()
    }

    /// The resources on this server that one parameter refers to, or (None) any reference parameter; distinct.
    pub fn references(&self, param: Option<ParamId>) -> Result<Vec<(TypeId, String)>> {
        let mut found = Vec::new();
        let mut collect = |values: &mut dyn Iterator<Item = Result<ValueRef<'a>>>| -> Result<()> {
            for value in values {
                if let ValueRef::Reference { to: Some(ReferenceRef::Local { kind, id, .. }), .. } = value?
                    && !found.iter().any(|(of, known): &(TypeId, String)| *of == kind && known == id)
                {
                    found.push((kind, id.into()));
                }
            }
            Ok(())
        };
        match param {
            Some(param) => collect(&mut self.values(param)?)?,
            None => (0..self.entries()).try_for_each(|at| collect(&mut self.values(self.entry(at)?.0)?))?,
        }
        Ok(found)
    }

    /// The canonical url of the resource, without and with its version; empty where the type has none.
    pub fn canonicals(&self) -> Result<Vec<String>> {
        let Some((url, version)) = canonical_params(self.kind) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for value in self.values(url)? {
            if let ValueRef::Uri(url) = value? {
                found.push(url.to_owned());
            }
        }
        let Some(version) = version else { return Ok(found) };
        for value in self.values(version)? {
            if let ValueRef::Token { code: Some(version), .. } = value? {
                let versioned: Vec<String> = found.iter().map(|url| format!("{url}|{version}")).collect();
                found.extend(versioned);
                break;
            }
        }
        Ok(found)
    }

    /// What a reference can name the resource by: its logical id, and its canonical url with and without version.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = self.canonicals()?;
        names.push(self.id.to_owned());
        Ok(names)
    }

    /// The names of the resources of a type that a parameter refers to.
    pub fn named(&self, param: ParamId, of: TypeId) -> Result<Vec<String>> {
        let by_url = canonical_params(of).is_some();
        let mut found = Vec::new();
        for value in self.values(param)? {
            match value? {
                ValueRef::Reference { to: Some(ReferenceRef::Local { kind, id, .. }), .. } if kind == of => {
                    found.push(id.to_owned());
                }
                ValueRef::Reference { to: Some(ReferenceRef::Absolute(url)), .. } if by_url => {
                    found.push(url.to_owned());
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// All of it, decoded.
    ///
    /// # Errors
    /// `Kind::Tampered` when the bytes are no capsule.
    pub fn to_values(&self) -> Result<Values> {
        let mut params = BTreeMap::new();
        for at in 0..self.entries() {
            let values = self.stored(at)?.map(|value| value?.to_value()).collect::<Result<_>>()?;
            params.insert(self.entry(at)?.0, values);
        }
        let mut links = self.links;
        let link = |_| Ok((TypeId(u16::from_le_bytes(links.array()?)), links.text()?.to_owned()));
        let links = (0..self.link_count).map(link).collect::<Result<_>>()?;
        Ok(Values { header: self.header()?, params, links })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::fhir::reference::Reference;
    use crate::search::values::Coding;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["\\PC{0,12}", Just("http://loinc.org".to_owned()), Just(String::new())]
    }

    fn coding() -> impl Strategy<Value = Coding> {
        (option::of(text()), option::of(text()))
    }

    fn reference() -> impl Strategy<Value = Reference> {
        prop_oneof![
            (any::<u16>(), text(), option::of(text())).prop_map(|(kind, id, version)| Reference::Local {
                kind: TypeId(kind),
                id,
                version
            }),
            text().prop_map(|url| Reference::Absolute { url }),
            text().prop_map(Reference::Fragment),
            text().prop_map(Reference::Urn),
            (any::<u16>(), text()).prop_map(|(kind, query)| Reference::Conditional { kind: TypeId(kind), query }),
            text().prop_map(Reference::Other),
        ]
    }

    fn moment() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), 0..2_000_000_000_000i64]
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>().prop_filter("a number", |number| !number.is_nan()), Just(f64::INFINITY), Just(5.4)]
    }

    fn simple() -> impl Strategy<Value = Value> {
        prop_oneof![
            (option::of(text()), option::of(text()), option::of(text()))
                .prop_map(|(system, code, text)| Value::Token { system, code, text }),
            (option::of(text()), option::of(text()), option::of(text()), vec(coding(), 0..3))
                .prop_map(|(system, value, text, types)| Value::Identifier { system, value, text, types }),
            text().prop_map(Value::Text),
            (moment(), moment()).prop_map(|(lo, hi)| Value::Date(Range { lo, hi })),
            (number(), number()).prop_map(|(lo, hi)| Value::Number { lo, hi }),
            (number(), number(), option::of(text()), option::of(text()), option::of(text()))
                .prop_map(|(lo, hi, system, code, unit)| Value::Quantity { lo, hi, system, code, unit }),
            (option::of(reference()), option::of(coding()))
                .prop_map(|(to, identifier)| Value::Reference { to, identifier }),
            text().prop_map(Value::Uri),
        ]
    }

    fn any_values() -> impl Strategy<Value = Values> {
        let value = prop_oneof![4 => simple(), 1 => vec(vec(simple(), 0..3), 0..3).prop_map(Value::Composite)];
        let params = btree_map(any::<u16>().prop_map(ParamId), vec(value, 0..4), 0..12);
        let header = (any::<u16>(), text(), any::<u32>(), any::<i64>(), vec(text(), 0..3), option::of(any::<i64>()));
        let links = vec((any::<u16>().prop_map(TypeId), text()), 0..3);
        let all = (header, any::<[u8; 32]>(), params, links);
        all.prop_map(|((kind, id, version, at, patients, clinical), digest, params, links)| {
            let clinical = clinical.map(Pk);
            let last_updated = Instant(at);
            Values {
                header: Header { kind: TypeId(kind), id, version, last_updated, patients, clinical, digest },
                params,
                links,
            }
        })
    }

    /// Reads everything there is; only the absence of a panic counts.
    fn read_all(bytes: &[u8]) {
        let Ok(view) = View::new(bytes) else { return };
        let _ = (view.header(), view.to_values(), view.references(None));
        for param in (0..40).map(ParamId) {
            let _ = view.param(param);
        }
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(values in any_values()) {
            let bytes = encode(&values);
            let view = View::new(&bytes).expect("a capsule");
            prop_assert!(view.to_values().expect("decodes") == values);
            for (param, of) in &values.params {
                let synthetic = [Common::get().id, Common::get().last_updated].contains(param);
                prop_assert!(synthetic || view.param(*param).expect("decodes") == *of);
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn altered_capsules_do_not_panic(values in any_values(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
            let mut bytes = encode(&values);
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            read_all(&bytes);
            read_all(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn large_capsules_have_a_wide_directory() {
        let header = Header {
            kind: TypeId(1),
            id: "x".into(),
            version: 1,
            last_updated: Instant(0),
            patients: Vec::new(),
            clinical: None,
            digest: [0; 32],
        };
        let long = Value::Text("a".repeat(70_000));
        let params = BTreeMap::from([(ParamId(5), vec![long]), (ParamId(6), vec![Value::Uri("b".into())])]);
        let values = Values { header, params, links: Vec::new() };
        let bytes = encode(&values);
        assert!(View::new(&bytes).expect("a capsule").to_values().expect("decodes") == values);
    }
}
