//! What a `Reference.reference` (or canonical) points to.

use super::definitions::{TypeId, definitions};

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// On this server: `Patient/1`, `Patient/1/_history/2`, or the absolute form under the server's own base.
    Local { kind: TypeId, id: String, version: Option<String> },
    /// Elsewhere: an absolute url (with what its tail says, when it looks like `.../Type/id`).
    Absolute { url: String },
    /// `#id`: contained.
    Fragment(String),
    /// `urn:uuid:` and `urn:oid:`.
    Urn(String),
    /// `Patient?identifier=...`: a conditional reference, for transactions.
    Conditional { kind: TypeId, query: String },
    /// Anything else, kept as written.
    Other(String),
}

/// Parses; `base` is the server's own base URL without a trailing slash (`http://host/fhir`).
pub fn parse(text: &str, base: &str) -> Reference {
    if let Some(id) = text.strip_prefix('#') {
        return Reference::Fragment(id.to_owned());
    }
    let own = match text.strip_prefix(base) {
        Some(rest) if !base.is_empty() => rest.strip_prefix('/'),
        _ => None,
    };
    if let Some(found) = own.or(Some(text)).and_then(local) {
        return found;
    }
    match text.split_once(':') {
        Some(("urn", _)) => Reference::Urn(text.to_owned()),
        Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() => Reference::Absolute { url: text.to_owned() },
        _ => Reference::Other(text.to_owned()),
    }
}

/// `Type/id`, `Type/id/_history/version`, `Type?query`.
fn local(text: &str) -> Option<Reference> {
    if let Some((name, query)) = text.split_once('?') {
        let kind = definitions().type_id(name)?;
        return Some(Reference::Conditional { kind, query: query.to_owned() });
    }
    let (kind, id, version) = split(text)?;
    Some(Reference::Local { kind, id: id.to_owned(), version: version.map(str::to_owned) })
}

/// The parts of `Type/id` or `Type/id/_history/version`.
fn split(text: &str) -> Option<(TypeId, &str, Option<&str>)> {
    let (name, rest) = text.split_once('/')?;
    let kind = definitions().type_id(name)?;
    let (id, version) = match rest.split_once("/_history/") {
        Some((id, version)) => (id, Some(version)),
        None => (rest, None),
    };
    (is_id(id) && version.is_none_or(is_id)).then_some((kind, id, version))
}

/// Type and id at the end of an absolute url that looks like the address of a resource on another server:
/// `https://other.example/fhir/Patient/1` (or `.../Patient/1/_history/2`).
pub fn tail(url: &str) -> Option<(TypeId, &str)> {
    let (_, path) = url.split_once("://")?;
    let path = path.split_once("/_history/").map_or(path, |(resource, _)| resource);
    let (before, id) = path.rsplit_once('/')?;
    let (_, name) = before.rsplit_once('/')?;
    let kind = definitions().type_id(name)?;
    is_id(id).then_some((kind, id))
}

/// A canonical in its parts: url, version after `|`, fragment after `#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    pub url: &'a str,
    pub version: Option<&'a str>,
    pub fragment: Option<&'a str>,
}

/// `http://example.org/ValueSet/x|1.0#part`.
pub fn canonical(text: &str) -> Canonical<'_> {
    let (rest, fragment) = match text.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (text, None),
    };
    match rest.split_once('|') {
        Some((url, version)) => Canonical { url, version: Some(version), fragment },
        None => Canonical { url: rest, version: None, fragment },
    }
}

/// The `id` type of R4: 1 to 64 of `[A-Za-z0-9-.]`.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// The scheme of a URI (RFC 3986, 3.1).
pub fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "http://host/fhir";

    fn kind(name: &str) -> TypeId {
        definitions().type_id(name).expect("a type")
    }

    fn patient(id: &str, version: Option<&str>) -> Reference {
        Reference::Local { kind: kind("Patient"), id: id.into(), version: version.map(Into::into) }
    }

    #[test]
    fn references_are_told_apart() {
        let absolute = |url: &str| Reference::Absolute { url: url.into() };
        for (text, expected) in [
            ("Patient/1", patient("1", None)),
            ("Patient/a-B.9/_history/2", patient("a-B.9", Some("2"))),
            ("http://host/fhir/Patient/1", patient("1", None)),
            ("http://host/fhir/Patient/1/_history/7", patient("1", Some("7"))),
            ("http://host/fhirx/Patient/1", absolute("http://host/fhirx/Patient/1")),
            ("http://host/fhir", absolute("http://host/fhir")),
            ("https://other/fhir/Patient/1", absolute("https://other/fhir/Patient/1")),
            ("#p1", Reference::Fragment("p1".into())),
            ("#", Reference::Fragment(String::new())),
            (
                "urn:uuid:0d5b8f2a-9a2b-4c57-8a35-6a1f6e1f1a11",
                Reference::Urn("urn:uuid:0d5b8f2a-9a2b-4c57-8a35-6a1f6e1f1a11".into()),
            ),
            (
                "Patient?identifier=http://a|1",
                Reference::Conditional { kind: kind("Patient"), query: "identifier=http://a|1".into() },
            ),
            ("Patient/", Reference::Other("Patient/".into())),
            ("Patient/1/2", Reference::Other("Patient/1/2".into())),
            ("Patient/a_b", Reference::Other("Patient/a_b".into())),
            ("Person9/1", Reference::Other("Person9/1".into())),
            ("/Patient/1", Reference::Other("/Patient/1".into())),
            ("", Reference::Other(String::new())),
        ] {
            assert_eq!(parse(text, BASE), expected, "{text}");
        }
        assert_eq!(parse("Patient/1", ""), patient("1", None));
        assert_eq!(
            parse(&format!("Patient/{}", "a".repeat(65)), BASE),
            Reference::Other(format!("Patient/{}", "a".repeat(65)))
        );
    }

    #[test]
    fn tails_of_other_servers_are_read() {
        assert_eq!(tail("https://other/r4/Patient/1"), Some((kind("Patient"), "1")));
        assert_eq!(tail("https://other/r4/Patient/1/_history/3"), Some((kind("Patient"), "1")));
        assert_eq!(tail("https://other/Patients/1"), None);
        assert_eq!(tail("urn:uuid:1"), None);
    }

    #[test]
    fn canonicals_split() {
        let c = canonical("http://a/b|1.0#x");
        assert_eq!((c.url, c.version, c.fragment), ("http://a/b", Some("1.0"), Some("x")));
        let c = canonical("http://a/b");
        assert_eq!((c.url, c.version, c.fragment), ("http://a/b", None, None));
    }
}
