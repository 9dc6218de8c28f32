//! All pairs of a query, in order, with every fault named.

use super::chain::{Fault, Links, criterion};
use super::{Criterion, Query, QueryOptions, Summary, Total, control, include};
use crate::error::{Error, Issue, Kind, Result, Severity};
use crate::fhir::{TypeId, definitions};

/// What a query may hold. Beyond it the answer is `TooCostly` and states the limit.
pub mod limits {
    /// Parameters in one query.
    pub const PAIRS: usize = 100;
    /// Values of one parameter, joined by commas.
    pub const VALUES: usize = 1_000;
    /// Bytes of one value.
    pub const VALUE: usize = 2_048;
    /// Chains and `_has` in one another.
    pub const DEPTH: usize = 4;
    /// Inner searches of one query (chains and `_has`, one per type).
    pub const LINKS: usize = 32;
    /// `_include`, and as many `_revinclude`.
    pub const INCLUDES: usize = 20;
    pub const SORT_KEYS: usize = 6;
}

/// The query under construction.
struct Draft<'a> {
    query: Query,
    options: &'a QueryOptions,
    links: Links,
    /// Parameters that may stand once, and did.
    seen: Vec<&'static str>,
}

impl Query {
    /// Everything of a type, `count` a page.
    pub fn all(kind: TypeId, count: usize) -> Query {
        Query {
            kind,
            criteria: Vec::new(),
            sort: Vec::new(),
            count,
            total: Total::None,
            includes: Vec::new(),
            revincludes: Vec::new(),
            summary: Summary::False,
            elements: Vec::new(),
            applied: Vec::new(),
            notes: Vec::new(),
            cursor: None,
            epoch: None,
        }
    }

    /// Parses decoded (name, value) pairs, in order.
    ///
    /// # Errors
    /// `Kind::Invalid` / `Kind::Unsupported` / `Kind::TooCostly`, one issue per parameter that is wrong, naming it.
    pub fn parse(kind: TypeId, pairs: &[(String, String)], options: &QueryOptions) -> Result<Query> {
        if pairs.len() > limits::PAIRS {
            let text = format!("The query has {} parameters; at most {} are taken.", pairs.len(), limits::PAIRS);
            return Err(Error::new(Kind::TooCostly, text));
        }
        let mut draft = Draft::new(kind, options);
        let mut faults = Vec::new();
        for (name, value) in pairs {
            match draft.take(name, value) {
                Ok(()) => {}
                Err(Fault::Unknown(error)) if options.lenient => {
                    let issues = error.issues.into_iter();
                    draft.query.notes.extend(issues.map(|issue| Issue { severity: Severity::Warning, ..issue }));
                }
                Err(Fault::Unknown(error) | Fault::Wrong(error)) => faults.push(error),
            }
        }
        if faults.is_empty()
            && let Err(error) = draft.fit()
        {
            faults.push(error);
        }
        // One wrong parameter makes the whole request invalid, whatever else is unsupported.
        let Some(first) = faults.iter().find(|error| error.kind == Kind::Invalid).or(faults.first()) else {
            let customs = &options.customs;
            draft.query.epoch = customs.asked().then(|| customs.epoch());
            return Ok(draft.query);
        };
        let kind = first.kind;
        Err(Error::with_issues(kind, faults.into_iter().flat_map(|error| error.issues).collect()))
    }
}

impl Criterion {
    /// Parses one condition (`name` with modifier and chain), as a scope or a subscription states it.
    ///
    /// # Errors
    /// As [`Query::parse`]; a parameter that only shapes the answer (`_sort`) is `Kind::Invalid`, and so is an empty value.
    pub fn parse(kind: TypeId, name: &str, value: &str, options: &QueryOptions) -> Result<Criterion> {
        if value.is_empty() {
            return Err(Error::invalid(format!("The parameter '{name}' has no value.")));
        }
        criterion(kind, name, value, options, &mut Links::default(), 0)
            .map_err(|(Fault::Unknown(error) | Fault::Wrong(error))| error)
    }
}

impl<'a> Draft<'a> {
    fn new(kind: TypeId, options: &'a QueryOptions) -> Self {
        let query = Query::all(kind, options.count_default.min(options.count_max));
        Draft { query, options, links: Links::default(), seen: Vec::new() }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        if value.is_empty() {
            // R4 reads an empty value as an absent parameter.
            self.note(format!("The parameter '{name}' has no value and was not applied."));
            return Ok(());
        }
        let kind = self.query.kind;
        match name {
            // Format and paging are of no concern to what is found, and are not repeated in the self link.
            "_format" | "_pretty" => return Ok(()),
            "_cursor" => {
                self.once("_cursor")?;
                self.query.cursor = Some(value.into());
                return Ok(());
            }
            "_count" => return self.count(value),
            "_sort" => {
                self.once("_sort")?;
                self.query.sort = control::sort(kind, value, self.options)?;
            }
            "_total" => {
                self.once("_total")?;
                self.query.total = control::total(value)?;
            }
            "_summary" => {
                self.once("_summary")?;
                self.query.summary = control::summary(value)?;
            }
            "_contained" | "_containedType" => control::contained(name, value)?,
            "_elements" => {
                self.once("_elements")?;
                self.query.elements = control::elements(kind, value)?;
            }
            _ if is_named(name, "_include") => {
                let include = include::include(kind, name, value, self.options, self.query.includes.len())?;
                self.query.includes.push(include);
            }
            "_revinclude" if value == "*" => {
                if !self.query.revincludes.iter().any(|include| include.every) {
                    self.query.revincludes.extend(include::every(kind));
                }
            }
            _ if is_named(name, "_revinclude") => {
                let include = include::include(kind, name, value, self.options, self.named_revincludes())?;
                self.query.revincludes.push(include);
            }
            _ => {
                let criterion = criterion(kind, name, value, self.options, &mut self.links, 0)?;
                self.repeated(kind, name)?;
                self.query.criteria.push(criterion);
            }
        }
        self.query.applied.push((name.into(), value.into()));
        Ok(())
    }

    fn named_revincludes(&self) -> usize {
        self.query.revincludes.iter().filter(|include| !include.every).count()
    }

    fn note(&mut self, text: String) {
        self.query.notes.push(Issue { severity: Severity::Warning, ..Issue::error("informational", text) });
    }

    fn once(&mut self, name: &'static str) -> Result<(), Fault> {
        if self.seen.contains(&name) {
            return Err(Fault::Wrong(Error::invalid(format!("The parameter '{name}' may stand only once."))));
        }
        self.seen.push(name);
        Ok(())
    }

    /// A parameter of the site that may not be repeated by its definition (`multipleAnd`).
    fn repeated(&mut self, kind: TypeId, name: &str) -> Result<(), Fault> {
        let code = name.split([':', '.']).next().unwrap_or_default();
        if code.starts_with('_') || definitions().param(kind, code).is_some() {
            return Ok(());
        }
        match self.options.customs.find(kind, code) {
            Some(defined) if defined.param.limits.once && self.once(defined.param.code).is_err() => {
                let text = format!("By its definition '{code}' may stand only once in a query ('multipleAnd').");
                Err(Fault::Wrong(Error::invalid(text)))
            }
            _ => Ok(()),
        }
    }

    /// 0 asks for the count alone; more than the maximum is cut, and said to be.
    fn count(&mut self, value: &str) -> Result<(), Fault> {
        self.once("_count")?;
        let (asked, max) = (control::count(value)?, self.options.count_max);
        self.query.count = asked.min(max);
        if asked > max {
            self.note(format!("Pages hold at most {max} matches: '_count' was applied as {max}."));
        }
        self.query.applied.push(("_count".into(), self.query.count.to_string()));
        Ok(())
    }

    /// What parameters mean together.
    fn fit(&mut self) -> Result<()> {
        let query = &mut self.query;
        if query.summary == Summary::Text && !(query.includes.is_empty() && query.revincludes.is_empty()) {
            return Err(Error::invalid("'_summary=text' cannot be combined with '_include' or '_revinclude'."));
        }
        if !query.elements.is_empty() && !matches!(query.summary, Summary::False | Summary::Count) {
            return Err(Error::invalid("'_summary' and '_elements' cannot be combined."));
        }
        if self.seen.contains(&"_count") && query.count == 0 {
            query.summary = Summary::Count;
        }
        if query.summary == Summary::Count {
            query.count = 0;
        }
        Ok(())
    }
}

/// `base` itself or with a modifier.
fn is_named(name: &str, base: &str) -> bool {
    name.split_once(':').map_or(name, |(head, _)| head) == base
}
