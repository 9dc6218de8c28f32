//! Domain rows: the fields that the mapping takes from a resource.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::DomainRow;
use crate::error::{Error, Result};
use crate::fhir::Resource;
use crate::fhir::json::Node;
use crate::fhir::path::Expr;
use crate::mapping::{Field, Mapping, Path, Section, Table};

/// The rows a resource fills: for each domain table the first rule whose condition holds.
pub(super) fn rows(mapping: &'static Mapping, resource: &Resource) -> Result<Vec<DomainRow>> {
    let mut rows: Vec<DomainRow> = Vec::new();
    for table in &mapping.tables {
        if rows.iter().any(|row| row.table == table.table) || !holds(table, resource.node())? {
            continue;
        }
        let mut fields: BTreeMap<Section, Map<String, Json>> = BTreeMap::new();
        for (name, value) in &table.set {
            fields.entry(mapping.section).or_default().insert(name.clone(), Json::String(value.clone()));
        }
        for field in &table.fields {
            if let Some(value) = value(field, resource.node())? {
                fields.entry(field.section).or_default().insert(field.name.clone(), value);
            }
        }
        rows.push(DomainRow { table: &table.table, fields, unique: Vec::new(), raise: None });
    }
    Ok(rows)
}

fn expr(path: &'static Path) -> Result<&'static Expr> {
    path.expr().ok_or_else(|| Error::internal("a mapping holds a path that is no FHIRPath"))
}

fn holds(table: &'static Table, root: &Node) -> Result<bool> {
    let Some(when) = &table.when else { return Ok(true) };
    Ok(matches!(expr(when)?.eval(root)?.as_slice(), [one] if *one.node == Json::Bool(true)))
}

/// The value of a field; None when the resource has none.
fn value(field: &'static Field, root: &Node) -> Result<Option<Json>> {
    let items = expr(&field.path)?.eval(root)?;
    let mut values = items.into_iter().map(|item| item.node.into_owned()).filter_map(|node| translate(field, node));
    if field.many {
        let all: Vec<Json> = values.collect();
        return Ok((!all.is_empty()).then_some(Json::Array(all)));
    }
    Ok(values.next())
}

/// None for a primitive without a value, and for a code that the field does not know.
fn translate(field: &Field, node: Json) -> Option<Json> {
    match node {
        Json::Null => None,
        Json::String(code) if !field.codes.is_empty() => {
            field.domain_code(&code).map(|code| Json::String(code.to_owned()))
        }
        other => Some(other),
    }
}
