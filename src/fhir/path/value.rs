//! The items of a collection while an expression is evaluated, and the System values they turn into.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Map, Number};

use super::Item;
use super::quantity::{Quantity, Unit};
use super::temporal::{Clock, Temporal};
use super::types::{System, Ty};
use crate::fhir::json::Node;

pub(super) static NULL: Node = Node::Null;

/// One item. Nodes of the tree are borrowed; what an expression makes is small or shared.
#[derive(Clone)]
pub(super) enum Val<'a> {
    /// A node of the tree; `Null` when a primitive has only its sibling.
    Node {
        node: &'a Node,
        sibling: Option<&'a Node>,
        ty: Ty,
    },
    /// What a reference points to, of which only the type is known.
    Target {
        reference: &'a Node,
        ty: Ty,
    },
    Boolean(bool),
    Integer(i64),
    Decimal(Decimal),
    String(Arc<str>),
    Temporal(Arc<Temporal>),
    Quantity(Arc<Quantity>),
    /// What `type()` gives: namespace and name.
    Type(&'static str, &'static str),
}

/// A collection.
pub(super) type Items<'a> = Vec<Val<'a>>;

/// The System value of an item.
pub(super) enum Sys<'v> {
    Boolean(bool),
    Integer(i64),
    Decimal(Decimal),
    String(&'v str),
    Temporal(Temporal),
    Quantity(Cow<'v, Quantity>),
    /// An element with children, or a primitive without a value.
    None,
}

impl<'a> Val<'a> {
    pub fn root(node: &'a Node) -> Val<'a> {
        Val::Node { node, sibling: None, ty: Ty::of_resource(node).unwrap_or(Ty::UNKNOWN) }
    }

    pub fn string(text: impl Into<Arc<str>>) -> Val<'a> {
        Val::String(text.into())
    }

    pub fn temporal(value: Temporal) -> Val<'a> {
        Val::Temporal(Arc::new(value))
    }

    /// The value that operators work on.
    pub fn sys(&self) -> Sys<'_> {
        match self {
            Val::Node { node, ty, .. } => node_sys(node, *ty),
            Val::Boolean(b) => Sys::Boolean(*b),
            Val::Integer(n) => Sys::Integer(*n),
            Val::Decimal(d) => Sys::Decimal(*d),
            Val::String(s) => Sys::String(s),
            Val::Temporal(t) => Sys::Temporal(**t),
            Val::Quantity(q) => Sys::Quantity(Cow::Borrowed(q)),
            Val::Target { .. } | Val::Type(..) => Sys::None,
        }
    }

    /// The text of a string value.
    pub fn text(&self) -> Option<&str> {
        match self.sys() {
            Sys::String(_) => match self {
                Val::Node { node, .. } => node.as_str(),
                Val::String(s) => Some(s),
                _ => None,
            },
            // Dates and the like are strings in the tree: functions of strings work on them as written.
            Sys::Temporal(_) => match self {
                Val::Node { node, .. } => node.as_str(),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match self {
            Val::Boolean(b) => Some(*b),
            Val::Node { node: Node::Bool(b), .. } => Some(*b),
            _ => None,
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self.sys() {
            Sys::Integer(n) => Some(n),
            _ => None,
        }
    }

    /// A number, integers included.
    pub fn decimal(&self) -> Option<Decimal> {
        match self.sys() {
            Sys::Integer(n) => Some(Decimal::from(n)),
            Sys::Decimal(d) => Some(d),
            _ => None,
        }
    }

    /// The FHIR type; System values have none.
    pub fn ty(&self) -> Ty {
        match self {
            Val::Node { ty, .. } | Val::Target { ty, .. } => *ty,
            _ => Ty::UNKNOWN,
        }
    }

    /// Name of the System type; None for nodes of the tree.
    pub fn system_name(&self) -> Option<&'static str> {
        Some(match self {
            Val::Node { .. } | Val::Target { .. } => return None,
            Val::Boolean(_) => "Boolean",
            Val::Integer(_) => "Integer",
            Val::Decimal(_) => "Decimal",
            Val::String(_) => "String",
            Val::Temporal(t) => match t.clock {
                Clock::Date => "Date",
                Clock::DateTime => "DateTime",
                Clock::Time => "Time",
            },
            Val::Quantity(_) => "Quantity",
            Val::Type(..) => "TypeInfo",
        })
    }

    /// The item as callers see it.
    pub fn into_item(self) -> Item<'a> {
        let (node, sibling, ty) = match self {
            Val::Node { node, sibling, ty } => (Cow::Borrowed(node), sibling, ty),
            Val::Target { reference, ty } => (Cow::Borrowed(reference), None, ty),
            made => {
                let name = made.system_name().and_then(super::types::by_suffix);
                (Cow::Owned(made.to_json()), None, name.unwrap_or(Ty::UNKNOWN))
            }
        };
        Item { node, sibling, kind: ty.name(), ty }
    }

    /// An item as the context of another evaluation. None: something made that is no primitive.
    pub fn of_item(item: &Item<'a>) -> Option<Val<'a>> {
        match &item.node {
            Cow::Borrowed(node) => Some(Val::Node { node, sibling: item.sibling, ty: item.ty }),
            Cow::Owned(Node::Bool(b)) => Some(Val::Boolean(*b)),
            Cow::Owned(Node::String(s)) => Some(Val::string(s.as_str())),
            Cow::Owned(Node::Number(n)) => match n.as_i64() {
                Some(n) => Some(Val::Integer(n)),
                None => decimal(n.as_str()).map(Val::Decimal),
            },
            Cow::Owned(_) => None,
        }
    }

    /// What an expression made, as JSON.
    pub fn to_json(&self) -> Node {
        match self {
            Val::Node { node, .. } | Val::Target { reference: node, .. } => (*node).clone(),
            Val::Boolean(b) => Node::Bool(*b),
            Val::Integer(n) => Node::from(*n),
            Val::Decimal(d) => number(*d),
            Val::String(s) => Node::from(&**s),
            Val::Temporal(t) => Node::String(t.to_string()),
            Val::Quantity(q) => q.to_json(),
            Val::Type(namespace, name) => {
                let mut out = Map::new();
                out.insert("namespace".into(), Node::from(*namespace));
                out.insert("name".into(), Node::from(*name));
                Node::Object(out)
            }
        }
    }
}

/// A decimal as JSON writes it, its digits kept.
pub(super) fn number(value: Decimal) -> Node {
    Number::from_str(&value.to_string()).map_or(Node::Null, Node::Number)
}

/// Reads a number as JSON or FHIRPath write it. None when it is none or beyond 28 digits before the point.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).ok();
    }
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_str(text)).ok()
}

fn node_sys(node: &Node, ty: Ty) -> Sys<'_> {
    match node {
        Node::Bool(b) => Sys::Boolean(*b),
        Node::Number(n) => {
            let int = if ty.system() == Some(System::Decimal) { None } else { n.as_i64() };
            match int {
                Some(n) => Sys::Integer(n),
                None => decimal(n.as_str()).map_or(Sys::None, Sys::Decimal),
            }
        }
        Node::String(text) => {
            let read = match ty.system() {
                Some(System::Date) => Temporal::date(text),
                Some(System::DateTime) => Temporal::date_time(text).map(Temporal::as_date_time),
                Some(System::Time) => Temporal::time(text),
                _ => None,
            };
            read.map_or(Sys::String(text), Sys::Temporal)
        }
        Node::Object(_) if ty.system() == Some(System::Quantity) => {
            Quantity::of_node(node).map_or(Sys::None, |q| Sys::Quantity(Cow::Owned(q)))
        }
        _ => Sys::None,
    }
}

impl Quantity {
    /// A FHIR Quantity. None without a value, or with a comparator: it is a range then.
    pub fn of_node(node: &Node) -> Option<Quantity> {
        let part = |name: &str| node.get(name).and_then(Node::as_str);
        if part("comparator").is_some() {
            return None;
        }
        let value = match node.get("value")? {
            Node::Number(n) => decimal(n.as_str())?,
            _ => return None,
        };
        let unit = match (part("system"), part("code"), part("unit")) {
            (Some(super::UCUM), Some(code), _) => Unit::ucum(code),
            (_, Some(code), _) | (_, None, Some(code)) => Unit::Other(code.into()),
            (_, None, None) => Unit::ucum("1"),
        };
        Some(Quantity { value, unit })
    }
}
