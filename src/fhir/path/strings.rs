//! The functions of strings. Positions count characters.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use regex::{Regex, RegexBuilder};

use super::convert::to_string;
use super::eval::{Machine, boolean, fault, single};
use super::ops::Func;
use super::value::{Items, Val};
use crate::error::Result;

/// Memory that a compiled pattern may take, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

impl<'a> Machine<'a, '_> {
    pub fn string_function(&self, func: Func, item: &Val<'a>, args: &[Option<&Val<'a>>]) -> Result<Items<'a>> {
        let kept;
        let text = match item.text() {
            Some(text) => text,
            None if item.ty().is_primitive() || item.system_name().is_some_and(|name| name != "TypeInfo") => {
                kept = to_string(item).unwrap_or_default();
                &kept
            }
            None => return Err(fault("a function of strings stands on something that is no string")),
        };
        let string = |n: usize| -> Result<Option<&str>> {
            match args.get(n).copied().flatten() {
                None => Ok(None),
                Some(arg) => arg.text().map(Some).ok_or_else(|| fault("a string is expected")),
            }
        };
        let made = |text: String| Ok(vec![self.text(text)?]);
        match func {
            Func::Length => Ok(vec![Val::Integer(text.chars().count() as i64)]),
            Func::Upper => made(text.to_uppercase()),
            Func::Lower => made(text.to_lowercase()),
            Func::Trim => made(text.trim().to_owned()),
            Func::ToChars => text.chars().map(|c| self.text(c.to_string())).collect(),
            Func::Substring => self.substring(text, args),
            Func::IndexOf | Func::LastIndexOf | Func::StartsWith | Func::EndsWith | Func::Contains => {
                Ok(string(0)?.map(|part| find(func, text, part)).into_iter().collect())
            }
            Func::Replace => {
                let (Some(part), Some(by)) = (string(0)?, string(1)?) else { return Ok(Items::new()) };
                self.spend(text.len().saturating_mul(by.len().max(1)) / 64)?;
                made(text.replace(part, by))
            }
            Func::Matches | Func::MatchesFull => {
                let Some(pattern) = string(0)? else { return Ok(Items::new()) };
                self.spend(text.len() / 16 + pattern.len())?;
                let pattern = compiled(pattern, string(1)?, func == Func::MatchesFull)?;
                Ok(boolean(Some(pattern.is_match(text))))
            }
            Func::ReplaceMatches => {
                let (Some(pattern), Some(by)) = (string(0)?, string(1)?) else { return Ok(Items::new()) };
                if pattern.is_empty() {
                    return made(text.to_owned());
                }
                self.spend(text.len().saturating_mul(by.len().max(1)) / 16 + pattern.len())?;
                made(compiled(pattern, string(2)?, false)?.replace_all(text, by).into_owned())
            }
            Func::Split => match string(0)? {
                Some("") => text.chars().map(|c| self.text(c.to_string())).collect(),
                Some(by) => text.split(by).map(|part| self.text(part.to_owned())).collect(),
                None => Ok(Items::new()),
            },
            Func::Encode | Func::Decode | Func::Escape | Func::Unescape => {
                let Some(kind) = string(0)? else { return Ok(Items::new()) };
                recode(func, kind, text)?.map_or(Ok(Items::new()), made)
            }
            _ => Err(fault(&format!("`{}` cannot be evaluated here", func.name()))),
        }
    }

    fn substring(&self, text: &str, args: &[Option<&Val<'a>>]) -> Result<Items<'a>> {
        let mut numbers = [None, Some(i64::MAX)];
        for (n, arg) in args.iter().enumerate() {
            numbers[n] = match arg {
                Some(arg) => Some(arg.integer().ok_or_else(|| fault("an integer is expected"))?),
                None => None,
            };
        }
        let (Some(start), length) = (numbers[0], numbers[1].unwrap_or(i64::MAX)) else { return Ok(Items::new()) };
        let Ok(start) = usize::try_from(start) else { return Ok(Items::new()) };
        if start >= text.chars().count() {
            return Ok(Items::new());
        }
        let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX);
        Ok(vec![self.text(text.chars().skip(start).take(length).collect())?])
    }

    /// Joins the strings of a collection.
    pub fn join(&self, input: &[Val<'a>], by: Option<&Val<'a>>) -> Result<Items<'a>> {
        if input.is_empty() {
            return Ok(Items::new());
        }
        let by = by.and_then(Val::text).unwrap_or_default();
        let mut out = String::new();
        for (n, item) in input.iter().enumerate() {
            let text = item.text().ok_or_else(|| fault("`join` takes strings only"))?;
            self.spend(1 + text.len() / 64)?;
            out += if n > 0 { by } else { "" };
            out += text;
        }
        Ok(vec![self.text(out)?])
    }
}

fn find<'a>(func: Func, text: &str, part: &str) -> Val<'a> {
    let place = |at: Option<usize>| Val::Integer(at.map_or(-1, |at| text[..at].chars().count() as i64));
    match func {
        Func::IndexOf => place(text.find(part)),
        Func::LastIndexOf => place(text.rfind(part)),
        Func::StartsWith => Val::Boolean(text.starts_with(part)),
        Func::EndsWith => Val::Boolean(text.ends_with(part)),
        _ => Val::Boolean(text.contains(part)),
    }
}

/// A pattern in which `.` matches line ends too, as the language says. Flags: `i`, `m`.
fn compiled(pattern: &str, flags: Option<&str>, full: bool) -> Result<Regex> {
    let whole;
    let pattern = if full {
        whole = format!("^(?:{pattern})$");
        &whole
    } else {
        pattern
    };
    let mut builder = RegexBuilder::new(pattern);
    builder.dot_matches_new_line(true).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE);
    for flag in flags.unwrap_or_default().chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            _ => return Err(fault("an unknown flag of a regular expression")),
        };
    }
    builder.build().map_err(|_| fault("a regular expression that is not valid, or too large"))
}

/// `encode`, `decode`, `escape`, `unescape`. None: the text is not of that coding.
fn recode(func: Func, kind: &str, text: &str) -> Result<Option<String>> {
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    Ok(match (func, kind) {
        (Func::Encode, "hex") => Some(text.bytes().map(|b| format!("{b:02x}")).collect()),
        (Func::Encode, "base64") => Some(STANDARD.encode(text)),
        (Func::Encode, "urlbase64") => Some(URL_SAFE.encode(text)),
        (Func::Decode, "hex") => unhex(text).and_then(utf8),
        (Func::Decode, "base64") => STANDARD.decode(text).ok().and_then(utf8),
        (Func::Decode, "urlbase64") => URL_SAFE.decode(text).ok().and_then(utf8),
        (Func::Escape, "html") => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Some(text.replace('"', "&quot;").replace('\'', "&#39;"))
        }
        (Func::Unescape, "html") => {
            let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            Some(text.replace("&#39;", "'").replace("&amp;", "&"))
        }
        (Func::Escape, "json") => {
            let quoted = serde_json::Value::from(text).to_string();
            quoted.get(1..quoted.len() - 1).map(str::to_owned)
        }
        (Func::Unescape, "json") => unescape_json(text),
        _ => return Err(fault("a coding that is not known")),
    })
}

/// The escapes of JSON as characters; what is no escape stays. None: an escape that is none.
fn unescape_json(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out += &rest[..at];
        // Surrogates come in pairs: the longest that makes sense is read.
        let lengths = if rest[at + 1..].starts_with('u') { &[12, 6][..] } else { &[2][..] };
        let (length, made) = lengths.iter().find_map(|length| {
            let escape = rest.get(at..at + length)?;
            let made: String = serde_json::from_str(&format!("\"{escape}\"")).ok()?;
            (made.chars().count() == 1).then_some((*length, made))
        })?;
        out += &made;
        rest = &rest[at + length..];
    }
    Some(out + rest)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The only item's text, for arguments that must be a string.
pub(super) fn single_text<'v>(items: &'v [Val<'_>]) -> Result<Option<&'v str>> {
    match single(items)? {
        None => Ok(None),
        Some(item) => item.text().map(Some).ok_or_else(|| fault("a string is expected")),
    }
}
