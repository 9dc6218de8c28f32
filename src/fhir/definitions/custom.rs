//! Search parameters that a site defines itself. Each has a number of its own database, given once and for good: values
//! and terms are stored under it. What is known here is what a number means; whether it can be searched by is for the
//! store. A process serves one database, so a number means one thing in it.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock};

use super::{Param, ParamId, ParamKind, TypeId};
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
    /// Codes of the modifiers it takes; None: all of its kind.
    pub modifiers: Option<Vec<String>>,
    /// Prefixes it takes; None: all of its kind.
    pub comparators: Option<Vec<String>>,
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

/// Says what a number means. None: it means something else already, or the expression cannot be compiled. What is made here stays to the end of the process:
/// there are at most [`NUMBERS`].
pub fn install(id: ParamId, spec: Spec) -> Option<&'static Param> {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if let Some((stands, param)) = known.get(&id) {
        return (*stands == spec).then_some(*param);
    }
    let words = |list: &Option<Vec<String>>| list.clone().map(|list| &*list.leak());
    let param: &'static Param = Box::leak(Box::new(Param {
        id,
        code: spec.code.clone().leak(),
        url: spec.url.clone().leak(),
        kind: spec.kind,
        bases: spec.bases.clone(),
        targets: spec.targets.clone(),
        components: Vec::new(),
        expression: spec.expression.clone().leak(),
        modifiers: words(&spec.modifiers),
        comparators: words(&spec.comparators),
        compiled: spec.bases.iter().map(|_| OnceLock::new()).collect(),
    }));
    let compiles = |of: &TypeId| param.text(*of).is_some_and(|text| Expr::parse(&text).is_ok());
    if !param.bases.iter().all(compiles) {
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
