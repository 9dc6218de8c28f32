//! One wanted value against one found value.

use super::prefix;
use crate::error::Result;
use crate::fhir::TypeId;
use crate::search::borrowed::{CodingRef, Group, ReferenceRef, Types, ValueRef};
use crate::search::query::{Modifier, Wanted, WantedCode, WantedNumber, WantedReference, WantedSystem, WantedUnit};
use crate::search::{text, ucum};

/// What two conversions to a canonical unit may differ by, relative.
const SLACK: f64 = 1e-12;

/// Whether the value is one that the query wants. A value of another kind than wanted is none.
pub(super) fn hits(wanted: &Wanted, modifier: Option<Modifier>, value: &ValueRef<'_>) -> Result<bool> {
    Ok(match (wanted, value) {
        (Wanted::Text { folded, .. }, ValueRef::Token { text: Some(found), .. })
        | (Wanted::Text { folded, .. }, ValueRef::Identifier { text: Some(found), .. }) => {
            text::starts_with(found, folded)
        }
        (Wanted::Text { exact, folded }, ValueRef::Text(found)) => match modifier {
            Some(Modifier::Exact) => *text::nfc(found) == **exact,
            Some(Modifier::Contains) => text::contains(found, folded),
            Some(Modifier::Whole | Modifier::Other) => text::fold(found) == *folded,
            Some(Modifier::Ends) => text::fold(found).ends_with(folded.as_str()),
            _ => text::starts_with(found, folded),
        },
        (Wanted::Text { folded, .. }, ValueRef::Uri(found)) => {
            let found = text::fold_code(found);
            match modifier {
                Some(Modifier::Contains) => found.contains(folded.as_str()),
                Some(Modifier::Ends) => found.ends_with(folded.as_str()),
                _ => found.starts_with(folded.as_str()),
            }
        }
        (Wanted::Sounds(sounds), ValueRef::Text(codes)) => sounds.are_in(codes),
        (Wanted::Codes(codes), ValueRef::Token { system, code: Some(code), .. }) => codes.contains(*system, code),
        (Wanted::Near { latitude, longitude, distance }, ValueRef::Composite(group)) => {
            near((*latitude, *longitude), *distance, group)?
        }
        (Wanted::Token { system, code }, _) => token(system, code.as_ref(), modifier, value),
        (Wanted::OfType { system, code, value: wanted }, ValueRef::Identifier { value: Some(found), types, .. }) => {
            wanted == found && of_type(types, system, code)?
        }
        (Wanted::Date { prefix, range }, ValueRef::Date(found)) => prefix::date(*prefix, *range, *found),
        (Wanted::Number(wanted), ValueRef::Number { lo, hi }) => prefix::number(wanted, *lo, *hi, 0.0),
        (Wanted::Quantity { number, unit }, ValueRef::Quantity { lo, hi, system, code, unit: named }) => {
            quantity(number, unit, (*lo, *hi), (*system, *code), *named)
        }
        (Wanted::Reference(wanted), ValueRef::Reference { to: Some(to), .. }) => reference(wanted, modifier, to),
        (Wanted::Uri(wanted), ValueRef::Uri(found)) => match modifier {
            Some(Modifier::Below) => is_under(found, wanted),
            Some(Modifier::Above) => is_under(wanted, found),
            _ => wanted == found,
        },
        (Wanted::Composite(wanted), ValueRef::Composite(group)) => composite(wanted, group)?,
        _ => false,
    })
}

fn token(system: &WantedSystem, code: Option<&WantedCode>, modifier: Option<Modifier>, value: &ValueRef<'_>) -> bool {
    match (value, modifier) {
        (ValueRef::Reference { identifier: Some(found), .. }, Some(Modifier::Identifier)) => {
            as_written(system, code, *found)
        }
        (ValueRef::Identifier { system: of, value, .. }, _) => as_written(system, code, (*of, *value)),
        (ValueRef::Token { system: of, code: found, .. }, _) => {
            in_system(system, *of)
                && match (code, found) {
                    (Some(wanted), Some(found)) => text::code_equals(found, &wanted.folded),
                    (None, _) => true,
                    (Some(_), None) => false,
                }
        }
        _ => false,
    }
}

fn in_system(wanted: &WantedSystem, found: Option<&str>) -> bool {
    match wanted {
        WantedSystem::Any => true,
        WantedSystem::Absent => found.is_none(),
        WantedSystem::Is(wanted) => found == Some(wanted.as_str()),
    }
}

fn as_written(system: &WantedSystem, code: Option<&WantedCode>, found: CodingRef<'_>) -> bool {
    in_system(system, found.0) && code.is_none_or(|wanted| found.1 == Some(wanted.exact.as_str()))
}

fn of_type(types: &Types<'_>, system: &str, code: &WantedCode) -> Result<bool> {
    for coding in types.iter() {
        let (of, found) = coding?;
        if of == Some(system) && found.is_some_and(|found| text::code_equals(found, &code.folded)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// With a UCUM unit wanted and found, both are compared in the canonical unit; otherwise the unit must be the same.
fn quantity(
    number: &WantedNumber,
    unit: &WantedUnit,
    (lo, hi): (f64, f64),
    (system, code): CodingRef<'_>,
    named: Option<&str>,
) -> bool {
    match unit {
        WantedUnit::Any => prefix::number(number, lo, hi, 0.0),
        WantedUnit::Named(wanted) => {
            (code == Some(wanted) || named == Some(wanted)) && prefix::number(number, lo, hi, 0.0)
        }
        WantedUnit::Coded { system: wanted_system, code: wanted, canonical } => {
            if system != Some(wanted_system.as_str()) {
                return false;
            }
            if code == Some(wanted.as_str()) {
                return prefix::number(number, lo, hi, 0.0);
            }
            let (Some(to), Some(found)) = (canonical, code.filter(|_| wanted_system == ucum::SYSTEM)) else {
                return false;
            };
            ucum::canonical(found).is_some_and(|from| {
                let wanted = WantedNumber {
                    prefix: number.prefix,
                    value: to.convert(number.value),
                    lo: to.convert(number.lo),
                    hi: to.convert(number.hi),
                };
                from.unit == to.unit && prefix::number(&wanted, from.convert(lo), from.convert(hi), SLACK)
            })
        }
    }
}

fn reference(wanted: &WantedReference, modifier: Option<Modifier>, found: &ReferenceRef<'_>) -> bool {
    match (wanted, found) {
        (WantedReference::Local { kinds, id, version }, ReferenceRef::Local { kind, id: to, version: of }) => {
            to == id && of_kind(kinds, *kind) && version.as_deref().is_none_or(|wanted| *of == Some(wanted))
        }
        (WantedReference::Url(wanted), ReferenceRef::Absolute(url)) => match modifier {
            Some(Modifier::Below) => canonical_below(url, wanted),
            Some(Modifier::Above) => canonical_below(wanted, url),
            _ => canonical_equals(wanted, url),
        },
        (WantedReference::Url(wanted), ReferenceRef::Urn(found) | ReferenceRef::Other(found)) => wanted == found,
        _ => false,
    }
}

/// An empty list stands for any type.
pub(super) fn of_kind(kinds: &[TypeId], kind: TypeId) -> bool {
    kinds.is_empty() || kinds.contains(&kind)
}

/// `url` or `url|version`: without a version in the query, every version.
fn canonical_equals(wanted: &str, found: &str) -> bool {
    if wanted == found {
        return true;
    }
    !wanted.contains('|') && found.split_once('|').is_some_and(|(url, _)| url == wanted)
}

/// Whether a canonical is another one, or of a version within its version: `1.2.3` is below `1.2`, and every version
/// below a canonical that names none.
fn canonical_below(url: &str, root: &str) -> bool {
    let ((url, version), (root, within)) = (split_version(url), split_version(root));
    url == root
        && match (version, within) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(version), Some(within)) => {
                version.strip_prefix(within).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
            }
        }
}

fn split_version(canonical: &str) -> (&str, Option<&str>) {
    canonical.split_once('|').map_or((canonical, None), |(url, version)| (url, Some(version)))
}

/// Kilometres between two places on a sphere of the size of the earth.
fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    const RADIUS: f64 = 6371.0088;
    let (lat_a, lat_b) = (a.0.to_radians(), b.0.to_radians());
    let (lat, lon) = ((lat_b - lat_a) / 2.0, (b.1 - a.1).to_radians() / 2.0);
    let h = lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * lon.sin().powi(2);
    2.0 * RADIUS * h.clamp(0.0, 1.0).sqrt().asin()
}

fn near(wanted: (f64, f64), within: f64, group: &Group<'_>) -> Result<bool> {
    let mut place = Vec::with_capacity(2);
    for values in group.components() {
        for value in values? {
            if let ValueRef::Number { lo, .. } = value? {
                place.push(lo);
            }
        }
    }
    Ok(matches!(place[..], [latitude, longitude] if distance(wanted, (latitude, longitude)) <= within))
}

/// Whether `url` is `root` or lies under it, at the border of a path segment.
fn is_under(url: &str, root: &str) -> bool {
    let Some(rest) = url.strip_prefix(root) else { return false };
    rest.is_empty() || root.ends_with('/') || rest.starts_with(['/', '?', '#', '|'])
}

fn composite(wanted: &[Wanted], group: &Group<'_>) -> Result<bool> {
    let mut parts = wanted.iter();
    for values in group.components() {
        let Some(part) = parts.next() else { return Ok(false) };
        let mut found = false;
        for value in values? {
            found = found || hits(part, None, &value?)?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(parts.next().is_none())
}
