//! One value of a parameter, by the parameter's kind.

use super::escape::{split, unescape};
use super::{Modifier, QueryOptions, Wanted, WantedCode, WantedReference, WantedSystem, WantedUnit, number};
use super::{Prefix, parse::limits};
use crate::error::{Error, Result};
use crate::fhir::date::{self, Range};
use crate::fhir::definitions::Param;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::search::sound::Sounds;
use crate::search::terminology::Concepts;
use crate::search::{text, ucum};

/// Parses one value (escapes still in it) of a parameter that `name` stands for in messages.
///
/// # Errors
/// `Kind::Invalid` naming the parameter and quoting the value.
pub(super) fn wanted(
    param: &Param,
    modifier: Option<Modifier>,
    name: &str,
    raw: &str,
    options: &QueryOptions,
) -> Result<Wanted> {
    if raw.len() > limits::VALUE {
        return Err(bad(
            name,
            &raw[..raw.floor_char_boundary(40)],
            &format!("at most {} bytes a value", limits::VALUE),
        ));
    }
    if let Some(stated) = param.limits.comparators.as_ref().filter(|_| modifier.is_none()) {
        let (prefix, rest) = number::prefix(raw);
        let sent = &raw[..raw.len() - rest.len()];
        if prefix != Prefix::Eq && !stated.iter().any(|code| code == sent) {
            let all = if stated.is_empty() { "none".to_owned() } else { stated.join(", ") };
            let code = param.code;
            return Err(Error::invalid(format!("By its definition '{code}' does not take '{sent}', but {all}.")));
        }
    }
    match (modifier, param.kind) {
        (Some(Modifier::Missing), _) => match raw {
            "true" => Ok(Wanted::Missing(true)),
            "false" => Ok(Wanted::Missing(false)),
            _ => Err(bad(name, raw, "true or false")),
        },
        (Some(Modifier::OfType), _) => of_type(name, raw),
        (Some(Modifier::In | Modifier::NotIn), _) => value_set(name, raw),
        (Some(modifier @ (Modifier::Above | Modifier::Below)), ParamKind::Token) => concept(modifier, name, raw),
        (Some(Modifier::Text), _) | (_, ParamKind::String) => string(modifier, name, raw),
        (Some(Modifier::Identifier), _) | (_, ParamKind::Token) => token(name, raw),
        (_, ParamKind::Phonetic) => Sounds::read(&unescape(raw))
            .map(Wanted::Sounds)
            .ok_or_else(|| bad(name, raw, "at least one letter or digit")),
        (_, ParamKind::Date) => date_value(name, raw, options),
        (_, ParamKind::Number) => {
            let (prefix, digits) = number::prefix(raw);
            let number = number::wanted(prefix, digits).ok_or_else(|| bad(name, raw, "a decimal such as ge5.4"))?;
            Ok(Wanted::Number(number))
        }
        (_, ParamKind::Quantity) => quantity(name, raw),
        (_, ParamKind::Reference) => reference_value(param, modifier, name, raw, options),
        (_, ParamKind::Uri) => uri(modifier, name, raw),
        (_, ParamKind::Composite) => composite(param, name, raw, options),
        (_, ParamKind::Special) => near(name, raw),
    }
}

fn bad(name: &str, raw: &str, expected: &str) -> Error {
    Error::invalid(format!("The value '{raw}' of '{name}' is not valid; expected {expected}."))
}

fn string(modifier: Option<Modifier>, name: &str, raw: &str) -> Result<Wanted> {
    let text = unescape(raw);
    let (exact, folded) = (text::nfc(&text).into_owned(), text::fold(&text));
    if folded.is_empty() && modifier != Some(Modifier::Exact) {
        return Err(bad(name, raw, "at least one letter or digit, or the modifier :exact"));
    }
    Ok(Wanted::Text { exact, folded })
}

fn code(text: String) -> WantedCode {
    WantedCode { folded: text::fold_code(&text).into_owned(), exact: text }
}

/// `code`, `system|code`, `|code`, `system|`.
fn token(name: &str, raw: &str) -> Result<Wanted> {
    const FORM: &str = "code, system|code, |code or system| (a | inside is written \\|)";
    let parts: Vec<String> = split(raw, '|').into_iter().map(unescape).collect();
    let parts: [&str; 2] = match parts.as_slice() {
        [only] => return Ok(Wanted::Token { system: WantedSystem::Any, code: Some(code(only.clone())) }),
        [system, code] => [system, code],
        _ => return Err(bad(name, raw, FORM)),
    };
    Ok(match parts {
        ["", ""] => return Err(bad(name, raw, FORM)),
        ["", of] => Wanted::Token { system: WantedSystem::Absent, code: Some(code(of.into())) },
        [system, ""] => Wanted::Token { system: WantedSystem::Is(system.into()), code: None },
        [system, of] => Wanted::Token { system: WantedSystem::Is(system.into()), code: Some(code(of.into())) },
    })
}

/// `system|code|value`, all three.
fn of_type(name: &str, raw: &str) -> Result<Wanted> {
    let parts: Vec<String> = split(raw, '|').into_iter().map(unescape).collect();
    match parts.as_slice() {
        [system, of, value] if !system.is_empty() && !of.is_empty() && !value.is_empty() => {
            Ok(Wanted::OfType { system: system.clone(), code: code(of.clone()), value: value.clone() })
        }
        _ => Err(bad(name, raw, "type system|type code|value, all three")),
    }
}

/// A ValueSet, by its canonical url or as `ValueSet/id`.
fn value_set(name: &str, raw: &str) -> Result<Wanted> {
    let url = unescape(raw);
    let here = url.strip_prefix("ValueSet/").is_some_and(is_id);
    if !here && !url.contains(':') {
        return Err(bad(name, raw, "the url of a ValueSet, or ValueSet/id"));
    }
    Ok(Wanted::Concepts(Concepts::ValueSet(url)))
}

/// `system|code`, both: what is above or below depends on the system.
fn concept(modifier: Modifier, name: &str, raw: &str) -> Result<Wanted> {
    let parts: Vec<String> = split(raw, '|').into_iter().map(unescape).collect();
    match parts.as_slice() {
        [system, code] if !system.is_empty() && !code.is_empty() => {
            let (system, code) = (system.clone(), code.clone());
            Ok(Wanted::Concepts(match modifier {
                Modifier::Above => Concepts::Above { system, code },
                _ => Concepts::Below { system, code },
            }))
        }
        _ => Err(bad(name, raw, "system|code, both, with :above and :below")),
    }
}

/// What `near` looks around for when it is not told: kilometres.
const NEAR_DEFAULT: f64 = 50.0;

/// `latitude|longitude[|distance[|unit]]`; the unit is a UCUM length, kilometres by default.
fn near(name: &str, raw: &str) -> Result<Wanted> {
    const FORM: &str = "latitude|longitude|distance|unit in degrees and a UCUM unit of length";
    let parts: Vec<String> = split(raw, '|').into_iter().map(unescape).collect();
    let number = |at: usize| match parts.get(at).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Some).ok_or(()),
    };
    let read = || -> Result<Option<Wanted>, ()> {
        let (Some(latitude), Some(longitude)) = (number(0)?, number(1)?) else { return Ok(None) };
        let metres = match parts.get(3).map_or("km", |unit| if unit.is_empty() { "km" } else { unit }) {
            "km" => 1000.0,
            unit => ucum::canonical(unit).filter(|to| &*to.unit == "m").map(|to| to.convert(1.0)).ok_or(())?,
        };
        let distance = number(2)?.map_or(NEAR_DEFAULT, |distance| distance * metres / 1000.0);
        let sane = latitude.abs() <= 90.0 && longitude.abs() <= 180.0 && distance >= 0.0 && parts.len() <= 4;
        Ok(sane.then_some(Wanted::Near { latitude, longitude, distance }))
    };
    read().ok().flatten().ok_or_else(|| bad(name, raw, FORM))
}

fn date_value(name: &str, raw: &str, options: &QueryOptions) -> Result<Wanted> {
    let (prefix, text) = number::prefix(raw);
    let range =
        date::parse(text).map_err(|_| bad(name, raw, "a date such as 2026, 2026-01-31 or ge2026-01-31T08:15:00Z"))?;
    let range = if prefix == Prefix::Ap { approximate(range, options.now.0) } else { range };
    Ok(Wanted::Date { prefix, range })
}

/// 10 % of the distance between now and the date on either side.
fn approximate(range: Range, now: i64) -> Range {
    let distance = range.lo.saturating_sub(now).max(now.saturating_sub(range.hi)).max(0);
    let margin = distance / 10;
    Range { lo: range.lo.saturating_sub(margin), hi: range.hi.saturating_add(margin) }
}

/// `5.4`, `5.4|system|code`, `5.4||code`.
fn quantity(name: &str, raw: &str) -> Result<Wanted> {
    const FORM: &str = "a decimal, decimal|system|code or decimal||code";
    let (prefix, rest) = number::prefix(raw);
    let parts: Vec<String> = split(rest, '|').into_iter().map(unescape).collect();
    let (digits, unit) = match parts.as_slice() {
        [digits] => (digits, WantedUnit::Any),
        [digits, system, code] => {
            let unit = match (system.as_str(), code.as_str()) {
                ("", "") => WantedUnit::Any,
                ("", code) => WantedUnit::Named(code.into()),
                (_, "") => return Err(bad(name, raw, FORM)),
                (system, code) => WantedUnit::Coded {
                    system: system.into(),
                    code: code.into(),
                    canonical: if system == ucum::SYSTEM { ucum::canonical(code) } else { None },
                },
            };
            (digits, unit)
        }
        _ => return Err(bad(name, raw, FORM)),
    };
    let number = number::wanted(prefix, digits).ok_or_else(|| bad(name, raw, FORM))?;
    Ok(Wanted::Quantity { number, unit })
}

/// `1`, `Patient/1`, an absolute url, a canonical, a urn.
fn reference_value(
    param: &Param,
    modifier: Option<Modifier>,
    name: &str,
    raw: &str,
    options: &QueryOptions,
) -> Result<Wanted> {
    let text = unescape(raw);
    let only = match modifier {
        Some(Modifier::Type(kind)) => Some(kind),
        _ => None,
    };
    if is_id(&text) {
        let kinds = only.map_or_else(|| param.targets.clone(), |kind| vec![kind]);
        return Ok(Wanted::Reference(WantedReference::Local { kinds, id: text, version: None }));
    }
    let wanted = match reference::parse(&text, &options.base) {
        Reference::Local { kind, id, version } => {
            let allowed = only.map_or_else(|| may_target(param, kind), |only| only == kind);
            if !allowed {
                return Err(bad(name, raw, &format!("a reference to {}", target_names(param, only))));
            }
            WantedReference::Local { kinds: vec![kind], id, version }
        }
        Reference::Absolute { url } => WantedReference::Url(url),
        Reference::Urn(urn) => WantedReference::Url(urn),
        Reference::Fragment(_) | Reference::Conditional { .. } | Reference::Other(_) => {
            return Err(bad(name, raw, "an id, Type/id or an absolute url"));
        }
    };
    if only.is_some() && matches!(wanted, WantedReference::Url(_)) {
        return Err(bad(name, raw, "an id or Type/id with a type modifier"));
    }
    Ok(Wanted::Reference(wanted))
}

/// Whether the definition lets the parameter refer to the type.
pub(super) fn may_target(param: &Param, kind: TypeId) -> bool {
    param.targets.is_empty() || param.targets.contains(&kind)
}

/// The types a parameter refers to, for messages.
pub(super) fn target_names(param: &Param, only: Option<TypeId>) -> String {
    let targets = only.map_or_else(|| param.targets.clone(), |kind| vec![kind]);
    targets.iter().map(|kind| definitions().type_name(*kind)).collect::<Vec<_>>().join(", ")
}

/// `id` of R4: 1 to 64 letters, digits, `-` and `.`.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

fn uri(modifier: Option<Modifier>, name: &str, raw: &str) -> Result<Wanted> {
    let uri = unescape(raw);
    let hierarchical = uri.contains("://");
    if matches!(modifier, Some(Modifier::Above | Modifier::Below)) && !hierarchical {
        return Err(bad(name, raw, "a hierarchical url (scheme://...) with :above and :below"));
    }
    Ok(Wanted::Uri(uri))
}

/// `a$b`: one part per component.
fn composite(param: &Param, name: &str, raw: &str, options: &QueryOptions) -> Result<Wanted> {
    let parts = split(raw, '$');
    if parts.len() != param.components.len() || parts.iter().any(|part| part.is_empty()) {
        return Err(bad(name, raw, &format!("{} values joined by $", param.components.len())));
    }
    let parts = parts.into_iter().zip(&param.components).map(|(part, component)| {
        let of = component.param().ok_or_else(|| bad(name, raw, "known components"))?;
        wanted(of, None, name, part, options)
    });
    Ok(Wanted::Composite(parts.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximate_dates_widen_with_distance() {
        let range = Range { lo: 1_000, hi: 1_999 };
        let widened = |now| approximate(range, now);
        assert_eq!(widened(1_500), range);
        assert_eq!(widened(2_999), Range { lo: 900, hi: 2_099 });
        assert_eq!(widened(0), Range { lo: 900, hi: 2_099 });
        assert_eq!(approximate(Range { lo: i64::MIN, hi: i64::MAX }, 0), Range { lo: i64::MIN, hi: i64::MAX });
    }
}
