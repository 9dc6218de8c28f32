//! What a request says beside its address and body: conditions, preferences, facts for the audit.

use std::sync::Arc;

use super::Interaction;
use crate::audit;
use crate::error::{Error, Result};
use crate::store::Pledge;

/// Everything about a request that the interactions need.
#[derive(Clone, Default)]
pub struct Facts {
    pub request: Arc<audit::Request>,
    pub conditions: Conditions,
    pub prefer: Prefer,
    /// The operation that was called, for the record.
    pub operation: Option<&'static str>,
    /// `_format` as sent, to be kept in links.
    pub format: Option<String>,
    /// Import: an update whose content equals the current version makes no new one.
    /// So does one with `If-None-Match: *` when there is a current version: a creation under a stable id.
    pub unchanged_ok: bool,
    /// Of an asynchronous transaction: what its commit must find, and leaves behind.
    pub pledge: Option<Pledge>,
    /// Only what would stand against a write is asked for: nothing is drawn or kept.
    pub trial: bool,
}

/// Conditions, as headers of a request or members of `Bundle.entry.request`.
#[derive(Clone, Default)]
pub struct Conditions {
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub if_none_exist: Option<String>,
}

/// What If-Match asks of the current version (RFC 9110, 13.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: there must be one.
    Any,
    Version(u32),
}

impl IfMatch {
    pub fn holds(self, version: u32) -> bool {
        self == IfMatch::Any || self == IfMatch::Version(version)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    Minimal,
    Representation,
    OperationOutcome,
}

/// `Prefer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// None: not said. Single requests then give the resource, entries of bundles do not.
    pub returns: Option<Return>,
    /// `handling=lenient`.
    pub lenient: bool,
    /// `respond-async`.
    pub later: bool,
}

impl Prefer {
    /// Reads the values of all `Prefer` headers. Unknown preferences are left out, as RFC 7240 says.
    pub fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Prefer {
        let mut prefer = Prefer::default();
        for part in values.flat_map(|value| value.split([',', ';'])) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                ("return", "minimal") => prefer.returns = Some(Return::Minimal),
                ("return", "representation") => prefer.returns = Some(Return::Representation),
                ("return", "OperationOutcome") => prefer.returns = Some(Return::OperationOutcome),
                ("respond-async", "") => prefer.later = true,
                ("handling", "lenient") => prefer.lenient = true,
                ("handling", "strict") => prefer.lenient = false,
                _ => {}
            }
        }
        prefer
    }
}

impl Facts {
    /// What the record says beside the request itself.
    pub fn detail(&self) -> Vec<(String, String)> {
        self.operation.iter().map(|name| ("operation".to_owned(), (*name).to_owned())).collect()
    }
}

impl Conditions {
    /// Refuses what an interaction would pass over: whoever sends a condition relies on it (http.html#ccreate, #concurrency).
    ///
    /// # Errors
    /// `Kind::Invalid`, naming the condition.
    pub fn fit(&self, interaction: &Interaction) -> Result<()> {
        let creates = matches!(interaction, Interaction::Create { .. });
        if !creates && self.if_none_exist.is_some() {
            return Err(Error::invalid("If-None-Exist is a condition of creating (POST) and of nothing else."));
        }
        if creates && self.if_match.is_some() {
            return Err(Error::invalid("If-Match names a version of what is there: creating (POST) has none."));
        }
        Ok(())
    }

    /// What If-Match names: `W/"3"`, also `"3"` and `3`, or `*`.
    ///
    /// # Errors
    /// `Kind::Invalid` for anything else.
    pub fn if_match(&self) -> Result<Option<IfMatch>> {
        let Some(text) = &self.if_match else { return Ok(None) };
        match version_of(text) {
            Some(version) => Ok(Some(IfMatch::Version(version))),
            None if text.trim() == "*" => Ok(Some(IfMatch::Any)),
            None => {
                Err(Error::invalid("If-Match must be *, or name one version as the ETag of a reply does: W/\"3\"."))
            }
        }
    }

    /// Whether If-None-Match says that the resource must not be there yet.
    pub fn only_new(&self) -> bool {
        self.if_none_match.as_deref().is_some_and(|tags| tags.trim() == "*")
    }

    /// Whether If-None-Match names this version, or any.
    pub fn excludes(&self, version: u32) -> bool {
        let tags = self.if_none_match.as_deref().unwrap_or_default().split(',');
        tags.map(str::trim).any(|tag| tag == "*" || version_of(tag) == Some(version))
    }

    /// Whether the client has this version already (If-None-Match, else If-Modified-Since).
    pub fn not_modified(&self, version: u32, last_modified_s: i64) -> bool {
        if self.if_none_match.is_some() {
            return self.excludes(version);
        }
        let since = self.if_modified_since.as_deref().and_then(http_date);
        since.is_some_and(|since_s| last_modified_s <= since_s)
    }
}

fn version_of(tag: &str) -> Option<u32> {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(tag);
    inner.bytes().all(|byte| byte.is_ascii_digit()).then(|| inner.parse().ok()).flatten()
}

/// Seconds since 1970 of an HTTP date, or of a FHIR instant as bundle entries have it.
fn http_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    stamp.or_else(|_| text.parse::<jiff::Timestamp>()).ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(tag: &str) -> Result<Option<IfMatch>> {
        Conditions { if_match: Some(tag.into()), ..Conditions::default() }.if_match()
    }

    #[test]
    fn if_match_takes_one_version_in_any_usual_form_or_any_version() {
        for tag in ["W/\"3\"", "\"3\"", "3", " W/\"3\" "] {
            assert_eq!(matching(tag).unwrap(), Some(IfMatch::Version(3)), "{tag}");
        }
        assert_eq!(matching(" * ").unwrap(), Some(IfMatch::Any));
        assert!(IfMatch::Any.holds(7) && IfMatch::Version(7).holds(7) && !IfMatch::Version(7).holds(8));
        for tag in ["**", "*, W/\"1\"", "", "W/\"a\"", "W/\"1\", W/\"2\"", "\"-1\"", "+3", "99999999999"] {
            assert!(matching(tag).is_err(), "{tag}");
        }
    }

    #[test]
    fn prefer_reads_every_header_and_skips_what_it_does_not_know() {
        let prefer = Prefer::parse(["respond-async, return=minimal", "handling=lenient; wait=10"].into_iter());
        assert_eq!(prefer, Prefer { returns: Some(Return::Minimal), lenient: true, later: true });
        assert_eq!(Prefer::parse(["return=\"OperationOutcome\""].into_iter()).returns, Some(Return::OperationOutcome));
    }

    #[test]
    fn not_modified_goes_by_the_tag_before_the_date() {
        let at = |none_match: Option<&str>, since: Option<&str>| Conditions {
            if_none_match: none_match.map(str::to_owned),
            if_modified_since: since.map(str::to_owned),
            ..Conditions::default()
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(at(Some("W/\"1\", W/\"2\""), None).not_modified(2, 0));
        assert!(!at(Some("W/\"1\""), Some(date)).not_modified(2, 0));
        assert!(at(None, Some(date)).not_modified(2, 784_111_777));
        assert!(!at(None, Some(date)).not_modified(2, 784_111_778));
        assert!(!at(None, Some("yesterday")).not_modified(2, 0));
    }
}
