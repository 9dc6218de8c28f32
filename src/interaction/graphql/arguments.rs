//! Arguments: values of the language and of variables as one plain type, and what each kind of field takes.

use std::collections::HashMap;

use graphql_parser::query as ast;

use super::Fault;
use super::document::{Filter, Search, What};
use crate::error::Error;
use crate::fhir::json::Node;
use crate::fhir::path::Expr;
use crate::fhir::reference::is_id;
use crate::fhir::{TypeId, definitions};

/// A value, variables put in. Enum values and strings are the same here, as FHIR's GraphQL has no enums of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Argument>),
}

type Value<'a> = ast::Value<'a, &'a str>;

impl Argument {
    /// One value as text.
    fn text(&self) -> Option<String> {
        match self {
            Argument::Bool(value) => Some(value.to_string()),
            Argument::Number(text) | Argument::Text(text) => Some(text.clone()),
            Argument::Null | Argument::List(_) => None,
        }
    }

    fn number(&self) -> Option<usize> {
        match self {
            Argument::Number(text) => text.parse().ok(),
            _ => None,
        }
    }
}

pub fn of_ast<'a>(value: &Value<'a>, variables: &HashMap<&'a str, Argument>) -> Result<Argument, Fault> {
    Ok(match value {
        ast::Value::Variable(name) => match variables.get(name) {
            Some(value) => value.clone(),
            None => return Err(Fault::invalid(format!("The variable '${name}' has no value."))),
        },
        ast::Value::Int(number) => Argument::Number(number.as_i64().unwrap_or_default().to_string()),
        ast::Value::Float(number) => Argument::Number(number.to_string()),
        ast::Value::String(text) => Argument::Text(text.clone()),
        ast::Value::Boolean(value) => Argument::Bool(*value),
        ast::Value::Null => Argument::Null,
        ast::Value::Enum(name) => Argument::Text((*name).to_owned()),
        ast::Value::List(items) => {
            let items: Result<_, Fault> = items.iter().map(|item| of_ast(item, variables)).collect();
            Argument::List(items?)
        }
        ast::Value::Object(_) => return Err(Fault::invalid("No argument here takes an object.")),
    })
}

pub fn of_json(value: &Node) -> Result<Argument, Fault> {
    Ok(match value {
        Node::Null => Argument::Null,
        Node::Bool(value) => Argument::Bool(*value),
        Node::Number(number) => Argument::Number(number.to_string()),
        Node::String(text) => Argument::Text(text.clone()),
        Node::Array(items) => Argument::List(items.iter().map(of_json).collect::<Result<_, Fault>>()?),
        Node::Object(_) => return Err(Fault::invalid("No variable here is an object.")),
    })
}

/// Whether a value is of the type that the operation states. FHIR's own scalars (`token`, `date`, `code`) take any
/// scalar: the search or comparison it goes into checks it.
pub fn fits<'a>(name: &str, wanted: &ast::Type<'a, &'a str>, value: Option<&Argument>) -> Result<(), Fault> {
    let wrong = |expected: &str| Err(Fault::invalid(format!("The variable '${name}' must be {expected}.")));
    match (wanted, value) {
        (ast::Type::NonNullType(_), None | Some(Argument::Null)) => wrong("given"),
        (_, None | Some(Argument::Null)) => Ok(()),
        (ast::Type::NonNullType(inner), value) => fits(name, inner, value),
        (ast::Type::ListType(inner), Some(Argument::List(items))) => {
            items.iter().try_for_each(|item| fits(name, inner, Some(item)))
        }
        // One value stands for a list of it.
        (ast::Type::ListType(inner), value) => fits(name, inner, value),
        (ast::Type::NamedType(kind), Some(value)) => match (kind.to_ascii_lowercase().as_str(), value) {
            (_, Argument::List(_)) => wrong("a single value"),
            ("boolean", Argument::Bool(_)) | ("string" | "id", Argument::Text(_)) => Ok(()),
            ("boolean", _) => wrong("a Boolean"),
            ("string", _) => wrong("a String"),
            ("int" | "integer", Argument::Number(text)) if text.parse::<i64>().is_ok() => Ok(()),
            ("int" | "integer", _) => wrong("an Int"),
            ("float", Argument::Number(_)) => Ok(()),
            ("float", _) => wrong("a Float"),
            _ => Ok(()),
        },
    }
}

/// All arguments, each name once.
pub fn all<'a>(
    given: &[(&'a str, Value<'a>)],
    variables: &HashMap<&'a str, Argument>,
) -> Result<Vec<(&'a str, Argument)>, Fault> {
    let mut out: Vec<(&str, Argument)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        if out.iter().any(|(other, _)| other == name) {
            return Err(Fault::invalid(format!("The argument '{name}' is given twice.")));
        }
        out.push((name, of_ast(value, variables)?));
    }
    // Null is as if it were not there.
    out.retain(|(_, value)| *value != Argument::Null);
    Ok(out)
}

/// `id` (or `_id`) of a single resource.
pub fn lookup(name: &str, given: Vec<(&str, Argument)>) -> Result<String, Fault> {
    match given.as_slice() {
        [("id" | "_id", value)] => match value.text().filter(|id| is_id(id)) {
            Some(id) => Ok(id),
            None => Err(Fault::invalid("The argument 'id' is not valid as an id.")),
        },
        _ => Err(Fault::invalid(format!("'{name}' takes one argument, 'id'. To search there is '{name}List'."))),
    }
}

/// Parameters that shape a search's answer: GraphQL has its own means for it.
const SHAPING: [&str; 6] = ["_include", "_revinclude", "_summary", "_elements", "_total", "_format"];

pub fn search(kind: TypeId, given: Vec<(&str, Argument)>) -> Result<Search, Fault> {
    let mut search = Search::default();
    for (name, value) in given {
        let bad = |expected: &str| Fault::invalid(format!("The argument '{name}' must be {expected}."));
        match name {
            "_count" => search.count = Some(value.number().filter(|n| *n > 0).ok_or_else(|| bad("above 0"))?),
            "_offset" => search.offset = value.number().ok_or_else(|| bad("0 or more"))?,
            "_cursor" => search.cursor = Some(value.text().ok_or_else(|| bad("a cursor"))?),
            "_reference" => {
                let code = value.text().ok_or_else(|| bad("the name of a search parameter"))?;
                search.reference = Some(parameter(kind, &code));
            }
            _ if SHAPING.contains(&name) => {
                let text = format!("The argument '{name}' is not supported: the selection says what is answered.");
                return Err(Error::unsupported(text).into());
            }
            _ => {
                let text = match &value {
                    // Values of one list are alternatives, as a comma says in a search.
                    Argument::List(items) => {
                        let items: Option<Vec<String>> = items.iter().map(Argument::text).collect();
                        items.map(|items| items.join(","))
                    }
                    value => value.text(),
                };
                search.pairs.push((parameter(kind, name), text.ok_or_else(|| bad("a value or a list of values"))?));
            }
        }
    }
    if search.cursor.is_some() && !(search.pairs.is_empty() && search.count.is_none() && search.offset == 0) {
        return Err(Fault::invalid("A cursor is complete: no other argument but '_reference' may stand beside it."));
    }
    Ok(search)
}

/// The search parameter that a GraphQL name stands for: the language has no hyphen, so `_` stands for it.
fn parameter(kind: TypeId, name: &str) -> String {
    let hyphened = || match name.strip_prefix('_') {
        Some(rest) => format!("_{}", rest.replace('_', "-")),
        None => name.replace('_', "-"),
    };
    match definitions().param(kind, name) {
        Some(_) => name.to_owned(),
        None => hyphened(),
    }
}

/// `resource(optional: true, type: Patient)`.
pub fn resource(given: Vec<(&str, Argument)>) -> Result<What, Fault> {
    let bare = given.is_empty();
    let (mut optional, mut only) = (false, Vec::new());
    for (name, value) in given {
        match (name, value) {
            ("optional", Argument::Bool(value)) => optional = value,
            ("type", value) => {
                let names = match value {
                    Argument::List(items) => items,
                    one => vec![one],
                };
                for name in names {
                    let kind = name.text().and_then(|name| definitions().type_id(&name));
                    only.push(kind.ok_or_else(|| Fault::invalid("The argument 'type' must name resource types."))?);
                }
            }
            _ => return Err(Fault::invalid("'resource' takes 'optional' with a Boolean, and 'type'.")),
        }
    }
    Ok(What::Resource { optional, only, bare })
}

pub fn filter(given: Vec<(&str, Argument)>) -> Result<Filter, Fault> {
    let mut filter = Filter::default();
    for (name, value) in given {
        let bad = |expected: &str| Fault::invalid(format!("The argument '{name}' must be {expected}."));
        match name {
            "fhirpath" => {
                let text = value.text().ok_or_else(|| bad("a FHIRPath"))?;
                filter.fhirpath.push(Expr::parse(&text)?);
            }
            "_count" => filter.count = Some(value.number().ok_or_else(|| bad("0 or more"))?),
            "_offset" => filter.offset = value.number().ok_or_else(|| bad("0 or more"))?,
            _ => filter.equals.push((name.to_owned(), value.text().ok_or_else(|| bad("a single value"))?)),
        }
    }
    Ok(filter)
}
