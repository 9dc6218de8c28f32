//! Formats of the primitive types: what the regular expressions of R4 say, by hand, because every value passes here.

use serde_json::Value;

use super::narrative;
use crate::fhir::date::{Fields, Precision};
use crate::fhir::definitions::Primitive;
use crate::fhir::reference::is_id;

/// R4: "Strings SHALL NOT exceed 1MB in size".
const MAX_STRING: usize = 1024 * 1024;

/// Whether a JSON value is one of the type; the fault as fixed text.
pub(super) fn check(kind: Primitive, value: &Value) -> Result<(), &'static str> {
    match kind {
        Primitive::Boolean => match value {
            Value::Bool(_) => Ok(()),
            _ => Err("Expected true or false, without quotes."),
        },
        Primitive::Integer => number(value).and_then(|n| integer(n, i64::from(i32::MIN))),
        Primitive::UnsignedInt => number(value).and_then(|n| integer(n, 0)),
        Primitive::PositiveInt => number(value).and_then(|n| integer(n, 1)),
        Primitive::Decimal => number(value).map(|_| ()),
        _ => match value {
            Value::String(value) => text(kind, value),
            Value::Null => Err("null is not allowed here."),
            _ => Err("Expected a string in quotes."),
        },
    }
}

fn number(value: &Value) -> Result<&str, &'static str> {
    match value {
        Value::Number(n) => Ok(n.as_str()),
        _ => Err("Expected a number, without quotes."),
    }
}

fn integer(text: &str, least: i64) -> Result<(), &'static str> {
    // Anything longer than the longest integer is out of range, whatever it says.
    let n = text.parse::<i64>().map_err(|_| "Expected a whole number of 32 bits.")?;
    if (least..=i64::from(i32::MAX)).contains(&n) {
        return Ok(());
    }
    Err(match least {
        0 => "Expected a whole number from 0 to 2147483647.",
        1 => "Expected a whole number from 1 to 2147483647.",
        _ => "Expected a whole number of 32 bits.",
    })
}

fn text(kind: Primitive, text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("A string must not be empty.");
    }
    let (holds, fault) = match kind {
        Primitive::Code => (code(text), "A code has no white space at its ends and single spaces only inside."),
        Primitive::Id => (is_id(text), "An id has 1 to 64 letters, digits, hyphens and dots."),
        Primitive::Uri | Primitive::Url | Primitive::Canonical => {
            (!text.contains(char::is_whitespace), "A uri has no white space.")
        }
        Primitive::Oid => (oid(text), "Expected an OID such as urn:oid:1.2.3."),
        Primitive::Uuid => (uuid(text), "Expected a UUID such as urn:uuid: with 36 lower-case characters."),
        Primitive::Date => (date(text), "Expected a date: YYYY, YYYY-MM or YYYY-MM-DD."),
        Primitive::DateTime => {
            (date_time(text), "Expected a date, or date and time with seconds and offset: YYYY-MM-DDThh:mm:ss+zz:zz.")
        }
        Primitive::Instant => (instant(text), "Expected an instant: YYYY-MM-DDThh:mm:ss+zz:zz."),
        Primitive::Time => (time(text), "Expected a time of day: hh:mm:ss."),
        Primitive::Base64Binary => (base64(text), "Expected base64."),
        Primitive::Xhtml => return narrative::check(text),
        _ => (printable(text), "A string has no control characters and at most 1 MB."),
    };
    if holds { Ok(()) } else { Err(fault) }
}

/// `[^\s]+(\s[^\s]+)*`
fn code(text: &str) -> bool {
    let mut after_space = true;
    for c in text.chars() {
        let space = c.is_whitespace();
        if space && after_space {
            return false;
        }
        after_space = space;
    }
    !after_space
}

/// `[ \r\n\t\S]+`
fn printable(text: &str) -> bool {
    text.bytes().all(|b| b >= b' ' || matches!(b, b'\t' | b'\n' | b'\r'))
        && (text.len() <= MAX_STRING || text.chars().count() <= MAX_STRING)
}

/// `urn:oid:[0-2](\.(0|[1-9][0-9]*))+`
fn oid(text: &str) -> bool {
    let Some(mut arcs) = text.strip_prefix("urn:oid:").map(|t| t.split('.')) else { return false };
    let number = |arc: &str| {
        !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()) && (arc.len() == 1 || !arc.starts_with('0'))
    };
    let rest = |mut arcs: std::str::Split<'_, char>| arcs.next().is_some_and(number) && arcs.all(number);
    matches!(arcs.next(), Some("0" | "1" | "2")) && rest(arcs)
}

/// `urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
fn uuid(text: &str) -> bool {
    let Some(uuid) = text.strip_prefix("urn:uuid:") else { return false };
    uuid.len() == 36
        && uuid.bytes().enumerate().all(|(n, b)| match n {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn date(text: &str) -> bool {
    Fields::scan(text).is_some_and(|f| f.precision <= Precision::Day)
}

fn date_time(text: &str) -> bool {
    Fields::scan(text)
        .is_some_and(|f| f.precision <= Precision::Day || (f.precision >= Precision::Second && f.offset.is_some()))
}

fn instant(text: &str) -> bool {
    Fields::scan(text).is_some_and(|f| f.precision >= Precision::Second && f.offset.is_some())
}

/// `([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?`
fn time(text: &str) -> bool {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let part = |range: std::ops::Range<usize>, most: u8| {
        let digits = &clock.as_bytes()[range];
        digits.iter().all(u8::is_ascii_digit) && (digits[0] - b'0') * 10 + (digits[1] - b'0') <= most
    };
    clock.len() == 8
        && clock.as_bytes()[2] == b':'
        && clock.as_bytes()[5] == b':'
        && part(0..2, 23)
        && part(3..5, 59)
        && part(6..8, 60)
        && fraction.is_none_or(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()))
}

/// Groups of four with padding at the end only; white space anywhere (R4 allows line breaks).
fn base64(text: &str) -> bool {
    let (mut count, mut padding) = (0usize, 0usize);
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => count += 1,
            b'=' => padding += 1,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => return false,
        }
    }
    count > 0 && padding <= 2 && (count + padding).is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(kind: Primitive, json: &str) -> bool {
        check(kind, &crate::fhir::json::parse(json.as_bytes()).expect("JSON")).is_ok()
    }

    #[test]
    fn formats() {
        use Primitive as P;
        for (kind, good, bad) in [
            (P::Boolean, vec!["true", "false"], vec!["\"true\"", "1", "null"]),
            (
                P::Integer,
                vec!["0", "-0", "-2147483648", "2147483647"],
                vec!["2147483648", "1.0", "1e3", "\"1\"", "9999999999999999999999"],
            ),
            (P::UnsignedInt, vec!["0", "2147483647"], vec!["-1", "2147483648"]),
            (P::PositiveInt, vec!["1"], vec!["0", "-1"]),
            (P::Decimal, vec!["1.00", "1E-10", "-0"], vec!["\"1.0\""]),
            (P::String, vec!["\"a\\tb\\u00a0\"", "\" \""], vec!["\"\"", "\"\\u0000\"", "\"\\u001f\"", "1", "null"]),
            (P::Code, vec!["\"a b\"", "\"a\""], vec!["\" a\"", "\"a \"", "\"a  b\"", "\"\""]),
            (P::Id, vec!["\"a-B.9\""], vec!["\"a_b\"", "\"#a\"", "\"a b\""]),
            (P::Uri, vec!["\"urn:x\"", "\"x|1\""], vec!["\"a b\"", "\" a\"", "\"a\\n\""]),
            (
                P::Oid,
                vec!["\"urn:oid:1.2.0.840\""],
                vec!["\"urn:oid:3.1\"", "\"urn:oid:1\"", "\"urn:oid:1.02\"", "\"1.2.3\"", "\"urn:oid:1.\""],
            ),
            (
                P::Uuid,
                vec!["\"urn:uuid:c757873d-ec9a-4326-a141-556f43239520\""],
                vec![
                    "\"urn:uuid:C757873D-ec9a-4326-a141-556f43239520\"",
                    "\"c757873d-ec9a-4326-a141-556f43239520\"",
                    "\"urn:uuid:c757873dec9a-4326-a141-556f43239520a\"",
                ],
            ),
            (
                P::Date,
                vec!["\"2026\"", "\"2026-02\"", "\"2024-02-29\""],
                vec!["\"2026-02-29\"", "\"2026-01-01T00:00:00Z\"", "\"26\""],
            ),
            (
                P::DateTime,
                vec!["\"2026\"", "\"2026-02-01T10:00:00Z\"", "\"2026-02-01T10:00:60.12345+14:00\""],
                vec!["\"2026-02-01T10:00Z\"", "\"2026-02-01T10:00:00\"", "\"2026-02-01T24:00:00Z\""],
            ),
            (P::Instant, vec!["\"2026-02-01T10:00:00.1Z\""], vec!["\"2026-02-01\"", "\"2026-02-01T10:00:00\""]),
            (
                P::Time,
                vec!["\"23:59:60\"", "\"10:00:00.5\""],
                vec!["\"24:00:00\"", "\"10:00\"", "\"10:00:00.\"", "\"10:00:00Z\"", "\"1é:00:00\""],
            ),
            (
                P::Base64Binary,
                vec!["\"YWI=\"", "\"YW Jj\\nYQ==\""],
                vec!["\"YWI\"", "\"=YWI\"", "\"YW-_\"", "\"====\""],
            ),
        ] {
            for json in good {
                assert!(holds(kind, json), "{kind:?} {json}");
            }
            for json in bad {
                assert!(!holds(kind, json), "{kind:?} {json}");
            }
        }
    }

    #[test]
    fn strings_have_a_limit() {
        assert!(printable(&"é".repeat(MAX_STRING)));
        assert!(!printable(&"a".repeat(MAX_STRING + 1)));
    }
}
