//! The types of the language here: what stands at a place, and which fields it has.

use crate::fhir::definitions::{Child, Shape, ShapeKind};
use crate::fhir::{TypeId, definitions};

/// The type of a place.
#[derive(Clone, Copy)]
pub enum Type {
    /// The root of a system-level query.
    Query,
    /// A resource, datatype or backbone element. For a Reference: the types it may point to (none: any).
    Element(&'static Shape, &'static [&'static str]),
    Connection(TypeId),
    Edge(TypeId),
}

/// A [`Type`] as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    Query,
    Element(&'static str, usize),
    Connection(TypeId),
    Edge(TypeId),
}

pub const CONNECTION_FIELDS: [&str; 7] = ["count", "offset", "pagesize", "first", "previous", "next", "last"];

impl Type {
    pub fn key(self) -> Key {
        match self {
            Type::Query => Key::Query,
            Type::Element(shape, targets) => Key::Element(shape.path, targets.as_ptr().addr()),
            Type::Connection(kind) => Key::Connection(kind),
            Type::Edge(kind) => Key::Edge(kind),
        }
    }

    /// `Patient`, `HumanName`, `PatientContact`, `PatientConnection`.
    pub fn name(self) -> String {
        match self {
            Type::Query => "Query".to_owned(),
            Type::Element(shape, _) => shape.path.split('.').map(capital).collect(),
            Type::Connection(kind) => format!("{}Connection", definitions().type_name(kind)),
            Type::Edge(kind) => format!("{}Edge", definitions().type_name(kind)),
        }
    }

    /// Whether a fragment on `name` is for this type.
    pub fn is(self, name: &str) -> bool {
        match self {
            Type::Element(shape, _) => definitions().is_a(shape.path, name) || self.name() == name,
            _ => self.name() == name,
        }
    }

    /// The resource type, if it is one.
    pub fn resource(self) -> Option<TypeId> {
        match self {
            Type::Element(shape, _) if shape.kind == ShapeKind::Resource => definitions().type_id(shape.path),
            _ => None,
        }
    }

    pub fn of_resource(kind: TypeId) -> Option<Type> {
        definitions().resource_shape(kind).map(|shape| Type::Element(shape, &[]))
    }

    /// What an element holds; None for primitives and for elements that hold any resource.
    pub fn of_child(child: &'static Child) -> Option<Type> {
        child.shape().filter(|shape| shape.path != "Resource").map(|shape| Type::Element(shape, &child.element.targets))
    }

    /// The `_name` beside a primitive: its id and extensions.
    pub fn sibling() -> Option<Type> {
        definitions().shape("Element").map(|shape| Type::Element(shape, &[]))
    }
}

/// The types a Reference may point to.
pub fn targets(named: &[&'static str]) -> Vec<TypeId> {
    let found: Vec<TypeId> = named.iter().filter_map(|name| definitions().type_id(name)).collect();
    if found.is_empty() { definitions().types().to_vec() } else { found }
}

fn capital(part: &str) -> String {
    let mut letters = part.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
