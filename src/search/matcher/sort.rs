//! Sort keys: bytes whose order is the order of the hits, so that a cursor can carry one and the store compares bytes.
//!
//! Per `_sort` key: one byte for "has a value" (missing comes last in both directions), then the value; descending
//! inverts the bytes of the value. Of several values the first in the direction counts: the smallest ascending, the
//! largest descending; of a range its start ascending, its end descending.

use crate::error::Result;
use crate::fhir::definitions;
use crate::search::borrowed::{ReferenceRef, ValueRef};
use crate::search::capsule::View;
use crate::search::query::SortBy;
use crate::search::{text, ucum};

/// Longer texts are cut, so that a cursor stays small; hits equal up to there are in the store's own order.
const TEXT_MAX: usize = 120;

/// Sort key of one hit under a `_sort`: comparable, and small enough for a cursor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(pub Vec<u8>);

/// The key by which a hit sorts.
///
/// # Errors
/// `Kind::Tampered` when the capsule does not decode.
pub fn sort_key(view: &View<'_>, sort: &[SortBy]) -> Result<SortKey> {
    let mut key = Vec::with_capacity(sort.len() * 16);
    for by in sort {
        let mut best: Option<Vec<u8>> = None;
        for value in view.values(by.param)? {
            let Some(bytes) = ordered(&value?, by.descending) else { continue };
            let better = best.as_ref().is_none_or(|best| if by.descending { bytes > *best } else { bytes < *best });
            if better {
                best = Some(bytes);
            }
        }
        match best {
            None => key.push(1),
            Some(mut bytes) => {
                key.push(0);
                if by.descending {
                    bytes.iter_mut().for_each(|byte| *byte = !*byte);
                }
                key.extend_from_slice(&bytes);
            }
        }
    }
    Ok(SortKey(key))
}

/// Bytes in the order of the values, none a prefix of another.
fn ordered(value: &ValueRef<'_>, descending: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match value {
        ValueRef::Text(found) => put_text(&mut out, &text::fold(found)),
        ValueRef::Token { code, text: display, .. } => put_text(&mut out, &text::fold_code((*code).or(*display)?)),
        ValueRef::Identifier { value, .. } => put_text(&mut out, (*value)?),
        ValueRef::Uri(uri) => put_text(&mut out, uri),
        ValueRef::Date(range) => put_integer(&mut out, if descending { range.hi } else { range.lo }),
        ValueRef::Number { lo, hi } => put_float(&mut out, if descending { *hi } else { *lo }),
        ValueRef::Quantity { lo, hi, system, code, unit } => {
            let end = if descending { *hi } else { *lo };
            let canonical = code.filter(|_| *system == Some(ucum::SYSTEM)).and_then(ucum::canonical);
            // Only quantities of one dimension compare: others are grouped by their unit.
            let group = canonical.as_ref().map_or_else(|| (*code).or(*unit).unwrap_or(""), |found| &found.unit);
            put_text(&mut out, group);
            put_float(&mut out, canonical.as_ref().map_or(end, |found| found.convert(end)));
        }
        ValueRef::Reference { to, identifier } => match to {
            Some(ReferenceRef::Local { kind, id, .. }) => {
                put_text(&mut out, &format!("{}/{id}", definitions().type_name(*kind)));
            }
            Some(
                ReferenceRef::Absolute(found)
                | ReferenceRef::Fragment(found)
                | ReferenceRef::Urn(found)
                | ReferenceRef::Other(found)
                | ReferenceRef::Conditional { query: found, .. },
            ) => put_text(&mut out, found),
            None => put_text(&mut out, identifier.and_then(|(_, value)| value)?),
        },
        ValueRef::Composite(_) => return None,
    }
    Some(out)
}

/// 0 ends a text; a 0 within is followed by 255.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for byte in text[..end].bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(255);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&(value as u64 ^ 1 << 63).to_be_bytes());
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    // Zero has one place in the order, whatever its sign.
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(put: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    proptest! {
        #[test]
        fn the_order_of_bytes_is_the_order_of_values(a: i64, b: i64, x: f64, y: f64, s in "[\\x00a-c]{0,5}", t in "[\\x00a-c]{0,5}") {
            prop_assert_eq!(a.cmp(&b), bytes(|o| put_integer(o, a)).cmp(&bytes(|o| put_integer(o, b))));
            prop_assert_eq!(s.cmp(&t), bytes(|o| put_text(o, &s)).cmp(&bytes(|o| put_text(o, &t))));
            if let Some(order) = x.partial_cmp(&y) {
                prop_assert_eq!(order, bytes(|o| put_float(o, x)).cmp(&bytes(|o| put_float(o, y))));
            }
        }
    }
}
