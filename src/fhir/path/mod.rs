//! FHIRPath: parsed once, evaluated often. No allocation on the common path of a search expression but for its result.
//!
//! Knows the tree and the definitions, nothing of search, storage or terminology. Expressions come from the
//! definitions and from clients alike, so length, nesting, steps and sizes are limited.

mod check;
mod compare;
mod convert;
mod eval;
mod functions;
mod lex;
mod math;
mod ops;
mod parse;
mod quantity;
mod reads;
#[cfg(test)]
mod speed;
mod strings;
#[cfg(test)]
mod suite;
mod temporal;
#[cfg(test)]
pub(in crate::fhir) mod tests;
mod tree;
mod types;
mod value;

use std::borrow::Cow;

use super::json::Node;
use crate::error::{Error, Result};
use crate::world::Instant;

/// The code system of UCUM.
const UCUM: &str = "http://unitsofmeasure.org";

/// A compiled expression.
pub struct Expr {
    op: ops::Op,
}

/// One item of a result: a node of the tree with what is known of its type.
#[derive(Clone)]
pub struct Item<'a> {
    /// The value: a borrowed node, or one that the expression made (dates as strings, quantities as objects).
    /// `Null` for a primitive that has only its sibling.
    pub node: Cow<'a, Node>,
    /// The `_name` sibling of a primitive (its id and extensions), if any.
    pub sibling: Option<&'a Node>,
    /// FHIR type where known (`HumanName`, `dateTime`, `Quantity`), from the definitions or the choice suffix.
    pub kind: Option<&'static str>,
    ty: types::Ty,
}

/// What an expression is evaluated in.
pub struct Env<'a> {
    /// `%resource` and `%rootResource`, in which `resolve()` looks for contained resources and Bundle entries.
    resource: &'a Node,
    variables: Vec<(String, Vec<Item<'a>>)>,
    now: Option<Instant>,
    strict: bool,
}

impl<'a> Item<'a> {
    /// A resource as an item of its own.
    pub fn root(resource: &'a Node) -> Item<'a> {
        value::Val::root(resource).into_item()
    }

    /// A node inside a resource, with the name of its type (`HumanName`, `Patient.contact`, `string`).
    pub fn at(node: &'a Node, kind: &str) -> Item<'a> {
        let ty = types::Ty::named(kind).unwrap_or(types::Ty::UNKNOWN);
        value::Val::Node { node, sibling: None, ty }.into_item()
    }

    /// The node in the tree; None for what the expression made.
    pub fn borrowed(&self) -> Option<&'a Node> {
        match self.node {
            Cow::Borrowed(node) => Some(node),
            Cow::Owned(_) => None,
        }
    }
}

impl<'a> Env<'a> {
    /// For the root of a resource: lenient where the search expressions of R4 need it (`as` over collections, `as`
    /// with the name of the System type), no clock, no variables.
    pub fn of(resource: &'a Node) -> Env<'a> {
        Env { resource, variables: Vec::new(), now: None, strict: false }
    }

    /// Exactly the language: `as()` wants a single item.
    pub fn strict(mut self) -> Env<'a> {
        self.strict = true;
        self
    }

    /// What `now()`, `today()` and `timeOfDay()` say (in UTC). Without it they are errors.
    pub fn at(mut self, now: Instant) -> Env<'a> {
        self.now = Some(now);
        self
    }

    /// Gives a variable: `patient` for `%patient`.
    pub fn with(mut self, name: &str, items: Vec<Item<'a>>) -> Env<'a> {
        self.variables.push((name.to_owned(), items));
        self
    }
}

impl Expr {
    /// Parses and compiles.
    ///
    /// # Errors
    /// `Kind::Invalid` with the column of the fault.
    pub fn parse(text: &str) -> Result<Expr> {
        parse::parse(text).map(|op| Expr { op })
    }

    /// Checks the expression against the type it is written for: every name must be that of an element.
    ///
    /// # Errors
    /// `Kind::Invalid` naming what is not there.
    pub fn check(&self, root: &str) -> Result<()> {
        let root = types::Ty::named(root).ok_or_else(|| Error::invalid("FHIRPath: the root is of no type of R4."))?;
        check::check(&self.op, root)
    }

    /// The members of the resource that the expression reads: `telecom` of `Patient.telecom.value`.
    ///
    /// # Errors
    /// `Kind::Invalid` where that cannot be told for every resource (`%resource`, `descendants()` ...).
    pub fn members(&self) -> Result<std::collections::BTreeSet<String>> {
        reads::members(&self.op)
    }

    /// Evaluates against the root of a resource. `resolve()` gives what the reference points to: the resource itself
    /// when it is contained or an entry of the same Bundle, otherwise an item of which only the type is known (so that
    /// `is(Type)` answers), as search expressions need it.
    ///
    /// # Errors
    /// `Kind::Invalid`: those of FHIRPath (a single item expected, types that do not fit); `Kind::TooCostly`.
    pub fn eval<'a>(&self, root: &'a Node) -> Result<Vec<Item<'a>>> {
        eval::run(&self.op, &Env::of(root), value::Val::root(root))
    }

    /// Evaluates at an item of the resource: the components of a composite parameter, a column of a view.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn eval_at<'a>(&self, root: &'a Node, at: &Item<'a>) -> Result<Vec<Item<'a>>> {
        self.eval_in(&Env::of(root), at)
    }

    /// Evaluates at an item, with variables and a clock.
    ///
    /// # Errors
    /// As [`Expr::eval`]; also for an item that an expression made and that is no primitive.
    pub fn eval_in<'a>(&self, env: &Env<'a>, at: &Item<'a>) -> Result<Vec<Item<'a>>> {
        let at = value::Val::of_item(at)
            .ok_or_else(|| Error::invalid("FHIRPath: an item that is not of the resource cannot be the context."))?;
        eval::run(&self.op, env, at)
    }

    /// The result as a condition: a boolean is itself, another single item is true, nothing is false.
    ///
    /// # Errors
    /// As [`Expr::eval`]; also when there are several items.
    pub fn holds(&self, env: &Env<'_>, at: &Item<'_>) -> Result<bool> {
        match self.eval_in(env, at)?.as_slice() {
            [] => Ok(false),
            [item] => Ok(!matches!(*item.node, Node::Bool(false))),
            _ => Err(Error::invalid("FHIRPath: a condition gives several items.")),
        }
    }
}
