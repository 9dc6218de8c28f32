//! Media types: what the client accepts, what it sent.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};

use crate::error::{Error, Kind, Result};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Json,
    Xml,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/fhir+json; charset=utf-8",
            Format::Xml => "application/fhir+xml; charset=utf-8",
        }
    }
}

/// How the client wants the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub format: Format,
    pub pretty: bool,
    /// Whether a FHIR media type was asked for by name. A Binary is given as its own content otherwise.
    pub fhir: bool,
}

/// The format of a media type without its parameters.
fn format_of(essence: &str) -> Option<Format> {
    Some(match essence.to_ascii_lowercase().as_str() {
        "application/fhir+json" | "application/json" | "application/json+fhir" | "text/json" | "json" => Format::Json,
        "application/fhir+xml" | "application/xml" | "application/xml+fhir" | "text/xml" | "xml" => Format::Xml,
        _ => return None,
    })
}

/// Decides on the reply. `format` and `pretty` are `_format` and `_pretty`, which win over the header.
///
/// # Errors
/// `Kind::NotAcceptable` when neither JSON nor XML is accepted (`binary`: anything is acceptable), or another version
/// of FHIR is wanted.
pub(super) fn wanted(headers: &HeaderMap, format: Option<&str>, pretty: Option<&str>, binary: bool) -> Result<Wanted> {
    let pretty = match pretty {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid("_pretty must be true or false.")),
    };
    if let Some(text) = format {
        // In a query string `+` is a space: `application/fhir json` was meant as `fhir+json`.
        let text = text.replace(' ', "+");
        let found = format_of(essence(&text)).filter(|_| right_version(&text));
        let format = found.ok_or_else(|| not_acceptable("_format"))?;
        return Ok(Wanted { format, pretty, fhir: true });
    }
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok(Wanted { pretty, ..Wanted::default() });
    }
    for (range, _) in &ranges {
        match essence(range) {
            "*/*" | "application/*" => return Ok(Wanted { pretty, ..Wanted::default() }),
            "text/*" => return Ok(Wanted { format: Format::Xml, pretty, fhir: false }),
            name => {
                if let Some(format) = format_of(name).filter(|_| right_version(range)) {
                    return Ok(Wanted { format, pretty, fhir: true });
                }
            }
        }
    }
    match binary {
        true => Ok(Wanted { pretty, ..Wanted::default() }),
        false => Err(not_acceptable("Accept")),
    }
}

/// Media ranges in order of preference: by quality, then as written. Those of quality 0 are refused, so left out.
fn accepted(headers: &HeaderMap) -> Vec<(String, u16)> {
    let mut ranges: Vec<(String, u16)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| (range.trim().to_owned(), quality(range)))
        .filter(|(range, quality)| !range.is_empty() && *quality > 0)
        .collect();
    ranges.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    ranges
}

/// `q` in thousandths.
fn quality(range: &str) -> u16 {
    let q = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    q.and_then(|q| q.trim().parse::<f32>().ok()).map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16)
}

fn essence(range: &str) -> &str {
    range.split(';').next().unwrap_or_default().trim()
}

/// `fhirVersion=4.0`, when given, must be that of R4.
fn right_version(range: &str) -> bool {
    range.split(';').skip(1).all(|parameter| match parameter.trim().strip_prefix("fhirVersion=") {
        Some(version) => version.trim_matches('"').starts_with("4.0"),
        None => true,
    })
}

fn not_acceptable(what: &str) -> Error {
    let text = format!("{what} names no form this server gives: application/fhir+json and application/fhir+xml of R4.");
    Error::new(Kind::NotAcceptable, text)
}

/// What a request body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Fhir(Format),
    Form,
    /// Any other media type, with its parameters as sent: the content of a Binary.
    Other(String),
}

/// Whether a media type is that of a JSON Patch (RFC 6902).
pub(super) fn is_json_patch(name: &str) -> bool {
    essence(name).eq_ignore_ascii_case("application/json-patch+json")
}

/// The media type of the request body; FHIR JSON where none is given.
///
/// # Errors
/// `Kind::MediaType` for a charset other than UTF-8 and for another version of FHIR.
pub(super) fn sent(headers: &HeaderMap) -> Result<Sent> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Sent::Fhir(Format::Json)) };
    let text = value.to_str().map_err(|_| Error::new(Kind::MediaType, "Content-Type is not readable."))?;
    let name = essence(text);
    if name.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Sent::Form);
    }
    let Some(format) = format_of(name) else { return Ok(Sent::Other(text.to_owned())) };
    let charset = text.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii") if right_version(text) => Ok(Sent::Fhir(format)),
        None | Some("utf-8" | "utf8" | "us-ascii") => {
            Err(Error::new(Kind::MediaType, "Content-Type names another version of FHIR; this is R4 (4.0)."))
        }
        Some(_) => Err(Error::new(Kind::MediaType, "FHIR is sent in UTF-8; Content-Type names another charset.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().expect("a header"));
        headers
    }

    fn format(headers: &HeaderMap, query: Option<&str>) -> Option<Format> {
        wanted(headers, query, None, false).ok().map(|wanted| wanted.format)
    }

    #[test]
    fn accept_decides_and_format_wins() {
        let table = [
            ("application/fhir+json", Some(Format::Json)),
            ("application/json", Some(Format::Json)),
            ("*/*", Some(Format::Json)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Format::Xml)),
            ("text/xml", Some(Format::Xml)),
            ("application/fhir+xml;q=0.5, application/fhir+json;q=0.7", Some(Format::Json)),
            ("application/fhir+json;q=0, application/fhir+xml", Some(Format::Xml)),
            ("application/fhir+json; fhirVersion=4.0", Some(Format::Json)),
            ("application/fhir+json; fhirVersion=3.0", None),
            ("text/turtle", None),
            ("application/fhir+json;q=0", Some(Format::Json)),
        ];
        for (value, expected) in table {
            assert_eq!(format(&accept(value), None), expected, "{value}");
        }
        assert_eq!(format(&HeaderMap::new(), None), Some(Format::Json));
        for (query, expected) in [
            ("xml", Some(Format::Xml)),
            ("application/fhir json", Some(Format::Json)),
            ("application/fhir+xml", Some(Format::Xml)),
            ("html", None),
        ] {
            assert_eq!(format(&accept("application/fhir+json"), Some(query)), expected, "{query}");
        }
    }

    #[test]
    fn a_binary_is_given_as_itself_unless_fhir_is_named() {
        for (value, fhir) in [("*/*", false), ("image/png", false), ("application/fhir+json", true)] {
            assert_eq!(wanted(&accept(value), None, None, true).map(|wanted| wanted.fhir).ok(), Some(fhir), "{value}");
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().expect("a header"));
            sent(&headers).ok()
        };
        assert_eq!(of("application/fhir+json; charset=UTF-8"), Some(Sent::Fhir(Format::Json)));
        assert_eq!(of("text/xml"), Some(Sent::Fhir(Format::Xml)));
        assert_eq!(of("application/x-www-form-urlencoded"), Some(Sent::Form));
        assert_eq!(of("image/png"), Some(Sent::Other("image/png".into())));
        assert_eq!(of("application/fhir+json; charset=latin1"), None);
        assert_eq!(of("application/fhir+json; fhirVersion=5.0"), None);
        assert_eq!(sent(&HeaderMap::new()).ok(), Some(Sent::Fhir(Format::Json)));
    }
}
