//! Conversions between the System types.

use rust_decimal::Decimal;

use super::eval::boolean;
use super::ops::Func;
use super::quantity::{Quantity, Unit};
use super::temporal::{Clock, Temporal};
use super::value::{Items, Sys, Val, decimal};
use crate::error::Result;

/// `toX()` and `convertsToX()`. None: the function is none of these.
pub(super) fn convert<'a>(func: Func, item: &Val<'a>) -> Result<Option<Items<'a>>> {
    let (made, test) = match func {
        Func::ToBoolean => (to_boolean(item), false),
        Func::ConvertsToBoolean => (to_boolean(item), true),
        Func::ToInteger | Func::ToLong => (to_integer(item), false),
        Func::ConvertsToInteger | Func::ConvertsToLong => (to_integer(item), true),
        Func::ToDecimal => (to_decimal(item), false),
        Func::ConvertsToDecimal => (to_decimal(item), true),
        Func::ToDate => (to_date(item), false),
        Func::ConvertsToDate => (to_date(item), true),
        Func::ToDateTime => (to_date_time(item), false),
        Func::ConvertsToDateTime => (to_date_time(item), true),
        Func::ToTime => (to_time(item), false),
        Func::ConvertsToTime => (to_time(item), true),
        Func::ToQuantity => (to_quantity(item), false),
        Func::ConvertsToQuantity => (to_quantity(item), true),
        Func::ToString => (to_string(item).map(Val::string), false),
        Func::ConvertsToString => (to_string(item).map(Val::string), true),
        _ => return Ok(None),
    };
    Ok(Some(if test { boolean(Some(made.is_some())) } else { made.into_iter().collect() }))
}

fn to_boolean<'a>(item: &Val) -> Option<Val<'a>> {
    let value = match item.sys() {
        Sys::Boolean(b) => b,
        Sys::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" | "1.0" => true,
            "false" | "f" | "no" | "n" | "0" | "0.0" => false,
            _ => return None,
        },
        _ => match item.decimal()? {
            d if d == Decimal::ONE => true,
            d if d == Decimal::ZERO => false,
            _ => return None,
        },
    };
    Some(Val::Boolean(value))
}

fn to_integer<'a>(item: &Val) -> Option<Val<'a>> {
    let value = match item.sys() {
        Sys::Integer(n) => n,
        Sys::Boolean(b) => i64::from(b),
        Sys::String(text) => text.parse().ok()?,
        _ => return None,
    };
    Some(Val::Integer(value))
}

fn to_decimal<'a>(item: &Val) -> Option<Val<'a>> {
    let value = match item.sys() {
        Sys::Integer(n) => n.into(),
        Sys::Decimal(d) => d,
        Sys::Boolean(b) => Decimal::from(u8::from(b)),
        Sys::String(text) => {
            let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let (whole, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
            if !digits(whole) || !digits(fraction) {
                return None;
            }
            decimal(text.strip_prefix('+').unwrap_or(text))?
        }
        _ => return None,
    };
    Some(Val::Decimal(value))
}

fn temporal_of(item: &Val, read: impl Fn(&str) -> Option<Temporal>) -> Option<Temporal> {
    match item.sys() {
        Sys::Temporal(t) => Some(t),
        Sys::String(text) => read(text),
        _ => None,
    }
}

fn to_date<'a>(item: &Val) -> Option<Val<'a>> {
    let found = temporal_of(item, Temporal::date_time)?;
    (found.clock != Clock::Time).then(|| Val::temporal(found.to_date()))
}

fn to_date_time<'a>(item: &Val) -> Option<Val<'a>> {
    let found = temporal_of(item, Temporal::date_time)?;
    (found.clock != Clock::Time).then(|| Val::temporal(found.as_date_time()))
}

fn to_time<'a>(item: &Val) -> Option<Val<'a>> {
    let found = temporal_of(item, |text| Temporal::time(text.strip_prefix('T').unwrap_or(text)))?;
    (found.clock == Clock::Time).then(|| Val::temporal(found))
}

fn to_quantity<'a>(item: &Val) -> Option<Val<'a>> {
    let plain = |value: Decimal| Quantity { value, unit: Unit::ucum("1") };
    let value = match item.sys() {
        Sys::Quantity(q) => q.into_owned(),
        Sys::Integer(n) => plain(n.into()),
        Sys::Decimal(d) => plain(d),
        Sys::Boolean(b) => plain(Decimal::from(u8::from(b))),
        Sys::String(text) => Quantity::parse(text)?,
        _ => return None,
    };
    Some(Val::Quantity(value.into()))
}

/// The text of a value; None for elements with children.
pub(super) fn to_string(item: &Val) -> Option<String> {
    Some(match item.sys() {
        Sys::Boolean(b) => b.to_string(),
        Sys::Integer(n) => n.to_string(),
        Sys::Decimal(d) => d.to_string(),
        Sys::String(text) => text.to_owned(),
        Sys::Temporal(t) => item.text().map_or_else(|| t.to_string(), str::to_owned),
        Sys::Quantity(q) => q.to_string(),
        Sys::None => return None,
    })
}
