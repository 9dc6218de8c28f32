//! Search parameters that a site defines itself. Each has a number of its own database, given once and for good: values
//! and terms are stored under it. What is known here is what a number means; whether it can be searched by is for the
//! store. A process serves one database, so a number means one thing in it.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock};

use super::param::{Component, Of, of_type as part_for, tells};
use super::{Limits, Param, ParamId, ParamKind, TypeId, definitions};
use crate::fhir::path::Expr;

/// Numbers of the standard are below.
const FIRST: u16 = 0x8000;

/// How many there can be in the life of a database.
pub const NUMBERS: u16 = u16::MAX - FIRST;

/// What a parameter is, without its number.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    pub code: String,
    pub url: String,
    pub kind: ParamKind,
    /// Sorted, not empty.
    pub bases: Vec<TypeId>,
    /// Sorted; empty: any.
    pub targets: Vec<TypeId>,
    pub expression: String,
    /// Of a composite.
    pub components: Vec<Part>,
    pub limits: Limits,
}

/// One component of a composite.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    pub of: PartOf,
    /// Relative to what the expression of the composite gives.
    pub expression: String,
}

#[derive(Clone, PartialEq, Eq)]
pub enum PartOf {
    Standard(ParamId),
    /// A parameter of the site as it was when the composite was defined: it may be another one tomorrow, or none.
    Own {
        kind: ParamKind,
        targets: Vec<TypeId>,
    },
}

impl Spec {
    /// The part of the expression that is for a type.
    fn text(&self, of: TypeId) -> String {
        match self.bases.len() {
            1 => self.expression.clone(),
            _ => part_for(&self.expression, definitions().type_name(of)),
        }
    }

    fn component(&self, id: ParamId, part: &Part) -> Component {
        let (of, told) = match &part.of {
            PartOf::Standard(number) => {
                let param = definitions().param_by_id(*number);
                let told =
                    |kind: &TypeId| param.is_some_and(|param| tells(param, *kind, &self.text(*kind), &part.expression));
                (Of::Number(*number), self.bases.iter().copied().filter(told).collect())
            }
            PartOf::Own { kind, targets } => {
                let own = Spec {
                    kind: *kind,
                    targets: targets.clone(),
                    components: Vec::new(),
                    limits: Limits::default(),
                    ..self.clone()
                };
                (Of::Own(Box::new(own.param(id))), Vec::new())
            }
        };
        let expression = part.expression.clone().leak();
        Component { of, expression, told: Some(told), compiled: OnceLock::new() }
    }

    fn param(&self, id: ParamId) -> Param {
        Param {
            id,
            code: self.code.clone().leak(),
            url: self.url.clone().leak(),
            kind: self.kind,
            bases: self.bases.clone(),
            targets: self.targets.clone(),
            components: self.components.iter().map(|part| self.component(id, part)).collect(),
            expression: self.expression.clone().leak(),
            limits: self.limits.clone(),
            compiled: self.bases.iter().map(|_| OnceLock::new()).collect(),
        }
    }
}

type Known = HashMap<ParamId, (Spec, &'static Param)>;

static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);

impl ParamId {
    /// The how-manyth parameter of a site, from 1; None beyond the last number.
    pub fn custom(n: u64) -> Option<ParamId> {
        let n = u16::try_from(n).ok().filter(|n| (1..=NUMBERS).contains(n))?;
        Some(ParamId(FIRST + (n - 1)))
    }

    pub fn is_custom(self) -> bool {
        self.0 >= FIRST
    }
}

/// Says what a number means. None: it means something else already, or an expression cannot be compiled. What is made
/// here stays to the end of the process: there are at most [`NUMBERS`].
pub fn install(id: ParamId, spec: Spec) -> Option<&'static Param> {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if let Some((stands, param)) = known.get(&id) {
        return (*stands == spec).then_some(*param);
    }
    let param: &'static Param = Box::leak(Box::new(spec.param(id)));
    let compiles = |of: &TypeId| param.text(*of).is_some_and(|text| Expr::parse(&text).is_ok());
    let parts = param.components.iter().all(|part| Expr::parse(part.expression).is_ok());
    if !parts || !param.bases.iter().all(compiles) {
        return None;
    }
    known.insert(id, (spec, param));
    Some(param)
}

/// What a number means, if that was said.
pub(super) fn by_id(id: ParamId) -> Option<&'static Param> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.get(&id).map(|(_, param)| *param)
}

/// All that apply to a type, whatever their state.
pub fn of_type(kind: TypeId) -> Vec<&'static Param> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.values().map(|(_, param)| *param).filter(|param| param.bases.contains(&kind)).collect()
}

/// How many there are.
pub fn count() -> usize {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).len()
}
