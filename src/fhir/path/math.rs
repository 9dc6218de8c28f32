//! Arithmetic and the functions of numbers, exact where decimals can be; boundaries and precision.

use rust_decimal::prelude::{FromPrimitive, ToPrimitive};
use rust_decimal::{Decimal, RoundingStrategy};

use super::eval::{Machine, boolean, fault, single};
use super::ops::{Binary, Func};
use super::quantity::Quantity;
use super::temporal::Temporal;
use super::value::{Items, Sys, Val};
use crate::error::{Error, Result};

/// Most digits after the point that are asked for: those a decimal holds.
const MOST_DIGITS: i64 = 28;

fn unlike() -> Error {
    fault("an operator stands between values it does not take")
}

/// `-`: of numbers and quantities.
pub(super) fn negate(items: Items) -> Result<Items> {
    Ok(match single(&items)? {
        None => Items::new(),
        Some(item) => vec![match item.sys() {
            Sys::Integer(n) => Val::Integer(n.checked_neg().ok_or_else(unlike)?),
            Sys::Decimal(d) => Val::Decimal(-d),
            Sys::Quantity(q) => Val::Quantity(Quantity { value: -q.value, unit: q.unit.clone() }.into()),
            _ => return Err(fault("`-` is put before something that is no number")),
        }],
    })
}

impl<'a> Machine<'a, '_> {
    /// `+ - * / div mod` on two items. None: an overflow or a division by zero.
    pub fn arithmetic(&self, op: Binary, a: &Val<'a>, b: &Val<'a>) -> Result<Option<Val<'a>>> {
        match (a.sys(), b.sys()) {
            (Sys::Integer(a), Sys::Integer(b)) if op != Binary::Divide => Ok(integers(op, a, b)),
            (Sys::String(_), Sys::String(_)) if op == Binary::Add => {
                let text = [a, b].map(|v| v.text().unwrap_or_default()).concat();
                self.text(text).map(Some)
            }
            (Sys::Temporal(at), Sys::Quantity(by)) if matches!(op, Binary::Add | Binary::Subtract) => {
                shift(at, &by, op == Binary::Subtract).map(|moved| moved.map(Val::temporal))
            }
            (Sys::Quantity(a), Sys::Quantity(b)) => Ok(quantities(op, &a, &b)?.map(|q| Val::Quantity(q.into()))),
            (Sys::Quantity(q), _) if b.decimal().is_some() => {
                let by = b.decimal().ok_or_else(unlike)?;
                let value = match op {
                    Binary::Multiply => q.value.checked_mul(by),
                    Binary::Divide => q.value.checked_div(by),
                    _ => return Err(unlike()),
                };
                Ok(value.map(|value| Val::Quantity(Quantity { value, unit: q.unit.clone() }.into())))
            }
            (_, Sys::Quantity(q)) if a.decimal().is_some() && op == Binary::Multiply => {
                let value = a.decimal().ok_or_else(unlike)?.checked_mul(q.value);
                Ok(value.map(|value| Val::Quantity(Quantity { value, unit: q.unit.clone() }.into())))
            }
            _ => match (a.decimal(), b.decimal()) {
                (Some(a), Some(b)) => Ok(decimals(op, a, b)),
                _ if super::compare::is_absent(a) || super::compare::is_absent(b) => Ok(None),
                _ => Err(unlike()),
            },
        }
    }
}

fn integers<'a>(op: Binary, a: i64, b: i64) -> Option<Val<'a>> {
    match op {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        Binary::Div => a.checked_div(b),
        _ => a.checked_rem(b),
    }
    .map(Val::Integer)
}

fn decimals<'a>(op: Binary, a: Decimal, b: Decimal) -> Option<Val<'a>> {
    match op {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        Binary::Divide => a.checked_div(b),
        Binary::Div => return a.checked_div(b)?.trunc().to_i64().map(Val::Integer),
        _ => a.checked_rem(b),
    }
    .map(Val::Decimal)
}

fn quantities(op: Binary, a: &Quantity, b: &Quantity) -> Result<Option<Quantity>> {
    let negative = |q: &Quantity| Quantity { value: -q.value, unit: q.unit.clone() };
    match op {
        Binary::Add => Ok(a.plus(b)),
        Binary::Subtract => Ok(a.plus(&negative(b))),
        Binary::Multiply => Ok(a.times(b)),
        Binary::Divide => Ok(a.divided_by(b)),
        _ => Err(unlike()),
    }
}

/// A date and a duration; a fraction of a duration is left out.
fn shift(at: Temporal, by: &Quantity, back: bool) -> Result<Option<Temporal>> {
    let period = by.unit.period().ok_or_else(|| fault("a date takes calendar durations only"))?;
    let Some(count) = by.value.trunc().to_i64() else { return Ok(None) };
    Ok(at.plus(if back { count.saturating_neg() } else { count }, period))
}

/// The functions of numbers. None: the function is none of these.
pub(super) fn function<'a>(func: Func, item: &Val<'a>, args: &[Option<&Val<'a>>]) -> Result<Option<Items<'a>>> {
    let one = |value: Option<Val<'a>>| Ok(Some(value.into_iter().collect::<Items>()));
    match func {
        Func::Abs | Func::Ceiling | Func::Floor | Func::Truncate | Func::Round => one(rounded(func, item, args)?),
        Func::Exp | Func::Ln | Func::Log | Func::Power | Func::Sqrt => one(real(func, item, args)?),
        Func::LowBoundary | Func::HighBoundary => {
            let digits = match args.first() {
                None => None,
                Some(None) => return one(None),
                Some(Some(arg)) => Some(arg.integer().ok_or_else(|| fault("an integer is expected"))?),
            };
            one(boundary(item, digits, func == Func::HighBoundary)?)
        }
        Func::Precision => one(match item.sys() {
            Sys::Temporal(t) => Some(Val::Integer(t.precision())),
            Sys::Integer(_) => Some(Val::Integer(0)),
            Sys::Decimal(d) => Some(Val::Integer(i64::from(d.scale()))),
            _ => return Err(fault("only numbers and dates have a precision")),
        }),
        Func::Comparable => match (item.sys(), args[0].map(Val::sys)) {
            (Sys::Quantity(a), Some(Sys::Quantity(b))) => Ok(Some(boolean(Some(a.comparable(&b))))),
            (_, None) => one(None),
            _ => Err(fault("only quantities are comparable")),
        },
        Func::DateOf | Func::TimeOf => one(match item.sys() {
            Sys::Temporal(t) if func == Func::DateOf => Some(Val::temporal(t.to_date())),
            Sys::Temporal(t) => t.to_time().map(Val::temporal),
            _ => return Err(fault("only date-times have a date and a time")),
        }),
        _ => Ok(None),
    }
}

fn rounded<'a>(func: Func, item: &Val<'a>, args: &[Option<&Val<'a>>]) -> Result<Option<Val<'a>>> {
    if let (Sys::Quantity(q), Func::Abs) = (item.sys(), func) {
        return Ok(Some(Val::Quantity(Quantity { value: q.value.abs(), unit: q.unit.clone() }.into())));
    }
    if let (Sys::Integer(n), Func::Abs) = (item.sys(), func) {
        return Ok(n.checked_abs().map(Val::Integer));
    }
    let value = item.decimal().ok_or_else(|| fault("a number is expected"))?;
    let whole = |d: Decimal| d.to_i64().map(Val::Integer);
    Ok(match func {
        Func::Abs => Some(Val::Decimal(value.abs())),
        Func::Ceiling => whole(value.ceil()),
        Func::Floor => whole(value.floor()),
        Func::Truncate => whole(value.trunc()),
        _ => {
            let digits = match args.first() {
                None => 0,
                Some(None) => return Ok(None),
                Some(Some(arg)) => arg.integer().ok_or_else(|| fault("an integer is expected"))?,
            };
            let digits = u32::try_from(digits).map_err(|_| fault("a precision is negative"))?;
            let strategy = RoundingStrategy::MidpointAwayFromZero;
            Some(Val::Decimal(value.round_dp_with_strategy(digits.min(MOST_DIGITS as u32), strategy)))
        }
    })
}

/// Functions that give real numbers: to the precision of binary floating point, whole results exactly.
fn real<'a>(func: Func, item: &Val<'a>, args: &[Option<&Val<'a>>]) -> Result<Option<Val<'a>>> {
    let number = |val: &Val| val.decimal().ok_or_else(|| fault("a number is expected"));
    let value = number(item)?;
    let arg = match args.first() {
        None => None,
        Some(None) => return Ok(None),
        Some(Some(arg)) => Some(number(arg)?),
    };
    if let (Func::Power, Some(exponent)) = (func, arg)
        && let Some(exact) = whole_power(value, exponent)
    {
        let integer = item.integer().is_some() && exponent >= Decimal::ZERO;
        return Ok(match exact.to_i64() {
            Some(n) if integer && exact.is_integer() => Some(Val::Integer(n)),
            _ => Some(Val::Decimal(exact)),
        });
    }
    let x = value.to_f64().unwrap_or(f64::NAN);
    let base = arg.and_then(|d| d.to_f64()).unwrap_or(f64::NAN);
    let result = match func {
        Func::Exp => x.exp(),
        Func::Ln => x.ln(),
        Func::Log => x.ln() / base.ln(),
        Func::Power => x.powf(base),
        _ => x.sqrt(),
    };
    // What is whole but for the last bits is whole: log(1000, 10) is 3.
    let near = result.round();
    let result = if near != 0.0 && (result - near).abs() < near.abs() * 1e-14 { near } else { result };
    Ok(Decimal::from_f64(result).map(Val::Decimal))
}

fn whole_power(base: Decimal, exponent: Decimal) -> Option<Decimal> {
    let times = exponent.is_integer().then(|| exponent.to_u32()).flatten().filter(|n| *n <= 1000)?;
    let mut out = Decimal::ONE;
    for _ in 0..times {
        out = out.checked_mul(base)?;
    }
    Some(out)
}

/// The least (or greatest) value that may be meant by what is written.
fn boundary<'a>(item: &Val<'a>, digits: Option<i64>, high: bool) -> Result<Option<Val<'a>>> {
    let of_decimal = |d: Decimal| -> Option<Decimal> {
        let digits = digits.unwrap_or(8);
        if !(0..=MOST_DIGITS).contains(&digits) {
            return None;
        }
        // Half of the last digit that is given; beyond 28 digits there is no decimal.
        let half = Decimal::try_new(5, d.scale() + 1).ok()?;
        let edge = if high { d.checked_add(half)? } else { d.checked_sub(half)? };
        let strategy = if high { RoundingStrategy::ToPositiveInfinity } else { RoundingStrategy::ToNegativeInfinity };
        let mut edge = edge.round_dp_with_strategy(digits as u32, strategy);
        edge.rescale(digits as u32);
        Some(edge)
    };
    Ok(match item.sys() {
        Sys::Integer(n) => of_decimal(Decimal::from(n)).map(Val::Decimal),
        Sys::Decimal(d) => of_decimal(d).map(Val::Decimal),
        Sys::Quantity(q) => {
            of_decimal(q.value).map(|value| Val::Quantity(Quantity { value, unit: q.unit.clone() }.into()))
        }
        Sys::Temporal(t) => t.boundary(digits, high).map(Val::temporal),
        _ => return Err(fault("only numbers, dates and quantities have boundaries")),
    })
}
