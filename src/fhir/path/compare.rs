//! Equality, equivalence and order of items and collections.

use std::borrow::Cow;
use std::cmp::Ordering;

use rust_decimal::{Decimal, RoundingStrategy};

use super::eval::fault;
use super::quantity::{Quantity, Unit};
use super::value::{Sys, Val, decimal};
use crate::error::Result;
use crate::fhir::json::Node;

/// Equal when rounded to the precision of the less precise of the two.
pub(super) fn near(a: Decimal, b: Decimal) -> bool {
    let scale = a.normalize().scale().min(b.normalize().scale());
    let round = |d: Decimal| d.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
    round(a) == round(b)
}

fn dimensionless(value: Decimal) -> Quantity {
    Quantity { value, unit: Unit::ucum("1") }
}

/// `=` on two items. None: it cannot be said.
pub(super) fn equal(a: &Val, b: &Val) -> Option<bool> {
    match (a.sys(), b.sys()) {
        (Sys::Boolean(a), Sys::Boolean(b)) => Some(a == b),
        (Sys::Integer(a), Sys::Integer(b)) => Some(a == b),
        (Sys::String(a), Sys::String(b)) => Some(a == b),
        (Sys::Temporal(a), Sys::Temporal(b)) if a.same_kind(b) => a.compare(b).map(Ordering::is_eq),
        (Sys::Quantity(a), Sys::Quantity(b)) => quantities_equal(&a, &b),
        (Sys::Quantity(a), _) if b.decimal().is_some() => quantities_equal(&a, &dimensionless(b.decimal()?)),
        (_, Sys::Quantity(b)) if a.decimal().is_some() => quantities_equal(&dimensionless(a.decimal()?), &b),
        (Sys::None, Sys::None) => Some(nodes_equal(a, b)),
        _ => match (a.decimal(), b.decimal()) {
            (Some(a), Some(b)) => Some(a == b),
            _ => Some(false),
        },
    }
}

fn quantities_equal(a: &Quantity, b: &Quantity) -> Option<bool> {
    match a.compare(b) {
        Some(order) => Some(order.is_eq()),
        // A month is not exactly a UCUM month: it cannot be said. A metre is no second: it can.
        None if a.comparable(b) => None,
        None => Some(false),
    }
}

fn nodes_equal(a: &Val, b: &Val) -> bool {
    match (a, b) {
        (Val::Type(space, name), Val::Type(other_space, other)) => space == other_space && name == other,
        (Val::Node { node: a, sibling: x, .. }, Val::Node { node: b, sibling: y, .. }) => {
            std::ptr::eq(*a, *b) && x.is_none() == y.is_none() && !a.is_null()
                || tree_equal(a, b) && (!a.is_null() || x == y)
        }
        (Val::Target { reference: a, .. }, Val::Target { reference: b, .. }) => tree_equal(a, b),
        _ => false,
    }
}

/// Two trees with the same members and values; numbers by value.
fn tree_equal(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Number(a), Node::Number(b)) => {
            a.as_str() == b.as_str() || decimal(a.as_str()).is_some_and(|a| decimal(b.as_str()).is_some_and(|b| a == b))
        }
        (Node::Array(a), Node::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| tree_equal(a, b)),
        (Node::Object(a), Node::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| tree_equal(a, b)))
        }
        _ => a == b,
    }
}

/// `~` on two items.
pub(super) fn equivalent(a: &Val, b: &Val) -> bool {
    match (a.sys(), b.sys()) {
        (Sys::String(a), Sys::String(b)) => folded(a) == folded(b),
        (Sys::Temporal(a), Sys::Temporal(b)) => a.same_kind(b) && a.compare(b) == Some(Ordering::Equal),
        (Sys::Quantity(a), Sys::Quantity(b)) => a.equivalent(&b),
        (Sys::None, Sys::None) => match (a, b) {
            (Val::Node { node: a, .. }, Val::Node { node: b, .. }) => tree_equivalent(a, b),
            _ => nodes_equal(a, b),
        },
        _ => match (a.decimal(), b.decimal()) {
            (Some(a), Some(b)) => near(a, b),
            _ => equal(a, b) == Some(true),
        },
    }
}

fn tree_equivalent(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::String(a), Node::String(b)) => folded(a) == folded(b),
        (Node::Number(a), Node::Number(b)) => {
            decimal(a.as_str()).is_some_and(|a| decimal(b.as_str()).is_some_and(|b| near(a, b)))
        }
        (Node::Array(a), Node::Array(b)) => a.len() == b.len() && matched(a, b, tree_equivalent).unwrap_or(false),
        (Node::Object(a), Node::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| tree_equivalent(a, b)))
        }
        _ => a == b,
    }
}

/// Whether each of the one has a partner of its own in the other, in any order. None: too many to try.
fn matched<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> Option<bool> {
    if a.len().saturating_mul(b.len()) > 250_000 {
        return None;
    }
    let mut free: Vec<&T> = b.iter().collect();
    Some(a.iter().all(|x| match free.iter().position(|y| same(x, y)) {
        Some(at) => {
            free.swap_remove(at);
            true
        }
        None => false,
    }))
}

/// Without case, white space as one blank.
fn folded(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain {
        return Cow::Borrowed(text);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    Cow::Owned(words.join(" ").to_lowercase())
}

/// `=` on collections: None when either is empty.
pub(super) fn equal_collections(a: &[Val], b: &[Val]) -> Option<bool> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    if a.len() != b.len() {
        return Some(false);
    }
    let mut sure = true;
    for (a, b) in a.iter().zip(b) {
        match equal(a, b) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => sure = false,
        }
    }
    sure.then_some(true)
}

/// `~` on collections, in any order.
pub(super) fn equivalent_collections(a: &[Val], b: &[Val]) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    matched(a, b, |a, b| equivalent(a, b)).ok_or_else(super::eval::too_costly)
}

/// `<` and its like on two items. None: it cannot be said.
///
/// # Errors
/// Types that have no order, or not between each other.
pub(super) fn order(a: &Val, b: &Val) -> Result<Option<Ordering>> {
    let unlike = || fault("values that have no order between each other are compared");
    Ok(match (a.sys(), b.sys()) {
        (Sys::Integer(a), Sys::Integer(b)) => Some(a.cmp(&b)),
        (Sys::String(a), Sys::String(b)) => Some(a.cmp(b)),
        (Sys::Temporal(a), Sys::Temporal(b)) if a.same_kind(b) => a.compare(b),
        (Sys::Quantity(a), Sys::Quantity(b)) => a.compare(&b),
        (Sys::Quantity(a), _) => a.compare(&dimensionless(b.decimal().ok_or_else(unlike)?)),
        (_, Sys::Quantity(b)) => dimensionless(a.decimal().ok_or_else(unlike)?).compare(&b),
        _ if is_absent(a) || is_absent(b) => None,
        _ => match (a.decimal(), b.decimal()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => return Err(unlike()),
        },
    })
}

/// A primitive without a value: it has only an id or extensions.
pub(super) fn is_absent(val: &Val) -> bool {
    matches!(val, Val::Node { node: Node::Null, .. })
}
