//! The searches of one parameter: by the values that an example has, with each modifier and prefix of its kind.

use std::collections::BTreeSet;

use super::super::Persona;
use super::Example;
use crate::fhir::definitions::Param;
use crate::fhir::reference::Reference;
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::interaction::form;
use crate::search::values::Value;
use crate::world::Instant;

/// One request of a cell.
struct Try {
    cell: &'static str,
    modifier: String,
    value: String,
    /// Whether the example must be among the matches.
    found: bool,
}

/// The cells of a parameter that come out right.
pub async fn cells(caller: &Persona<'_>, kind: TypeId, param: &Param, examples: &[Example]) -> BTreeSet<String> {
    let with = examples.iter().find(|example| example.values.params.contains_key(&param.id));
    let without = examples.iter().find(|example| !example.values.params.contains_key(&param.id));
    let mut all = Vec::new();
    if let Some(example) = with {
        let values = &example.values.params[&param.id];
        all.push((
            example,
            if param.kind == ParamKind::Phonetic { of_sound(kind, example) } else { tries(param, values) },
        ));
        all.push((
            example,
            vec![attempt(":missing", ":missing", "false", true), attempt(":missing", ":missing", "true", false)],
        ));
    } else if let Some(example) = without.filter(|_| !param.code.starts_with('_')) {
        // Nothing has a value: that can be asked for too.
        all.push((
            example,
            vec![attempt(":missing", ":missing", "true", true), attempt(":missing", ":missing", "false", false)],
        ));
    }
    if let Some(example) = examples.first() {
        all.push((example, header(param, example)));
    }
    let (mut shown, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for (example, tries) in all {
        for attempt in tries {
            let well = holds(caller, kind, param, example, &attempt).await;
            if well {
                shown.insert(attempt.cell.to_owned())
            } else {
                failed.insert(attempt.cell.to_owned())
            };
        }
    }
    shown.retain(|cell| !failed.contains(cell));
    shown
}

async fn holds(caller: &Persona<'_>, kind: TypeId, param: &Param, example: &Example, attempt: &Try) -> bool {
    let pairs = [
        (format!("{}{}", param.code, attempt.modifier), attempt.value.clone()),
        ("_count".to_owned(), "1000".to_owned()),
        ("_elements".to_owned(), "id".to_owned()),
    ];
    let reply = caller.get(&format!("{}?{}", definitions().type_name(kind), form::encode(&pairs))).await;
    let id = example.resource.id().unwrap_or_default();
    reply.status == 200 && reply.ids().iter().any(|own| own == id) == attempt.found
}

fn attempt(cell: &'static str, modifier: impl Into<String>, value: impl Into<String>, found: bool) -> Try {
    Try { cell, modifier: modifier.into(), value: value.into(), found }
}

/// `_id` and `_lastUpdated`, which every resource has.
fn header(param: &Param, example: &Example) -> Vec<Try> {
    match param.code {
        "_id" => {
            let id = example.resource.id().unwrap_or_default();
            vec![attempt("value", "", id, true), attempt("value", "", "no-such-id", false)]
        }
        "_lastUpdated" => vec![
            attempt("ge", "", "ge2026-01-01", true),
            attempt("lt", "", "lt2026-01-01", false),
            attempt("value", "", "2026", true),
            attempt("value", "", "2025", false),
        ],
        _ => Vec::new(),
    }
}

/// By the first value that can be written as one of a search.
fn tries(param: &Param, values: &[Value]) -> Vec<Try> {
    let mut tries = values.iter().map(of_value).find(|tries| !tries.is_empty()).unwrap_or_default();
    if param.kind == ParamKind::Date {
        tries.push(attempt("lt", "", "lt0900-01-01", false));
        tries.push(attempt("gt", "", "gt3900-01-01", false));
    }
    tries
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if ['\\', ',', '$', '|'].contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn coded(system: &Option<String>, code: &str) -> String {
    let system = system.as_deref().map_or_else(String::new, |system| format!("{}|", escaped(system)));
    format!("{system}{}", escaped(code))
}

fn of_value(value: &Value) -> Vec<Try> {
    match value {
        Value::Token { system, code: Some(code), text } => of_token(system, code, text),
        Value::Identifier { system, value: Some(value), types, .. } => {
            let mut tries = vec![
                attempt("value", "", escaped(value), true),
                attempt("value", "", format!("{}-none", escaped(value)), false),
                attempt("with system", "", coded(system, value), true),
                attempt(":not", ":not", coded(system, value), false),
            ];
            if let Some((Some(system), Some(code))) = types.first() {
                let typed = format!("{}|{}|{}", escaped(system), escaped(code), escaped(value));
                tries.push(attempt(":of-type", ":of-type", typed.clone(), true));
                tries.push(attempt(":of-type", ":of-type", format!("{typed}-none"), false));
            }
            tries
        }
        Value::Text(text) => of_text(text),
        Value::Date(range) if range.lo > i64::MIN => {
            let at = Instant(range.lo).to_fhir();
            vec![
                attempt("ge", "", format!("ge{at}"), true),
                attempt("le", "", format!("le{at}"), true),
                attempt("lt", "", format!("lt{at}"), false),
                attempt("sa", "", format!("sa{at}"), false),
                attempt("eb", "", "eb0900-01-01", false),
                attempt("sa", "", "sa0900-01-01", true),
            ]
        }
        Value::Number { lo, hi } if lo == hi => of_number(*lo),
        Value::Quantity { lo, hi, system, code, .. } if lo == hi => {
            let mut tries = vec![
                attempt("value", "", lo.to_string(), true),
                attempt("value", "", (lo + 1000.0).to_string(), false),
                attempt("ge", "", format!("ge{lo}"), true),
                attempt("gt", "", format!("gt{lo}"), false),
            ];
            if let (Some(system), Some(code)) = (system, code) {
                let unit = format!("|{}|{}", escaped(system), escaped(code));
                tries.push(attempt("with unit", "", format!("{lo}{unit}"), true));
                tries.push(attempt("with unit", "", format!("{lo}|urn:none|{}", escaped(code)), false));
            }
            tries
        }
        Value::Reference { to: Some(to), .. } => of_reference(to),
        Value::Reference { to: None, identifier: Some((system, Some(value))) } => {
            vec![
                attempt(":identifier", ":identifier", coded(system, value), true),
                attempt(":identifier", ":identifier", "urn:none|none", false),
            ]
        }
        Value::Uri(uri) => {
            let mut tries = vec![
                attempt("value", "", escaped(uri), true),
                attempt("value", "", format!("{}-none", escaped(uri)), false),
            ];
            if let Some((above, _)) =
                uri.rsplit_once('/').filter(|(above, _)| above.contains("://") && !above.ends_with('/'))
            {
                tries.push(attempt(":below", ":below", escaped(above), true));
                tries.push(attempt(":above", ":above", format!("{}/deeper", escaped(uri)), true));
            }
            tries
        }
        Value::Composite(parts) => of_composite(parts),
        _ => Vec::new(),
    }
}

fn of_token(system: &Option<String>, code: &str, text: &Option<String>) -> Vec<Try> {
    let whole = coded(system, code);
    let mut tries = vec![
        attempt("value", "", escaped(code), true),
        attempt("value", "", format!("{}-none", escaped(code)), false),
        attempt("with system", "", whole.clone(), true),
        attempt("with system", "", format!("urn:none|{}", escaped(code)), false),
        attempt(":not", ":not", whole, false),
        attempt(":not", ":not", "no-such-code", true),
    ];
    tries.extend(text.iter().map(|text| attempt(":text", ":text", escaped(text), true)));
    tries
}

fn of_number(lo: f64) -> Vec<Try> {
    vec![
        attempt("value", "", lo.to_string(), true),
        attempt("value", "", (lo + 1000.0).to_string(), false),
        attempt("ge", "", format!("ge{lo}"), true),
        attempt("gt", "", format!("gt{lo}"), false),
        attempt("lt", "", format!("lt{}", lo + 1.0), true),
    ]
}

fn of_text(text: &str) -> Vec<Try> {
    let mut tries = vec![
        attempt("value", "", escaped(text), true),
        attempt("value", "", "zzz-none", false),
        attempt(":exact", ":exact", escaped(text), true),
        attempt(":exact", ":exact", format!("{}x", escaped(text)), false),
    ];
    if let Some(inner) = text.split_whitespace().find(|word| word.chars().count() > 4) {
        let inner: String = inner.chars().skip(1).take(3).collect();
        tries.push(attempt(":contains", ":contains", escaped(&inner), true));
        tries.push(attempt(":contains", ":contains", "zzz-none", false));
    }
    tries
}

/// By the first word of the name as it is written, and by one that is written otherwise: `e` and `i` sound alike here.
fn of_sound(kind: TypeId, example: &Example) -> Vec<Try> {
    let named = definitions().param(kind, "name").and_then(|param| example.values.params.get(&param.id));
    let texts = named.into_iter().flatten().filter_map(|value| match value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let Some(word) = texts.flat_map(str::split_whitespace).find(|word| word.chars().count() > 3) else {
        return Vec::new();
    };
    let mut tries = vec![attempt("value", "", escaped(word), true), attempt("value", "", "zzz-none", false)];
    let swapped = |c: char| match c {
        'e' => 'i',
        'i' => 'e',
        other => other,
    };
    let other: String = word.chars().map(swapped).collect();
    if other != word {
        tries.push(attempt("alike", "", escaped(&other), true));
    }
    tries
}

fn of_reference(to: &Reference) -> Vec<Try> {
    match to {
        Reference::Local { kind, id, .. } => {
            let kind = definitions().type_name(*kind);
            vec![
                attempt("value", "", format!("{kind}/{id}"), true),
                attempt("value", "", format!("{kind}/no-such-id"), false),
                attempt(":[type]", format!(":{kind}"), id.clone(), true),
                attempt(":[type]", format!(":{kind}"), "no-such-id", false),
            ]
        }
        Reference::Absolute { url } => {
            vec![attempt("value", "", escaped(url), true), attempt("value", "", "http://none.example/none", false)]
        }
        _ => Vec::new(),
    }
}

/// The first value of every component, where each can be written.
fn of_composite(parts: &[Vec<Value>]) -> Vec<Try> {
    let part = |values: &Vec<Value>| {
        let tries = values.iter().map(of_value).find(|tries| !tries.is_empty())?;
        tries.into_iter().find(|attempt| attempt.found && attempt.modifier.is_empty()).map(|attempt| attempt.value)
    };
    let Some(parts) = parts.iter().map(part).collect::<Option<Vec<String>>>() else { return Vec::new() };
    let other = [&["no-such-value".to_owned()], &parts[1..]].concat();
    vec![attempt("value", "", parts.join("$"), true), attempt("value", "", other.join("$"), false)]
}
