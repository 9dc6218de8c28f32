//! FHIRPath: parsed once, evaluated often. No allocation on the common path of a search expression.

use super::json::Node;
use crate::error::Result;

/// A compiled expression.
pub struct Expr {}

/// One item of a result: a node of the tree with what is known of its type.
#[derive(Clone)]
pub struct Item<'a> {
    /// The value: a borrowed node, or one that the expression made.
    pub node: std::borrow::Cow<'a, Node>,
    /// The `_name` sibling of a primitive (its id and extensions), if any.
    pub sibling: Option<&'a Node>,
    /// FHIR type where known (`HumanName`, `dateTime`, `Quantity`), from the definitions or the choice suffix.
    pub kind: Option<&'static str>,
}

impl Expr {
    /// Parses and compiles.
    ///
    /// # Errors
    /// `Kind::Invalid` with the column of the fault.
    pub fn parse(_text: &str) -> Result<Expr> {
        todo!()
    }

    /// Evaluates against the root of a resource. `resolve()` gives the reference's type and id only (an item of
    /// kind `Reference` that `is(Type)` answers), as search expressions need it.
    ///
    /// # Errors
    /// Those of FHIRPath (a single item expected, types that do not fit).
    pub fn eval<'a>(&self, _root: &'a Node) -> Result<Vec<Item<'a>>> {
        todo!()
    }
}
