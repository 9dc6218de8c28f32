//! Numbers of a query: the value, and the range that its digits stand for (R4, 2.21.1.5.2).

use super::{Prefix, WantedNumber};

/// More digits than any decimal of FHIR carries.
const DIGITS_MAX: usize = 30;
const EXPONENT_MAX: i32 = 300;

/// The prefix in front of a number or date, `eq` if there is none.
pub(super) fn prefix(text: &str) -> (Prefix, &str) {
    let found = match text.get(..2) {
        Some("eq") => Prefix::Eq,
        Some("ne") => Prefix::Ne,
        Some("gt") => Prefix::Gt,
        Some("lt") => Prefix::Lt,
        Some("ge") => Prefix::Ge,
        Some("le") => Prefix::Le,
        Some("sa") => Prefix::Sa,
        Some("eb") => Prefix::Eb,
        Some("ap") => Prefix::Ap,
        _ => return (Prefix::Eq, text),
    };
    (found, &text[2..])
}

/// `100` is [99.5, 100.5), `5.40` is [5.395, 5.405), `1e2` is [95, 105) as in the standard's own example (with an
/// exponent, a single digit counts as two). None: not a decimal, or one beyond the limits.
pub(super) fn wanted(prefix: Prefix, text: &str) -> Option<WantedNumber> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.parse::<i32>().ok()?)),
        None => (text, None),
    };
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (unsigned, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let count = whole.len() + fraction.len();
    if whole.is_empty() || count > DIGITS_MAX || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let mut digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut scale = exponent.unwrap_or(0) - i32::try_from(fraction.len()).ok()?;
    if scale.abs() > EXPONENT_MAX {
        return None;
    }
    if mantissa.starts_with('-') {
        digits = -digits;
    }
    if exponent.is_some() && digits.abs() < 10 {
        (digits, scale) = (digits * 10, scale - 1);
    }
    // Written out and read again, so that the ends are the nearest floating point numbers to the decimal ends.
    let read = |digits: i128, scale: i32| format!("{digits}e{scale}").parse::<f64>().ok();
    Some(WantedNumber {
        prefix,
        value: read(digits, scale)?,
        lo: read(digits * 10 - 5, scale - 1)?,
        hi: read(digits * 10 + 5, scale - 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the standard, and borders.
    #[test]
    fn digits_say_the_range() {
        for (text, lo, value, hi) in [
            ("100", 99.5, 100.0, 100.5),
            ("100.00", 99.995, 100.0, 100.005),
            ("1e2", 95.0, 100.0, 105.0),
            ("1.0e2", 95.0, 100.0, 105.0),
            ("5.4", 5.35, 5.4, 5.45),
            ("5.40e-3", 0.005395, 0.0054, 0.005405),
            ("-2", -2.5, -2.0, -1.5),
            ("+0.8", 0.75, 0.8, 0.85),
            ("0", -0.5, 0.0, 0.5),
        ] {
            let number = wanted(Prefix::Eq, text).expect(text);
            assert_eq!((number.lo, number.value, number.hi), (lo, value, hi), "{text}");
        }
    }

    #[test]
    fn what_is_no_decimal() {
        let long = "1".repeat(31);
        for text in ["", "a", "1.", ".5", "1e", "1e1.5", "--1", "1,5", "NaN", "inf", "1e400", "0x1", " 1", &long] {
            assert!(wanted(Prefix::Eq, text).is_none(), "{text}");
        }
    }

    #[test]
    fn prefixes_are_cut() {
        assert_eq!(prefix("ge2013"), (Prefix::Ge, "2013"));
        assert_eq!(prefix("2013"), (Prefix::Eq, "2013"));
        assert_eq!(prefix("é1"), (Prefix::Eq, "é1"));
    }
}
