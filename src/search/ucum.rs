//! UCUM: canonical units for quantity search.

/// How values of a unit become values of its canonical unit: `value * factor + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct Canonical {
    /// Canonical unit (`g.m-3`).
    pub unit: std::sync::Arc<str>,
    pub factor: f64,
    pub offset: f64,
}
