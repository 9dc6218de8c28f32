//! Status moves: which value may follow which.

use crate::error::{Error, Kind, Result};
use crate::fhir::Resource;
use crate::fhir::json::Node;
use crate::mapping::Moves;
use crate::search::Values;
use crate::search::values::Value;

/// # Errors
/// `Kind::BusinessRule` at the element when the move is not legal. The text names the value that was sent, not the
/// one that stands: the caller may be allowed to write without being allowed to read.
pub(super) fn check(moves: &Moves, resource: &Resource, current: Option<&Values>) -> Result<()> {
    let from = current.and_then(|values| values.params.get(&moves.param)?.first());
    let Some(Value::Token { code: Some(from), .. }) = from else { return Ok(()) };
    let Some(to) = resource.node().get(&moves.element).and_then(Node::as_str) else { return Ok(()) };
    let legal = moves.legal.get(from).is_some_and(|all| all.iter().any(|code| code == to));
    if from == to || legal {
        return Ok(());
    }
    let place = format!("{}.{}", resource.type_name(), moves.element);
    let said = format!("{place} cannot become '{to}' from the value it has now.");
    Err(Error::new(Kind::BusinessRule, said).at(place))
}
