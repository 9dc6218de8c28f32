//! `application/x-www-form-urlencoded`, as query strings and `_search` bodies have it.

use crate::error::{Error, Result};

/// Decodes into (name, value) pairs in order; `+` is a space. Empty parts (`a=1&&b=2`) are skipped.
///
/// # Errors
/// `Kind::Invalid` for a broken escape or bytes that are no UTF-8.
pub fn decode(text: &str) -> Result<Vec<(String, String)>> {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((unescape(name)?, unescape(value)?))
        })
        .collect()
}

fn unescape(text: &str) -> Result<String> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = digits else {
                    return Err(broken("a percent sign without two hex digits"));
                };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| broken("an escape that is no UTF-8"))
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn broken(what: &str) -> Error {
    Error::invalid(format!("The query or form has {what}."))
}

/// Encodes pairs for a link. Keeps `:`, `,`, `/` and `|`-free text readable, escapes everything else.
pub fn encode(pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        escape(name, &mut out);
        out.push('=');
        escape(value, &mut out);
    }
    out
}

fn escape(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:/,*@$".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes_as_browsers_and_fhir_clients_send() {
        let pairs =
            decode("_id=85&_revinclude=Provenance:target&date=ge2020-01-01T00:00:00%2B01:00&name=a+b&x&&=y").unwrap();
        let flat: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            flat,
            [
                ("_id", "85"),
                ("_revinclude", "Provenance:target"),
                ("date", "ge2020-01-01T00:00:00+01:00"),
                ("name", "a b"),
                ("x", ""),
                ("", "y")
            ]
        );
    }

    #[test]
    fn broken_escapes_are_errors() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff", "%c3=1"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn encode_then_decode_gives_the_same_pairs(pairs in prop::collection::vec((".+", ".*"), 0..5)) {
            prop_assert_eq!(decode(&encode(&pairs)).unwrap(), pairs);
        }
    }
}
