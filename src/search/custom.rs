//! Search parameters that a site defines by SearchParameter resources: what such a resource says, checked, and which of
//! them there are now. Must not know where they are kept.

mod components;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::definitions::custom::{self, Spec};
use crate::fhir::definitions::{Limits, Param};
use crate::fhir::json::Node;
use crate::fhir::path::Expr;
use crate::fhir::{ParamId, ParamKind, Resource, TypeId, definitions};
use components::Component;

/// Parameters that a site may define: each is computed at every write of its types.
pub const DEFINED_MAX: usize = 100;
const EXPRESSION_MAX: usize = 1_000;
const CODE_MAX: usize = 64;

const MODIFIERS: &[&str] =
    &["missing", "exact", "contains", "not", "text", "in", "not-in", "below", "above", "type", "identifier", "ofType"];

/// What an active SearchParameter says, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Logical id of the resource.
    pub resource: String,
    pub url: String,
    pub code: String,
    kind: String,
    /// Type names: what they mean is looked up again by whoever reads this.
    bases: Vec<String>,
    targets: Vec<String>,
    expression: String,
    #[serde(default)]
    components: Vec<Component>,
    #[serde(flatten)]
    limits: Limits,
}

fn wrong(member: &str, text: impl Into<String>) -> Error {
    Error::new(Kind::BusinessRule, text.into()).at(format!("SearchParameter.{member}"))
}

fn unsupported(member: &str, text: impl Into<String>) -> Error {
    let issue = Issue::error("not-supported", text.into()).at(format!("SearchParameter.{member}"));
    Error::with_issues(Kind::BusinessRule, vec![issue])
}

fn text<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.get(name).and_then(Node::as_str)
}

fn texts(node: &Node, name: &str) -> Option<Vec<String>> {
    let list = node.get(name)?.as_array()?;
    Some(list.iter().filter_map(Node::as_str).map(str::to_owned).collect())
}

/// What a composite may be made of besides the standard.
pub struct Known<'a> {
    pub customs: &'a Customs,
    /// What the same write defines.
    pub made: Vec<&'a Definition>,
}

/// Whether a resource defines a parameter that may be made of others of the same write.
pub fn is_composite(resource: &Resource) -> bool {
    let node = resource.node();
    text(node, "resourceType") == Some("SearchParameter") && text(node, "type") == Some("composite")
}

impl Definition {
    /// Reads a SearchParameter. None: it defines nothing here, because it is not active or says what the standard
    /// parameter of its name says. `known`: those that a composite may be made of.
    ///
    /// # Errors
    /// `Kind::BusinessRule` naming the member that cannot be followed.
    pub fn read(resource: &Resource, known: &Known<'_>) -> Result<Option<Definition>> {
        let node = resource.node();
        if text(node, "status") != Some("active") {
            return Ok(None);
        }
        let code = text(node, "code").unwrap_or_default();
        check_code(code)?;
        let kind = usage(node, kind(text(node, "type").unwrap_or_default())?)?;
        let mut bases = types(node, "base")?;
        let targets = types(node, "target")?;
        if kind != ParamKind::Reference && !targets.is_empty() {
            return Err(wrong("target", "Only a reference has targets."));
        }
        let expression = text(node, "expression").unwrap_or_default().trim().to_owned();
        check_length(&expression)?;
        let all = bases.clone();
        let components = components::read(node, kind, &all, known)?;
        let mut standard = false;
        for (of, name) in &all {
            let Some(param) = definitions().param(*of, code) else { continue };
            let text = own(&expression, name, &all);
            let same_text = param.text(*of).is_some_and(|said| plain(&said) == plain(&text));
            if param.kind != kind || !same_text || !components::are_of(&components, param) {
                let what = format!("{name} has a standard search parameter '{code}' that means something else.");
                return Err(wrong("code", what));
            }
            bases.retain(|(other, _)| other != of);
            standard = true;
        }
        if standard && bases.is_empty() {
            return Ok(None);
        }
        let parts: Vec<String> = bases.iter().map(|(_, name)| own(&expression, name, &all)).collect();
        let expression = if standard { parts.join(" | ") } else { expression };
        let definition = Definition {
            resource: resource.id().unwrap_or_default().to_owned(),
            url: text(node, "url").unwrap_or_default().to_owned(),
            code: code.to_owned(),
            kind: kind.name().to_owned(),
            bases: bases.iter().map(|(_, name)| (*name).to_owned()).collect(),
            targets: targets.iter().map(|(_, name)| (*name).to_owned()).collect(),
            expression,
            components,
            limits: limits(node, kind)?,
        };
        definition.check(&bases)?;
        Ok(Some(definition))
    }

    /// Whether the expression can be followed for each of the types.
    fn check(&self, bases: &[(TypeId, &'static str)]) -> Result<()> {
        for (_, name) in bases {
            let text = own(&self.expression, name, bases);
            if text.is_empty() {
                return Err(wrong("expression", format!("No part of the expression is for {name}.")));
            }
            let said = |error: Error| {
                let what = error.issues.into_iter().next().map(|issue| issue.diagnostics).unwrap_or_default();
                wrong("expression", format!("For {name}: {what}"))
            };
            let expr = Expr::parse(&text).map_err(said)?;
            expr.check(name).map_err(said)?;
            if self.components.is_empty() {
                known_members(&expr, name).map_err(said)?;
            }
            let mut parts = self.components.iter().enumerate();
            parts.try_for_each(|(n, part)| part.check(n, &text, name))?;
        }
        Ok(())
    }

    /// # Errors
    /// `Kind::Internal` for what this version cannot follow: it was checked when it was written, by another version.
    fn spec(&self) -> Result<Spec> {
        let bases = type_ids(&self.bases)?;
        Ok(Spec {
            code: self.code.clone(),
            url: self.url.clone(),
            kind: ParamKind::of(&self.kind).ok_or_else(lost)?,
            targets: type_ids(&self.targets)?,
            expression: self.expression.clone(),
            components: self.components.iter().map(|part| part.part(&bases)).collect::<Result<_>>()?,
            limits: self.limits.clone(),
            bases,
        })
    }

    /// The parameter under its number; None when the number stands for something else in this process.
    ///
    /// # Errors
    /// As [`Definition::spec`].
    pub fn param(&self, id: ParamId) -> Result<Option<&'static Param>> {
        Ok(custom::install(id, self.spec()?))
    }

    /// Whether both are found under one name on one type.
    pub fn collides(&self, other: &Definition) -> bool {
        self.code == other.code && self.bases.iter().any(|base| other.bases.contains(base))
    }
}

fn lost() -> Error {
    Error::internal("a stored search parameter cannot be followed by this version")
}

fn type_ids(names: &[String]) -> Result<Vec<TypeId>> {
    let mut ids = names.iter().map(|name| definitions().type_id(name).ok_or_else(lost)).collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Fails unless it can be told what an expression reads, and a type has all of it.
fn known_members(expr: &Expr, name: &str) -> Result<()> {
    let has = |member: &String| definitions().children(name).is_some_and(|all| all.iter().any(|e| e.name == member));
    match expr.members()?.iter().find(|member| !has(member)) {
        Some(member) => Err(Error::invalid(format!("'{member}' is no element of {name}."))),
        None => Ok(()),
    }
}

/// The part of an expression that is for one of its types.
fn own(expression: &str, name: &str, bases: &[(TypeId, &'static str)]) -> String {
    match bases {
        [_] => expression.to_owned(),
        _ => crate::fhir::definitions::of_type(expression, name),
    }
}

/// Without white space and outer brackets, to compare two expressions.
fn plain(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    match bare.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) if !inner.contains(['(', ')']) => inner.to_owned(),
        _ => bare,
    }
}

fn check_code(code: &str) -> Result<()> {
    let well_formed = code.starts_with(|c: char| c.is_ascii_alphabetic())
        && code.len() <= CODE_MAX
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if well_formed {
        return Ok(());
    }
    let what = format!("A code has 1 to {CODE_MAX} letters, digits, '-' and '_', and begins with a letter.");
    Err(wrong("code", what))
}

fn check_length(expression: &str) -> Result<()> {
    match expression.len() {
        0 => Err(wrong("expression", "An active search parameter needs an expression.")),
        n if n > EXPRESSION_MAX => {
            Err(wrong("expression", format!("The expression is longer than {EXPRESSION_MAX} bytes.")))
        }
        _ => Ok(()),
    }
}

fn kind(code: &str) -> Result<ParamKind> {
    match ParamKind::of(code) {
        Some(ParamKind::Special) => {
            let what = "What a parameter of type special finds stands in no expression: it cannot be defined by one.";
            Err(unsupported("type", what))
        }
        Some(kind) if kind.code() == code => Ok(kind),
        _ => Err(wrong("type", format!("'{code}' is no type of search parameters."))),
    }
}

/// How a parameter is used decides one thing: whether strings are compared by their sound.
fn usage(node: &Node, kind: ParamKind) -> Result<ParamKind> {
    match (text(node, "xpathUsage"), kind) {
        (Some("phonetic"), ParamKind::String) => Ok(ParamKind::Phonetic),
        (Some("phonetic"), _) => {
            Err(wrong("xpathUsage", format!("A {} parameter has no sound: only a string has.", kind.code())))
        }
        _ => Ok(kind),
    }
}

/// Types that a member names, sorted by number.
fn types(node: &Node, member: &'static str) -> Result<Vec<(TypeId, &'static str)>> {
    let mut found = Vec::new();
    for (n, name) in texts(node, member).unwrap_or_default().into_iter().enumerate() {
        let place = format!("{member}[{n}]");
        if ["Resource", "DomainResource"].contains(&name.as_str()) && member == "target" {
            return Ok(Vec::new());
        }
        match definitions().type_id(&name) {
            Some(id) => found.push((id, definitions().type_name(id))),
            None if definitions().is_type(&name) => {
                return Err(unsupported(&place, format!("Name the types themselves: {name} stands for all of them.")));
            }
            None => return Err(wrong(&place, format!("'{name}' is no resource type."))),
        }
    }
    if found.is_empty() && member == "base" {
        return Err(wrong("base", "An active search parameter needs at least one base type."));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// What is stated forbids the rest; what is not stated is allowed.
fn limits(node: &Node, kind: ParamKind) -> Result<Limits> {
    let is_false = |member: &str| node.get(member) == Some(&Node::Bool(false));
    let chains = texts(node, "chain");
    if chains.is_some() && kind != ParamKind::Reference {
        return Err(unsupported("chain", format!("Nothing can be chained to a {} parameter.", kind.code())));
    }
    Ok(Limits {
        modifiers: modifiers(node, kind)?,
        comparators: comparators(node, kind)?,
        chains,
        one_value: is_false("multipleOr"),
        once: is_false("multipleAnd"),
    })
}

/// Modifiers that are stated must be those that its kind has.
fn modifiers(node: &Node, kind: ParamKind) -> Result<Option<Vec<String>>> {
    let Some(stated) = texts(node, "modifier") else { return Ok(None) };
    for (n, code) in stated.iter().enumerate() {
        let applies = match code.as_str() {
            "missing" => kind != ParamKind::Composite,
            "exact" | "contains" => kind == ParamKind::String,
            "not" | "text" | "in" | "not-in" | "ofType" => kind == ParamKind::Token,
            "above" | "below" => matches!(kind, ParamKind::Token | ParamKind::Uri | ParamKind::Reference),
            "type" | "identifier" => kind == ParamKind::Reference,
            _ => false,
        };
        if !applies {
            let what = format!("The modifier '{code}' does not apply to a {} parameter.", kind.name());
            return Err(if MODIFIERS.contains(&code.as_str()) {
                unsupported(&format!("modifier[{n}]"), what)
            } else {
                wrong(&format!("modifier[{n}]"), what)
            });
        }
    }
    Ok(Some(stated))
}

fn comparators(node: &Node, kind: ParamKind) -> Result<Option<Vec<String>>> {
    let Some(stated) = texts(node, "comparator") else { return Ok(None) };
    let ordered = matches!(kind, ParamKind::Number | ParamKind::Date | ParamKind::Quantity);
    match ordered || stated.is_empty() {
        true => Ok(Some(stated)),
        false => Err(unsupported("comparator", format!("A {} parameter takes no comparators.", kind.code()))),
    }
}

/// How a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Written into new versions; resources that were there before are being gone through.
    Indexing {
        done: u64,
        total: u64,
    },
    Ready,
    /// No parameter any more; what it left in the index is being taken away.
    Ending {
        done: u64,
        total: u64,
    },
}

/// One parameter of the site.
#[derive(Clone)]
pub struct Defined {
    pub definition: Definition,
    pub param: &'static Param,
    pub standing: Standing,
}

/// The parameters of the site as they stood at one time.
#[derive(Clone, Default)]
pub struct Customs {
    /// Grows with every change; what was written under another one lacks something, or has too much.
    pub epoch: i64,
    pub all: Vec<Defined>,
}

impl Customs {
    /// Those that are not ending.
    fn live_params(&self) -> impl Iterator<Item = &'static Param> {
        self.all.iter().filter(|one| !matches!(one.standing, Standing::Ending { .. })).map(|one| one.param)
    }

    /// Those that what is written now must have the values of.
    pub fn indexed(&self, of: TypeId) -> impl Iterator<Item = &'static Param> {
        self.live_params().filter(move |param| param.bases.contains(&of))
    }

    /// Those that can be searched by.
    pub fn ready(&self, of: TypeId) -> impl Iterator<Item = &'static Param> {
        let ready = self.all.iter().filter(|one| one.standing == Standing::Ready);
        ready.map(|one| one.param).filter(move |param| param.bases.contains(&of))
    }

    /// Whether some resources are yet to be gone through: their terms may change without a new version.
    pub fn is_working(&self) -> bool {
        self.all.iter().any(|one| one.standing != Standing::Ready)
    }

    fn live(&self, of: TypeId, code: &str) -> Option<&Defined> {
        let named = |one: &&Defined| one.param.code == code && one.param.bases.contains(&of);
        self.all.iter().filter(named).find(|one| !matches!(one.standing, Standing::Ending { .. }))
    }
}

/// What a query looks names up in, and whether it had to look beyond the standard.
#[derive(Clone, Default)]
pub struct Lookup {
    customs: Arc<Customs>,
    asked: Arc<AtomicBool>,
}

impl Lookup {
    pub fn new(customs: Arc<Customs>) -> Lookup {
        Lookup { customs, asked: Arc::default() }
    }

    pub fn find(&self, of: TypeId, code: &str) -> Option<&Defined> {
        self.asked.store(true, Ordering::Relaxed);
        self.customs.live(of, code)
    }

    /// A name that the standard does not have was looked for: what there is now matters.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn epoch(&self) -> i64 {
        self.customs.epoch
    }

    /// Names to suggest.
    pub fn codes(&self, of: TypeId) -> impl Iterator<Item = &'static str> {
        self.customs.ready(of).map(|param| param.code)
    }
}
