//! Quantities: a number with a UCUM unit or a calendar duration; conversion and arithmetic.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use octofhir_ucum::{Number, UnitAnalysis};
use rust_decimal::Decimal;
use serde_json::Map;

use super::temporal::Period;
use super::value::{decimal, number};
use crate::fhir::json::Node;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unit {
    Ucum(Arc<str>),
    /// `days`, as written.
    Calendar(Period, Arc<str>),
    /// A unit of another system, or only its text: equal to itself only.
    Other(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantity {
    pub value: Decimal,
    pub unit: Unit,
}

/// Units longer than this are not analysed: no real one is.
const LONGEST_UNIT: usize = 200;

impl Unit {
    pub fn ucum(code: &str) -> Unit {
        Unit::Ucum(code.into())
    }

    /// The unit of a literal in quotes: a UCUM code, or a calendar word.
    pub fn quoted(text: &str) -> Unit {
        match Period::of_keyword(text) {
            Some(period) => Unit::Calendar(period, text.into()),
            None => Unit::ucum(text),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        match self {
            Unit::Ucum(text) | Unit::Calendar(_, text) | Unit::Other(text) => text,
        }
    }

    /// The calendar duration that may be added to a date.
    pub fn period(&self) -> Option<Period> {
        match self {
            Unit::Calendar(period, _) => Some(*period),
            Unit::Ucum(code) => Period::of_ucum(code),
            Unit::Other(_) => None,
        }
    }

    /// The UCUM code to convert by. Calendar years and months have none that is equal.
    fn code(&self, nearly: bool) -> Option<&str> {
        match self {
            Unit::Ucum(code) => Some(code),
            Unit::Calendar(Period::Year | Period::Month, _) if !nearly => None,
            Unit::Calendar(period, _) => Some(period.ucum()),
            Unit::Other(_) => None,
        }
    }

    fn analysis(&self, nearly: bool) -> Option<UnitAnalysis> {
        let code = self.code(nearly).filter(|code| code.len() <= LONGEST_UNIT)?;
        octofhir_ucum::analyse(code).ok()
    }
}

fn exact(value: Decimal) -> Option<Number> {
    Number::parse(&value.to_string())
}

impl Quantity {
    /// Whether the two measure the same kind of thing.
    pub fn comparable(&self, other: &Quantity) -> bool {
        match (self.unit.analysis(true), other.unit.analysis(true)) {
            (Some(a), Some(b)) => a.dimension == b.dimension && a.arbitrary == b.arbitrary,
            _ => self.unit == other.unit,
        }
    }

    /// The value in base units, exactly.
    fn base(&self, nearly: bool) -> Option<(Number, UnitAnalysis)> {
        let unit = self.unit.analysis(nearly)?;
        if unit.special.is_some() && unit.offset.is_zero() && unit.scale.to_f64() != 1.0 {
            return None;
        }
        let value = exact(self.value)?.checked_mul(unit.factor)?.checked_mul(unit.scale)?.checked_add(unit.offset)?;
        Some((value, unit))
    }

    /// None: the units do not convert into one another.
    pub fn compare(&self, other: &Quantity) -> Option<Ordering> {
        let same = match (&self.unit, &other.unit) {
            (Unit::Calendar(a, _), Unit::Calendar(b, _)) => a == b,
            (a, b) => a == b,
        };
        if same {
            return Some(self.value.cmp(&other.value));
        }
        if let (Unit::Calendar(a, _), Unit::Calendar(b, _)) = (&self.unit, &other.unit) {
            let months = |q: &Quantity, p: Period| match p {
                Period::Year => q.value.checked_mul(Decimal::from(12)),
                Period::Month => Some(q.value),
                _ => None,
            };
            if let (Some(a), Some(b)) = (months(self, *a), months(other, *b)) {
                return Some(a.cmp(&b));
            }
        }
        let (a, a_unit) = self.base(false)?;
        let (b, b_unit) = other.base(false)?;
        if a_unit.dimension != b_unit.dimension || a_unit.arbitrary != b_unit.arbitrary {
            return None;
        }
        order(a, b)
    }

    /// Equal to the precision of the less precise of the two, in whatever units; false if they do not convert.
    pub fn equivalent(&self, other: &Quantity) -> bool {
        let (Some((a, a_unit)), Some((b, b_unit))) = (self.base(true), other.base(true)) else {
            return self.unit == other.unit && super::compare::near(self.value, other.value);
        };
        if a_unit.dimension != b_unit.dimension || a_unit.arbitrary != b_unit.arbitrary {
            return false;
        }
        // In the unit of the less precise operand, at its precision.
        let (first, second, unit) =
            if self.value.normalize().scale() <= other.value.normalize().scale() && !is_rougher(other, self) {
                (self.value, b, a_unit)
            } else {
                (other.value, a, b_unit)
            };
        let converted = second
            .checked_sub(unit.offset)
            .and_then(|n| n.checked_div(unit.factor.checked_mul(unit.scale)?))
            .and_then(|n| decimal(&n.to_string()));
        converted.is_some_and(|second| super::compare::near(first, second))
    }

    /// None: the units do not convert into one another, or the sum is too large.
    pub fn plus(&self, other: &Quantity) -> Option<Quantity> {
        if self.unit == other.unit {
            return Some(Quantity { value: self.value.checked_add(other.value)?, unit: self.unit.clone() });
        }
        let (value, from) = other.base(false)?;
        let to = self.unit.analysis(false)?;
        if from.dimension != to.dimension || from.arbitrary != to.arbitrary || to.special.is_some() {
            return None;
        }
        let converted = decimal(&value.checked_div(to.factor)?.to_string())?;
        Some(Quantity { value: self.value.checked_add(converted)?, unit: self.unit.clone() })
    }

    pub fn times(&self, other: &Quantity) -> Option<Quantity> {
        let unit = joined(self.unit.code(false)?, other.unit.code(false)?, '.')?;
        Some(Quantity { value: self.value.checked_mul(other.value)?, unit })
    }

    /// None: division by zero, or too large.
    pub fn divided_by(&self, other: &Quantity) -> Option<Quantity> {
        let unit = joined(self.unit.code(false)?, other.unit.code(false)?, '/')?;
        Some(Quantity { value: self.value.checked_div(other.value)?, unit })
    }

    /// Reads `1`, `1.5 'mg'`, `4 days`.
    pub fn parse(text: &str) -> Option<Quantity> {
        let text = text.trim();
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
        let (digits, unit) = (&text[..end], text[end..].trim());
        let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        if bare.is_empty() || bare.starts_with('.') || bare.ends_with('.') {
            return None;
        }
        let value = decimal(digits.strip_prefix('+').unwrap_or(digits))?;
        let unit = match unit.strip_prefix('\'') {
            Some(quoted) => Unit::quoted(quoted.strip_suffix('\'')?),
            None if unit.is_empty() => Unit::ucum("1"),
            None => Unit::Calendar(Period::of_keyword(unit)?, unit.into()),
        };
        if let Unit::Ucum(code) = &unit {
            octofhir_ucum::parse_expression(code).ok().filter(|_| code.len() <= LONGEST_UNIT)?;
        }
        Some(Quantity { value, unit })
    }

    pub fn to_json(&self) -> Node {
        let mut out = Map::new();
        out.insert("value".into(), number(self.value));
        match &self.unit {
            Unit::Ucum(code) => {
                out.insert("unit".into(), Node::from(&**code));
                out.insert("system".into(), Node::from(super::UCUM));
                out.insert("code".into(), Node::from(&**code));
            }
            Unit::Calendar(_, word) | Unit::Other(word) => {
                out.insert("unit".into(), Node::from(&**word));
            }
        }
        Node::Object(out)
    }
}

/// Whether a number of the first unit says less than one of the second: a gram is rougher than a milligram.
fn is_rougher(first: &Quantity, second: &Quantity) -> bool {
    first.value.normalize().scale() == second.value.normalize().scale()
        && match (first.base(true), second.base(true)) {
            (Some((_, a)), Some((_, b))) => order(a.factor, b.factor) == Some(Ordering::Greater),
            _ => false,
        }
}

fn order(a: Number, b: Number) -> Option<Ordering> {
    let gap = a.checked_sub(b)?;
    Some(match () {
        () if gap.is_zero() => Ordering::Equal,
        () if gap.is_negative() => Ordering::Less,
        () => Ordering::Greater,
    })
}

/// `cm` and `m` make `(cm).(m)`, without the parts that are `1`.
fn joined(a: &str, b: &str, by: char) -> Option<Unit> {
    let code = match (a, b, by) {
        (a, "1", _) => a.to_owned(),
        ("1", b, '.') => b.to_owned(),
        (a, b, '/') if a == b => "1".to_owned(),
        (a, b, _) => format!("({a}){by}({b})"),
    };
    (code.len() <= LONGEST_UNIT).then(|| Unit::ucum(&code))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unit {
            Unit::Ucum(code) => write!(f, "{} '{code}'", self.value),
            Unit::Calendar(_, word) => write!(f, "{} {word}", self.value),
            Unit::Other(text) => write!(f, "{} '{text}'", self.value),
        }
    }
}
