//! `_filter` (R4, search_filter.html): the text to criteria. `and` and `or` are taken from left to right, none before the
//! other, as the standard says; parentheses group.

use super::chain::{Fault, Links, allows, any, may_chain, searchable};
use super::wanted::wanted;
use super::{Criterion, Modifier, Prefix, QueryOptions, Wanted, parse::limits};
use crate::error::{Error, Kind};
use crate::fhir::definitions::Param;
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::search::text;

/// Comparisons of one filter.
const TESTS_MAX: usize = 100;
/// Parentheses in one another.
const PARENTHESES_MAX: usize = 16;

/// Parses a whole filter on a type; `depth` counts the chains around it.
pub(super) fn filter(
    kind: TypeId,
    value: &str,
    options: &QueryOptions,
    links: &mut Links,
    depth: usize,
) -> Result<Criterion, Fault> {
    let mut parser = Parser { text: value, at: 0, tests: 0, open: 0, beyond: None, options, links };
    let found = parser.logical(kind, depth)?;
    parser.space();
    match parser.rest() {
        "" => Ok(found),
        _ => Err(parser.fault("'and', 'or' or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    tests: usize,
    open: usize,
    /// The reference beyond which this is.
    beyond: Option<&'static Param>,
    options: &'a QueryOptions,
    links: &'a mut Links,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn fault(&self, expected: &str) -> Fault {
        let place = self.text[..self.at].chars().count() + 1;
        Fault::Wrong(Error::invalid(format!("'_filter' cannot be read at character {place}; expected {expected}.")))
    }

    fn costly(text: String) -> Fault {
        Fault::Wrong(Error::new(Kind::TooCostly, text))
    }

    /// Takes a word if it stands here on its own.
    fn word(&mut self, word: &str) -> bool {
        self.space();
        let taken = self
            .rest()
            .strip_prefix(word)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '(') || rest.is_empty());
        self.at += if taken { word.len() } else { 0 };
        taken
    }

    fn sign(&mut self, sign: char) -> bool {
        self.space();
        let taken = self.rest().starts_with(sign);
        self.at += if taken { sign.len_utf8() } else { 0 };
        taken
    }

    fn logical(&mut self, kind: TypeId, depth: usize) -> Result<Criterion, Fault> {
        // The alternatives so far, each a list that must hold as a whole.
        let mut all = self.one(kind, depth)?;
        loop {
            if self.word("and") {
                let next = self.one(kind, depth)?;
                all = Criterion::AnyOf(vec![vec![all, next]]);
            } else if self.word("or") {
                let next = self.one(kind, depth)?;
                all = any(vec![vec![all], vec![next]]);
            } else {
                return Ok(all);
            }
        }
    }

    fn one(&mut self, kind: TypeId, depth: usize) -> Result<Criterion, Fault> {
        if self.word("not") {
            if !self.sign('(') {
                return Err(self.fault("'(' after 'not'"));
            }
            return Ok(Criterion::NoneOf(vec![vec![self.group(kind, depth, ')')?]]));
        }
        if self.sign('(') {
            return self.group(kind, depth, ')');
        }
        self.test(kind, depth)
    }

    /// A filter up to its closing bracket; the opening one is taken.
    fn group(&mut self, kind: TypeId, depth: usize, close: char) -> Result<Criterion, Fault> {
        self.open += 1;
        if self.open > PARENTHESES_MAX {
            return Err(Self::costly(format!("'_filter' is nested more than {PARENTHESES_MAX} deep.")));
        }
        let found = self.logical(kind, depth)?;
        if !self.sign(close) {
            return Err(self.fault(&format!("'{close}'")));
        }
        self.open -= 1;
        Ok(found)
    }

    /// `path op value`.
    fn test(&mut self, kind: TypeId, depth: usize) -> Result<Criterion, Fault> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(Self::costly(format!("'_filter' has more than {TESTS_MAX} comparisons.")));
        }
        if depth > limits::DEPTH {
            return Err(Self::costly(format!("'_filter' chains more than {} references.", limits::DEPTH)));
        }
        let name = self.name()?;
        self.beyond.map_or(Ok(()), |reference| may_chain(reference, name))?;
        if self.rest().starts_with(['[', '.']) {
            return self.chained(kind, name, depth);
        }
        let param = searchable(kind, plain(kind, name), self.options)?;
        self.space();
        let op = self.token();
        self.space();
        let value = self.value()?;
        compare(kind, param, op, &value, self.options)
    }

    /// The name of a parameter, perhaps with a type: `subject:Patient`.
    fn name(&mut self) -> Result<&'a str, Fault> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-:".contains(c))).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.fault("the name of a search parameter"));
        }
        self.at += end;
        Ok(&rest[..end])
    }

    /// `reference[filter].rest`: the rest, and what the brackets say, hold of what is referred to.
    fn chained(&mut self, kind: TypeId, head: &'a str, depth: usize) -> Result<Criterion, Fault> {
        let (code, only) = match head.split_once(':') {
            Some((code, of)) => (code, Some(super::chain::type_id("_filter", of)?)),
            None => (head, None),
        };
        let (param, targets) = super::chain::targets((kind, "_filter"), plain(kind, code), only, self.options)?;
        let before = self.beyond.replace(param);
        let (start, tests, open) = (self.at, self.tests, self.open);
        let (mut roads, mut faults, mut end) = (Vec::new(), Vec::new(), (start, tests));
        for target in targets {
            // The same text is read for each type that the reference may lead to.
            (self.at, self.tests, self.open) = (start, tests, open);
            match self.beyond(target, depth + 1) {
                Ok(inner) => {
                    self.links.add("_filter")?;
                    end = (self.at, self.tests);
                    roads.push(vec![Criterion::Chain { param: param.id, target, inner: Box::new(inner) }]);
                }
                Err(Fault::Wrong(error)) if error.kind != Kind::Invalid => return Err(Fault::Wrong(error)),
                Err(fault) => faults.push(fault),
            }
        }
        (self.at, self.tests, self.open, self.beyond) = (end.0, end.1, open, before);
        super::chain::settled(roads, faults)
    }

    fn beyond(&mut self, target: TypeId, depth: usize) -> Result<Criterion, Fault> {
        let inside = if self.sign('[') { Some(self.group(target, depth, ']')?) } else { None };
        if !self.sign('.') {
            return Err(self.fault("'.' and a search parameter of what is referred to"));
        }
        let rest = self.test(target, depth)?;
        Ok(match inside {
            Some(inside) => Criterion::AnyOf(vec![vec![inside, rest]]),
            None => rest,
        })
    }

    fn token(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || c == ')' || c == ']').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A JSON string, or anything up to white space or a closing bracket.
    fn value(&mut self) -> Result<String, Fault> {
        if !self.rest().starts_with('"') {
            return match self.token() {
                "" => Err(self.fault("a value")),
                token => Ok(token.to_owned()),
            };
        }
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(value)) = values.next() else { return Err(self.fault("a JSON string")) };
        self.at += values.byte_offset();
        if value.is_empty() {
            return Err(self.fault("a string that is not empty"));
        }
        Ok(value)
    }
}

/// The examples of the standard say `id` for `_id`.
fn plain(kind: TypeId, name: &str) -> &str {
    if name == "id" && definitions().param(kind, name).is_none() { "_id" } else { name }
}

/// The modifier that an operator is the same as.
fn modifier_of(op: &str, of: ParamKind) -> Option<&'static str> {
    match (op, of) {
        ("pr", _) => Some("missing"),
        ("co", ParamKind::String) => Some("contains"),
        ("in", ParamKind::Token) => Some("in"),
        ("ss", ParamKind::Token) => Some("below"),
        ("sb", ParamKind::Token) => Some("above"),
        _ => None,
    }
}

fn compare(kind: TypeId, param: &Param, op: &str, value: &str, options: &QueryOptions) -> Result<Criterion, Fault> {
    if let Some(modifier) = modifier_of(op, param.kind) {
        allows(param, modifier)?;
    }
    let of = |modifier, wanted| Ok(Criterion::Param { param: param.id, modifier, any_of: vec![wanted] });
    let read = |modifier| wanted(param, modifier, param.code, value, options).map_err(Fault::from);
    let ordered = matches!(param.kind, ParamKind::Number | ParamKind::Date | ParamKind::Quantity);
    match (op, param.kind) {
        ("pr", _) => {
            let missing = match value {
                "true" => false,
                "false" => true,
                _ => return Err(Fault::Wrong(Error::invalid("'pr' in '_filter' takes true or false."))),
            };
            of(Some(Modifier::Missing), Wanted::Missing(missing))
        }
        ("eq" | "ne" | "gt" | "lt" | "ge" | "le" | "sa" | "eb" | "ap", _) if ordered => {
            let prefixed = format!("{op}{value}");
            of(None, wanted(param, None, param.code, &prefixed, options)?)
        }
        // `ap` without the margin around the value.
        ("po", ParamKind::Date) => match wanted(param, None, param.code, &format!("eq{value}"), options)? {
            Wanted::Date { range, .. } => of(None, Wanted::Date { prefix: Prefix::Ap, range }),
            other => of(None, other),
        },
        ("eq", ParamKind::String) => of(Some(Modifier::Whole), read(None)?),
        ("ne", ParamKind::String) => of(Some(Modifier::Other), read(None)?),
        ("co", ParamKind::String) => of(Some(Modifier::Contains), read(Some(Modifier::Contains))?),
        ("sw", ParamKind::String) => of(None, read(None)?),
        ("ew", ParamKind::String) => of(Some(Modifier::Ends), read(None)?),
        ("co" | "sw" | "ew", ParamKind::Uri) => {
            let modifier = match op {
                "co" => Some(Modifier::Contains),
                "ew" => Some(Modifier::Ends),
                _ => None,
            };
            of(modifier, Wanted::Text { exact: value.to_owned(), folded: text::fold_code(value).into_owned() })
        }
        ("ne", ParamKind::Token | ParamKind::Uri | ParamKind::Reference | ParamKind::Phonetic) => {
            of(Some(Modifier::Other), read(None)?)
        }
        ("eq", _) => of(None, read(None)?),
        ("re", ParamKind::Reference) => of(None, read(None)?),
        ("in", ParamKind::Token) => of(Some(Modifier::In), read(Some(Modifier::In))?),
        ("ss", ParamKind::Token) => of(Some(Modifier::Below), read(Some(Modifier::Below))?),
        ("sb", ParamKind::Token) => of(Some(Modifier::Above), read(Some(Modifier::Above))?),
        (
            "co" | "sw" | "ew" | "gt" | "lt" | "ge" | "le" | "sa" | "eb" | "ap" | "po" | "ss" | "sb" | "in" | "re"
            | "ne",
            of,
        ) => {
            let (code, of) = (param.code, of.name());
            Err(Fault::Wrong(Error::invalid(format!(
                "The operator '{op}' of '_filter' does not apply to the {of} parameter '{code}' of {}.",
                definitions().type_name(kind)
            ))))
        }
        _ => Err(Fault::Wrong(Error::invalid(format!(
            "'{op}' in '_filter' is no operator; there are eq ne co sw ew gt lt ge le ap sa eb pr po ss sb in re."
        )))),
    }
}
