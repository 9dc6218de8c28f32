//! The OperationDefinitions of this server, made from the table.

use serde_json::json;

use super::table::{OPERATIONS, Operation, Param};
use crate::fhir::json::Node;
use crate::interaction::Scene;

/// The OperationDefinition of this logical id.
pub(in crate::interaction) fn built_in(scene: Scene<'_>, id: &str) -> Option<Node> {
    let operation = OPERATIONS.iter().find(|operation| operation.id == id)?;
    Some(definition(operation, &scene.app.config.base_url))
}

fn definition(operation: &Operation, base: &str) -> Node {
    let mut definition = json!({
        "resourceType": "OperationDefinition",
        "id": operation.id,
        "url": operation.own_url(base),
        "version": env!("CARGO_PKG_VERSION"),
        "name": name(operation.id),
        "title": format!("${}", operation.name),
        "status": "active",
        "kind": "operation",
        "description": operation.about,
        "affectsState": operation.affects,
        "code": operation.name,
    });
    if let Some(published) = operation.published {
        definition["base"] = json!(published);
    }
    if operation.levels.on_type || operation.levels.instance {
        let types = if operation.types.is_empty() { &["Resource"] } else { operation.types };
        definition["resource"] = json!(types);
    }
    definition["system"] = json!(operation.levels.system);
    definition["type"] = json!(operation.levels.on_type);
    definition["instance"] = json!(operation.levels.instance);
    let params = operation.params.iter().map(param);
    definition["parameter"] = params.chain([output(operation)]).collect();
    definition
}

fn param(param: &Param) -> Node {
    let kind = param.is.name();
    json!({
        "name": param.name,
        "use": "in",
        "min": param.min,
        "max": if param.many { "*" } else { "1" },
        "documentation": param.about,
        "type": kind,
    })
}

fn output(operation: &Operation) -> Node {
    json!({"name": "return", "use": "out", "min": 1, "max": "1", "type": operation.returns})
}

/// `Patient-everything` as a name that a program can use.
fn name(id: &str) -> String {
    let upper = |part: &str| part.split_at_checked(1).map(|(first, rest)| first.to_ascii_uppercase() + rest);
    id.split('-').filter_map(upper).collect()
}
