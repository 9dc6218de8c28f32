//! The elements of a type or backbone path, found by JSON member name in a few nanoseconds.

use super::definitions;

/// The primitive types of R4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Primitive {
    Base64Binary,
    Boolean,
    Canonical,
    Code,
    Date,
    DateTime,
    Decimal,
    Id,
    Instant,
    Integer,
    Markdown,
    Oid,
    PositiveInt,
    String,
    Time,
    UnsignedInt,
    Uri,
    Url,
    Uuid,
    Xhtml,
}

impl Primitive {
    /// By FHIR name.
    pub fn of(name: &str) -> Option<Primitive> {
        Some(match name {
            "base64Binary" => Primitive::Base64Binary,
            "boolean" => Primitive::Boolean,
            "canonical" => Primitive::Canonical,
            "code" => Primitive::Code,
            "date" => Primitive::Date,
            "dateTime" => Primitive::DateTime,
            "decimal" => Primitive::Decimal,
            "id" => Primitive::Id,
            "instant" => Primitive::Instant,
            "integer" => Primitive::Integer,
            "markdown" => Primitive::Markdown,
            "oid" => Primitive::Oid,
            "positiveInt" => Primitive::PositiveInt,
            "string" => Primitive::String,
            "time" => Primitive::Time,
            "unsignedInt" => Primitive::UnsignedInt,
            "uri" => Primitive::Uri,
            "url" => Primitive::Url,
            "uuid" => Primitive::Uuid,
            "xhtml" => Primitive::Xhtml,
            _ => return None,
        })
    }
}

/// One element of a type: `Patient.contact.name`.
pub struct Element {
    /// Last part of the path, without `[x]`.
    pub name: &'static str,
    pub choice: bool,
    pub min: u32,
    /// None: `*`.
    pub max: Option<u32>,
    /// Part of the summary view (`_summary=true`).
    pub summary: bool,
    /// Changes the meaning of the resource: a reader must know it.
    pub modifier: bool,
    /// An attribute in XML (`id` of elements, `Extension.url`).
    pub attribute: bool,
    /// Type codes: `HumanName`, `string`, `BackboneElement`, `Reference` ...
    pub types: Vec<&'static str>,
    /// Where the children are described when that is a path of a resource or datatype: its own (`Patient.contact`), or
    /// through `contentReference` another. None for elements whose types say it ([`Child::shape`] covers all cases).
    pub children: Option<&'static str>,
    /// Value set of a required binding, if any.
    pub required_binding: Option<&'static str>,
    /// For references: allowed target types; empty: any.
    pub targets: Vec<&'static str>,
}

/// One member name a JSON object of the shape may have.
pub struct Child {
    /// As in JSON: `birthDate`, `valueQuantity`.
    pub name: &'static str,
    pub element: &'static Element,
    /// Place of the element among those of the shape.
    pub at: u8,
    /// FHIR type of the value: `date`, `Quantity`, `BackboneElement`, `Resource`.
    pub kind: &'static str,
    pub primitive: Option<Primitive>,
    /// Codes that a required binding allows, sorted, when the tables list them.
    pub codes: Option<&'static [&'static str]>,
    pub(super) shape: Option<u16>,
}

impl Child {
    /// What the value may contain. None for primitives; that of `Resource` for any resource (its own `resourceType`
    /// says which).
    pub fn shape(&self) -> Option<&'static Shape> {
        self.shape.map(|n| &definitions().shapes[usize::from(n)])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeKind {
    Resource,
    Datatype,
    /// A path inside a resource or datatype.
    Backbone,
}

/// What is known of a type or backbone path.
pub struct Shape {
    /// `Patient`, `Patient.contact`, `HumanName`.
    pub path: &'static str,
    pub kind: ShapeKind,
    /// `Element`, `BackboneElement`, `Resource`, `DomainResource`: no instance is just that.
    pub is_abstract: bool,
    /// In the order of the definition, which is the order of XML.
    pub elements: &'static [Element],
    /// Elements with a minimum above 0, as bits by place.
    pub required: u64,
    members: Vec<Child>,
    /// Open addressing over `members`: place plus one, 0 where free.
    slots: Box<[u16]>,
}

impl Shape {
    pub(super) fn new(
        path: &'static str,
        kind: ShapeKind,
        is_abstract: bool,
        elements: &'static [Element],
        members: Vec<Child>,
    ) -> Shape {
        assert!(elements.len() <= 64, "a bit for each element of {path}");
        let required =
            elements.iter().enumerate().filter(|(_, e)| e.min > 0).fold(0, |bits, (n, _)| bits | (1u64 << n));
        let mut slots = vec![0u16; (members.len() * 2).next_power_of_two()].into_boxed_slice();
        for (n, member) in members.iter().enumerate() {
            let mut at = hash(member.name) & (slots.len() - 1);
            while slots[at] != 0 {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = u16::try_from(n + 1).expect("far fewer members");
        }
        Shape { path, kind, is_abstract, elements, required, members, slots }
    }

    /// The element a JSON member stands for (`valueQuantity`: `value[x]` as a `Quantity`). Not for `_name` siblings:
    /// strip the underscore first.
    pub fn child(&self, name: &str) -> Option<&Child> {
        let mask = self.slots.len() - 1;
        let mut at = hash(name) & mask;
        loop {
            let n = self.slots[at];
            if n == 0 {
                return None;
            }
            let member = &self.members[usize::from(n - 1)];
            if member.name == name {
                return Some(member);
            }
            at = (at + 1) & mask;
        }
    }

    /// Every member name that may occur, in order of the elements, choices in order of their types.
    pub fn members(&self) -> &[Child] {
        &self.members
    }
}

/// Mixes both ends and the length of a name: enough for the few names of one shape.
fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let (head, tail) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (bytes.iter().fold(0, |n, &b| (n << 8) | u64::from(b)), 0),
    };
    let mixed = (head ^ tail.rotate_left(29) ^ (bytes.len() as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize
}
