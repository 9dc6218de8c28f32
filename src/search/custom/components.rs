//! The components of a composite that a site defines: each is a value of a parameter that is there, at a place of its own
//! below what the composite is based on.

use serde::{Deserialize, Serialize};

use super::{Definition, EXPRESSION_MAX, Known, text, wrong};
use crate::error::{Error, Result};
use crate::fhir::definitions::custom::{Part, PartOf};
use crate::fhir::definitions::{self as facts, Param, within};
use crate::fhir::json::Node;
use crate::fhir::path::Expr;
use crate::fhir::{ParamKind, TypeId, definitions};

const COMPONENTS: std::ops::RangeInclusive<usize> = 2..=8;

/// One component, as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Component {
    /// Canonical url of its parameter.
    definition: String,
    expression: String,
    /// Of a parameter of the site: what it was when the composite was defined.
    own: Option<Own>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    kind: String,
    targets: Vec<String>,
}

type Bases = [(TypeId, &'static str)];

/// Reads the components of a SearchParameter; only a composite has any.
///
/// # Errors
/// `Kind::BusinessRule` naming the component that cannot be followed.
pub(super) fn read(node: &Node, kind: ParamKind, bases: &Bases, known: &Known<'_>) -> Result<Vec<Component>> {
    let stated = node.get("component").and_then(Node::as_array).into_iter().flatten();
    let stated: Vec<&Node> = stated.collect();
    match (kind == ParamKind::Composite, stated.len()) {
        (false, 0) => return Ok(Vec::new()),
        (false, _) => return Err(wrong("component", "Only a composite has components.")),
        (true, n) if !COMPONENTS.contains(&n) => {
            let (least, most) = (COMPONENTS.start(), COMPONENTS.end());
            return Err(wrong("component", format!("A composite has {least} to {most} components.")));
        }
        (true, _) => {}
    }
    stated.into_iter().enumerate().map(|(n, one)| component(n, one, bases, known)).collect()
}

/// What a component is a value of, as far as it matters here.
struct Named {
    code: String,
    kind: ParamKind,
    /// Empty: all types.
    bases: Vec<TypeId>,
    own: Option<Own>,
}

impl Named {
    fn of(param: &Param, is_own: bool) -> Named {
        let own = is_own.then(|| Own::of(param));
        Named { code: param.code.to_owned(), kind: param.kind, bases: param.bases.clone(), own }
    }

    fn defined(definition: &Definition) -> Result<Named> {
        let own = Own { kind: definition.kind.clone(), targets: definition.targets.clone() };
        let kind = ParamKind::of(&definition.kind).ok_or_else(super::lost)?;
        let bases = super::type_ids(&definition.bases)?;
        Ok(Named { code: definition.code.clone(), kind, bases, own: Some(own) })
    }
}

/// The parameter of a url: of the standard, of the same write, of the site.
fn named(url: &str, bases: &Bases, known: &Known<'_>) -> Result<Option<Named>> {
    let of = |(kind, _): &(TypeId, &str)| definitions().params(*kind).iter().copied().find(|param| param.url == url);
    if let Some(param) = bases.first().and_then(of) {
        return Ok(Some(Named::of(param, false)));
    }
    if let Some(definition) = known.made.iter().find(|made| made.url == url) {
        return Named::defined(definition).map(Some);
    }
    let mut live = known.customs.live_params();
    Ok(live.find(|param| param.url == url).map(|param| Named::of(param, true)))
}

fn component(n: usize, node: &Node, bases: &Bases, known: &Known<'_>) -> Result<Component> {
    let canonical = text(node, "definition").unwrap_or_default();
    let url = canonical.split('|').next().unwrap_or_default();
    let place = format!("component[{n}].definition");
    let unknown = || wrong(&place, format!("'{url}' is no search parameter of this server."));
    let param = named(url, bases, known)?.ok_or_else(unknown)?;
    let applies = |base: &TypeId| param.bases.is_empty() || param.bases.contains(base);
    if let Some((_, name)) = bases.iter().find(|(base, _)| !applies(base)) {
        return Err(wrong(&place, format!("'{}' is no search parameter of {name}.", param.code)));
    }
    if matches!(param.kind, ParamKind::Composite | ParamKind::Special) {
        let what = format!("A parameter of type {} cannot be part of a composite.", param.kind.code());
        return Err(wrong(&place, what));
    }
    let expression = text(node, "expression").unwrap_or_default().trim().to_owned();
    if expression.is_empty() || expression.len() > EXPRESSION_MAX {
        let what = format!("The expression of a component has 1 to {EXPRESSION_MAX} bytes.");
        return Err(wrong(&format!("component[{n}].expression"), what));
    }
    Ok(Component { definition: url.to_owned(), expression, own: param.own })
}

/// Whether these are the components of a parameter of the standard.
pub(super) fn are_of(components: &[Component], param: &Param) -> bool {
    let same = |(own, other): (&Component, &facts::Component)| {
        let url = other.param().map(|param| param.url);
        url == Some(own.definition.as_str()) && super::plain(&own.expression) == super::plain(other.expression)
    };
    components.len() == param.components.len() && components.iter().zip(&param.components).all(same)
}

impl Own {
    fn of(param: &Param) -> Own {
        let targets = param.targets.iter().map(|kind| definitions().type_name(*kind).to_owned());
        Own { kind: param.kind.name().to_owned(), targets: targets.collect() }
    }
}

impl Component {
    /// Whether its expression can be followed from what the composite is based on in a type.
    pub(super) fn check(&self, n: usize, base: &str, name: &str) -> Result<()> {
        let said = |error: Error| {
            let what = error.issues.into_iter().next().map(|issue| issue.diagnostics).unwrap_or_default();
            wrong(&format!("component[{n}].expression"), format!("For {name}: {what}"))
        };
        // Alone first: what closes a bracket of others is no expression.
        Expr::parse(&self.expression).map_err(said)?;
        let whole = Expr::parse(&within(base, &self.expression)).map_err(said)?;
        whole.check(name).map_err(said)?;
        super::known_members(&whole, name).map_err(said)
    }

    /// # Errors
    /// `Kind::Internal` for what this version cannot follow.
    pub(super) fn part(&self, bases: &[TypeId]) -> Result<Part> {
        let of = match &self.own {
            Some(own) => PartOf::Own {
                kind: ParamKind::of(&own.kind).ok_or_else(super::lost)?,
                targets: super::type_ids(&own.targets)?,
            },
            None => {
                let params = bases.first().map_or(&[][..], |base| definitions().params(*base));
                let param = params.iter().find(|param| param.url == self.definition);
                PartOf::Standard(param.ok_or_else(super::lost)?.id)
            }
        };
        Ok(Part { of, expression: self.expression.clone() })
    }
}
