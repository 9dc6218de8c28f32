//! Values as they lie in a capsule: borrowed, decoded one at a time, without allocation.

use super::values::{Coding, Value};
use super::wire::{Reader, broken, put_text, put_varint};
use crate::error::Result;
use crate::fhir::TypeId;
use crate::fhir::date::Range;
use crate::fhir::reference::Reference;

/// A system and a code, borrowed.
pub type CodingRef<'a> = (Option<&'a str>, Option<&'a str>);

/// [`Value`], borrowed.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    Token { system: Option<&'a str>, code: Option<&'a str>, text: Option<&'a str> },
    Identifier { system: Option<&'a str>, value: Option<&'a str>, text: Option<&'a str>, types: Types<'a> },
    Text(&'a str),
    Date(Range),
    Number { lo: f64, hi: f64 },
    Quantity { lo: f64, hi: f64, system: Option<&'a str>, code: Option<&'a str>, unit: Option<&'a str> },
    Reference { to: Option<ReferenceRef<'a>>, identifier: Option<CodingRef<'a>> },
    Uri(&'a str),
    Composite(Group<'a>),
}

/// [`Reference`], borrowed.
#[derive(Clone, Copy)]
pub enum ReferenceRef<'a> {
    Local { kind: TypeId, id: &'a str, version: Option<&'a str> },
    Absolute(&'a str),
    Fragment(&'a str),
    Urn(&'a str),
    Conditional { kind: TypeId, query: &'a str },
    Other(&'a str),
}

/// Type codings of an identifier.
#[derive(Clone, Copy)]
pub struct Types<'a> {
    count: usize,
    bytes: Reader<'a>,
}

impl<'a> Types<'a> {
    pub const NONE: Types<'static> = Types { count: 0, bytes: Reader::EMPTY };

    pub fn iter(&self) -> impl Iterator<Item = Result<CodingRef<'a>>> + use<'a> {
        let Types { count, mut bytes } = *self;
        (0..count).map(move |_| coding(&mut bytes))
    }
}

/// The components of one composite value.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    count: usize,
    bytes: Reader<'a>,
}

impl<'a> Group<'a> {
    /// The values of each component, in the order of the definition.
    pub fn components(&self) -> impl Iterator<Item = Result<ValueIter<'a>>> + use<'a> {
        let Group { count, mut bytes } = *self;
        (0..count).map(move |_| {
            let length = bytes.count()?;
            ValueIter::new(bytes.take(length)?, true)
        })
    }
}

/// Values one after the other.
pub struct ValueIter<'a> {
    left: usize,
    bytes: Reader<'a>,
    /// Inside a composite: there is none within.
    nested: bool,
}

impl<'a> ValueIter<'a> {
    /// Bytes: a count, then the values.
    pub(super) fn new(bytes: &'a [u8], nested: bool) -> Result<Self> {
        let mut bytes = Reader::new(bytes);
        Ok(ValueIter { left: bytes.count()?, bytes, nested })
    }

    pub(super) fn none() -> Self {
        ValueIter { left: 0, bytes: Reader::EMPTY, nested: false }
    }
}

impl<'a> Iterator for ValueIter<'a> {
    type Item = Result<ValueRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = value(&mut self.bytes, self.nested);
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}

const TOKEN: u8 = 0;
const IDENTIFIER: u8 = 1;
const TEXT: u8 = 2;
const DATE: u8 = 3;
const NUMBER: u8 = 4;
const QUANTITY: u8 = 5;
const REFERENCE: u8 = 6;
const URI: u8 = 7;
const COMPOSITE: u8 = 8;

const LOCAL: u8 = 0;
const ABSOLUTE: u8 = 1;
const FRAGMENT: u8 = 2;
const URN: u8 = 3;
const CONDITIONAL: u8 = 4;
const OTHER: u8 = 5;

/// The flags of a tag byte are its four upper bits.
fn tag(kind: u8, flags: [bool; 4]) -> u8 {
    flags.iter().enumerate().fold(kind, |tag, (bit, set)| tag | u8::from(*set) << (4 + bit))
}

/// Appends a count and the values.
pub(super) fn put_values(out: &mut Vec<u8>, values: &[Value]) {
    put_varint(out, values.len() as u64);
    for value in values {
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Token { system, code, text } => {
            out.push(tag(TOKEN, [system.is_some(), code.is_some(), text.is_some(), false]));
            put_texts(out, [system, code, text]);
        }
        Value::Identifier { system, value, text, types } => {
            out.push(tag(IDENTIFIER, [system.is_some(), value.is_some(), text.is_some(), !types.is_empty()]));
            put_texts(out, [system, value, text]);
            if !types.is_empty() {
                put_varint(out, types.len() as u64);
                types.iter().for_each(|coding| put_coding(out, coding));
            }
        }
        Value::Text(text) => {
            out.push(tag(TEXT, [false; 4]));
            put_text(out, text);
        }
        Value::Date(range) => put_range(out, *range),
        Value::Number { lo, hi } => {
            out.push(tag(NUMBER, [same(*lo, *hi), false, false, false]));
            put_ends(out, *lo, *hi);
        }
        Value::Quantity { lo, hi, system, code, unit } => {
            out.push(tag(QUANTITY, [same(*lo, *hi), system.is_some(), code.is_some(), unit.is_some()]));
            put_ends(out, *lo, *hi);
            put_texts(out, [system, code, unit]);
        }
        Value::Reference { to, identifier } => {
            out.push(tag(REFERENCE, [to.is_some(), identifier.is_some(), false, false]));
            if let Some(to) = to {
                put_reference(out, to);
            }
            if let Some(identifier) = identifier {
                put_coding(out, identifier);
            }
        }
        Value::Uri(uri) => {
            out.push(tag(URI, [false; 4]));
            put_text(out, uri);
        }
        Value::Composite(components) => {
            out.push(tag(COMPOSITE, [false; 4]));
            put_varint(out, components.len() as u64);
            for component in components {
                let mut bytes = Vec::new();
                put_values(&mut bytes, component);
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
        }
    }
}

fn put_texts(out: &mut Vec<u8>, texts: [&Option<String>; 3]) {
    for text in texts.into_iter().flatten() {
        put_text(out, text);
    }
}

fn put_coding(out: &mut Vec<u8>, (system, code): &Coding) {
    out.push(u8::from(system.is_some()) | u8::from(code.is_some()) << 1);
    put_texts(out, [system, code, &None]);
}

/// A moment needs one number, a day two small ones; open ends are flags.
fn put_range(out: &mut Vec<u8>, range: Range) {
    let (past, future) = (range.lo == i64::MIN, range.hi == i64::MAX);
    out.push(tag(DATE, [past, future, false, false]));
    if !past {
        put_varint(out, (range.lo << 1 ^ range.lo >> 63) as u64);
    }
    if !future {
        let from = if past { 0 } else { range.lo };
        let length = range.hi.wrapping_sub(from);
        put_varint(out, (length << 1 ^ length >> 63) as u64);
    }
}

fn same(lo: f64, hi: f64) -> bool {
    lo.to_bits() == hi.to_bits()
}

fn put_ends(out: &mut Vec<u8>, lo: f64, hi: f64) {
    out.extend_from_slice(&lo.to_le_bytes());
    if !same(lo, hi) {
        out.extend_from_slice(&hi.to_le_bytes());
    }
}

fn put_reference(out: &mut Vec<u8>, reference: &Reference) {
    match reference {
        Reference::Local { kind, id, version } => {
            out.push(tag(LOCAL, [version.is_some(), false, false, false]));
            out.extend_from_slice(&kind.0.to_le_bytes());
            put_text(out, id);
            if let Some(version) = version {
                put_text(out, version);
            }
        }
        Reference::Conditional { kind, query } => {
            out.push(CONDITIONAL);
            out.extend_from_slice(&kind.0.to_le_bytes());
            put_text(out, query);
        }
        Reference::Absolute { url: text } => put_tagged(out, ABSOLUTE, text),
        Reference::Fragment(text) => put_tagged(out, FRAGMENT, text),
        Reference::Urn(text) => put_tagged(out, URN, text),
        Reference::Other(text) => put_tagged(out, OTHER, text),
    }
}

fn put_tagged(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    put_text(out, text);
}

fn coding<'a>(bytes: &mut Reader<'a>) -> Result<CodingRef<'a>> {
    let flags = bytes.byte()?;
    Ok((bytes.text_if(flags & 1 != 0)?, bytes.text_if(flags & 2 != 0)?))
}

fn value<'a>(bytes: &mut Reader<'a>, nested: bool) -> Result<ValueRef<'a>> {
    let head = bytes.byte()?;
    let flag = |bit: u8| head & (0x10 << bit) != 0;
    Ok(match head & 0x0f {
        TOKEN => ValueRef::Token {
            system: bytes.text_if(flag(0))?,
            code: bytes.text_if(flag(1))?,
            text: bytes.text_if(flag(2))?,
        },
        IDENTIFIER => identifier(bytes, flag)?,
        TEXT => ValueRef::Text(bytes.text()?),
        DATE => ValueRef::Date(range(bytes, flag(0), flag(1))?),
        NUMBER => {
            let (lo, hi) = ends(bytes, flag(0))?;
            ValueRef::Number { lo, hi }
        }
        QUANTITY => {
            let (lo, hi) = ends(bytes, flag(0))?;
            ValueRef::Quantity {
                lo,
                hi,
                system: bytes.text_if(flag(1))?,
                code: bytes.text_if(flag(2))?,
                unit: bytes.text_if(flag(3))?,
            }
        }
        REFERENCE => {
            let to = if flag(0) { Some(reference(bytes)?) } else { None };
            let identifier = if flag(1) { Some(coding(bytes)?) } else { None };
            ValueRef::Reference { to, identifier }
        }
        URI => ValueRef::Uri(bytes.text()?),
        COMPOSITE if !nested => group(bytes)?,
        _ => return Err(broken()),
    })
}

fn identifier<'a>(bytes: &mut Reader<'a>, flag: impl Fn(u8) -> bool) -> Result<ValueRef<'a>> {
    let (system, value) = (bytes.text_if(flag(0))?, bytes.text_if(flag(1))?);
    let text = bytes.text_if(flag(2))?;
    let mut types = Types::NONE;
    if flag(3) {
        let count = bytes.count()?;
        types = Types { count, bytes: *bytes };
        for _ in 0..count {
            coding(bytes)?;
        }
    }
    Ok(ValueRef::Identifier { system, value, text, types })
}

fn group<'a>(bytes: &mut Reader<'a>) -> Result<ValueRef<'a>> {
    let count = bytes.count()?;
    let group = Group { count, bytes: *bytes };
    for _ in 0..count {
        let length = bytes.count()?;
        bytes.take(length)?;
    }
    Ok(ValueRef::Composite(group))
}

fn range(bytes: &mut Reader<'_>, past: bool, future: bool) -> Result<Range> {
    let mut end = |from: i64| -> Result<i64> {
        let number = bytes.varint()?;
        Ok(from.wrapping_add((number >> 1) as i64 ^ -((number & 1) as i64)))
    };
    let lo = if past { i64::MIN } else { end(0)? };
    let hi = if future { i64::MAX } else { end(if past { 0 } else { lo })? };
    Ok(Range { lo, hi })
}

fn ends(bytes: &mut Reader<'_>, same: bool) -> Result<(f64, f64)> {
    let lo = bytes.float()?;
    Ok((lo, if same { lo } else { bytes.float()? }))
}

fn reference<'a>(bytes: &mut Reader<'a>) -> Result<ReferenceRef<'a>> {
    let head = bytes.byte()?;
    Ok(match head & 0x0f {
        LOCAL => ReferenceRef::Local {
            kind: TypeId(u16::from_le_bytes(bytes.array()?)),
            id: bytes.text()?,
            version: bytes.text_if(head & 0x10 != 0)?,
        },
        CONDITIONAL => {
            ReferenceRef::Conditional { kind: TypeId(u16::from_le_bytes(bytes.array()?)), query: bytes.text()? }
        }
        ABSOLUTE => ReferenceRef::Absolute(bytes.text()?),
        FRAGMENT => ReferenceRef::Fragment(bytes.text()?),
        URN => ReferenceRef::Urn(bytes.text()?),
        OTHER => ReferenceRef::Other(bytes.text()?),
        _ => return Err(broken()),
    })
}

fn own((system, code): CodingRef<'_>) -> Coding {
    (system.map(Into::into), code.map(Into::into))
}

impl ValueRef<'_> {
    /// # Errors
    /// `Kind::Tampered` when what lies inside (components, type codings) does not decode.
    pub fn to_value(&self) -> Result<Value> {
        let own_text = |text: &Option<&str>| text.map(String::from);
        Ok(match self {
            ValueRef::Token { system, code, text } => {
                Value::Token { system: own_text(system), code: own_text(code), text: own_text(text) }
            }
            ValueRef::Identifier { system, value, text, types } => Value::Identifier {
                system: own_text(system),
                value: own_text(value),
                text: own_text(text),
                types: types.iter().map(|coding| coding.map(own)).collect::<Result<_>>()?,
            },
            ValueRef::Text(text) => Value::Text((*text).into()),
            ValueRef::Date(range) => Value::Date(*range),
            ValueRef::Number { lo, hi } => Value::Number { lo: *lo, hi: *hi },
            ValueRef::Quantity { lo, hi, system, code, unit } => Value::Quantity {
                lo: *lo,
                hi: *hi,
                system: own_text(system),
                code: own_text(code),
                unit: own_text(unit),
            },
            ValueRef::Reference { to, identifier } => {
                Value::Reference { to: to.map(|to| to.to_reference()), identifier: identifier.map(own) }
            }
            ValueRef::Uri(uri) => Value::Uri((*uri).into()),
            ValueRef::Composite(group) => Value::Composite(
                group
                    .components()
                    .map(|values| values?.map(|value| value?.to_value()).collect())
                    .collect::<Result<_>>()?,
            ),
        })
    }
}

impl ReferenceRef<'_> {
    pub fn to_reference(&self) -> Reference {
        match *self {
            ReferenceRef::Local { kind, id, version } => {
                Reference::Local { kind, id: id.into(), version: version.map(Into::into) }
            }
            ReferenceRef::Absolute(url) => Reference::Absolute { url: url.into() },
            ReferenceRef::Fragment(text) => Reference::Fragment(text.into()),
            ReferenceRef::Urn(text) => Reference::Urn(text.into()),
            ReferenceRef::Conditional { kind, query } => Reference::Conditional { kind, query: query.into() },
            ReferenceRef::Other(text) => Reference::Other(text.into()),
        }
    }
}
