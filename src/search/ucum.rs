//! UCUM: canonical units, so that quantities in different units compare.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

/// The system of UCUM codes.
pub const SYSTEM: &str = "http://unitsofmeasure.org";

/// How values of a unit become values of its canonical unit: `value * factor + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct Canonical {
    /// Canonical unit (`g.m-3`).
    pub unit: Arc<str>,
    pub factor: f64,
    pub offset: f64,
}

impl Canonical {
    /// A value of the unit in the canonical unit. Infinities stay.
    pub fn convert(&self, value: f64) -> f64 {
        value * self.factor + self.offset
    }
}

/// Codes in stored data are few; a flood of distinct ones must not grow the memory without bound.
const CACHED_MAX: usize = 8_192;
const CODE_MAX: usize = 64;

static CACHE: LazyLock<RwLock<HashMap<Box<str>, Option<Canonical>>>> = LazyLock::new(RwLock::default);

/// The canonical form of a UCUM code; None when it is no UCUM code, or on a logarithmic scale.
pub fn canonical(code: &str) -> Option<Canonical> {
    if code.len() > CODE_MAX {
        return None;
    }
    // A poisoned lock means a panic while inserting: the map itself is still whole.
    if let Some(known) = CACHE.read().unwrap_or_else(|poison| poison.into_inner()).get(code) {
        return known.clone();
    }
    let found = compute(code);
    let mut cache = CACHE.write().unwrap_or_else(|poison| poison.into_inner());
    if cache.len() < CACHED_MAX {
        cache.insert(code.into(), found.clone());
    }
    found
}

fn compute(code: &str) -> Option<Canonical> {
    let canonical = octofhir_ucum::get_canonical_units(code).ok()?;
    let (factor, offset) = (canonical.factor.to_f64(), canonical.offset.to_f64());
    (factor.is_finite() && factor > 0.0 && offset.is_finite()).then(|| Canonical {
        unit: canonical.unit.into(),
        factor,
        offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_dimension_meet() {
        for (a, from, b, to) in [
            (1000.0, "mg", 1.0, "g"),
            (1.0, "mg/dL", 10.0, "mg/L"),
            (37.0, "Cel", 310.15, "K"),
            (98.6, "[degF]", 37.0, "Cel"),
            (120.0, "mm[Hg]", 120.0, "mm[Hg]"),
            (1.0, "m[IU]/mL", 1.0, "[IU]/L"),
        ] {
            let (left, right) = (canonical(from).expect(from), canonical(to).expect(to));
            assert_eq!(left.unit, right.unit, "{from} {to}");
            let (left, right) = (left.convert(a), right.convert(b));
            assert!((left - right).abs() <= right.abs() * 1e-12, "{a} {from} = {b} {to}: {left} {right}");
        }
    }

    #[test]
    fn what_does_not_compare_stays_apart() {
        assert_ne!(canonical("mg").map(|c| c.unit), canonical("mL").map(|c| c.unit));
        assert_ne!(canonical("[IU]").map(|c| c.unit), canonical("[arb'U]").map(|c| c.unit));
        for none in ["", "no unit", "[pH]", "mg mL", &"m".repeat(65)] {
            assert!(canonical(none).is_none(), "{none}");
        }
    }
}
