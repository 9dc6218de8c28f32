//! JSON Patch (RFC 6902) over JSON Pointer (RFC 6901).

use std::fmt;

use serde_json::map::Entry;

use super::{OPERATIONS_MAX, too_many, unfit};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;

/// Bytes (roughly) that the `copy` operations of one patch may add: each could double the document otherwise.
const COPIED_BYTES_MAX: usize = 16 << 20;

/// `/name/0/family`, with the tokens unescaped.
#[derive(Clone)]
struct Pointer {
    text: String,
    tokens: Vec<String>,
}

#[derive(Clone)]
enum Operation {
    Add { path: Pointer, value: Node },
    Remove { path: Pointer },
    Replace { path: Pointer, value: Node },
    Move { from: Pointer, path: Pointer },
    Copy { from: Pointer, path: Pointer },
    Test { path: Pointer, value: Node },
}

/// A JSON Patch document that was read.
#[derive(Clone)]
pub struct JsonPatch(Vec<Operation>);

impl JsonPatch {
    pub(super) fn read(document: Node) -> Result<JsonPatch> {
        let Node::Array(list) = document else {
            return Err(Error::invalid("A JSON Patch is a list of operations."));
        };
        if list.len() > OPERATIONS_MAX {
            return Err(too_many());
        }
        let operations = list.into_iter().enumerate().map(|(n, node)| Operation::read(node, n));
        operations.collect::<Result<_>>().map(JsonPatch)
    }

    pub(super) fn asks(&self) -> bool {
        self.0.iter().any(|operation| matches!(operation, Operation::Test { .. }))
    }

    pub(super) fn apply(&self, mut document: Node) -> Result<Node> {
        let kind = document.get("resourceType").and_then(Node::as_str).unwrap_or_default().to_owned();
        let mut copied = 0;
        for (n, operation) in self.0.iter().enumerate() {
            let done = operation.apply(&mut document, &mut copied);
            done.map_err(|misfit| match misfit.kind {
                Some(kind) => Error::new(kind, format!("Operation {n} ({operation}): {}.", misfit.text)),
                None => unfit(format!("Operation {n} ({operation}): {}.", misfit.text), misfit.at.place(&kind)),
            })?;
        }
        Ok(document)
    }
}

/// Why an operation does not fit, and where.
struct Misfit {
    text: &'static str,
    at: Pointer,
    /// None: the resource is not as the operation needs it.
    kind: Option<Kind>,
}

impl Operation {
    fn read(node: Node, n: usize) -> Result<Operation> {
        let wrong = |what: &str| Error::invalid(format!("Operation {n} of the JSON Patch {what}."));
        let Node::Object(mut members) = node else { return Err(wrong("is no object")) };
        let pointer = |name: &str| match members.get(name) {
            Some(Node::String(text)) => {
                Pointer::read(text).ok_or_else(|| wrong(&format!("has no JSON Pointer as `{name}`")))
            }
            _ => Err(wrong(&format!("needs `{name}`, a JSON Pointer"))),
        };
        let op = members.get("op").and_then(Node::as_str).unwrap_or_default().to_owned();
        let path = pointer("path")?;
        let from = matches!(op.as_str(), "move" | "copy").then(|| pointer("from")).transpose()?;
        let mut value = || members.shift_remove("value").ok_or_else(|| wrong("needs `value`"));
        Ok(match (op.as_str(), from) {
            ("add", _) => Operation::Add { path, value: value()? },
            ("remove", _) => Operation::Remove { path },
            ("replace", _) => Operation::Replace { path, value: value()? },
            ("test", _) => Operation::Test { path, value: value()? },
            ("move", Some(from)) if path.is_below(&from) => return Err(wrong("moves a place into itself")),
            ("move", Some(from)) => Operation::Move { from, path },
            ("copy", Some(from)) => Operation::Copy { from, path },
            _ => return Err(wrong("needs `op`: add, remove, replace, move, copy or test")),
        })
    }

    fn apply(&self, document: &mut Node, copied: &mut usize) -> Result<(), Misfit> {
        match self {
            Operation::Add { path, value } => path.add(document, value.clone()),
            Operation::Remove { path } => path.remove(document).map(drop),
            Operation::Replace { path, value } => {
                *path.find_mut(document)? = value.clone();
                Ok(())
            }
            Operation::Move { from, path } => {
                let value = from.remove(document)?;
                path.add(document, value)
            }
            Operation::Copy { from, path } => {
                let value = from.find(document).ok_or_else(|| from.misfit("there is nothing at `from`"))?;
                *copied += size(value);
                if *copied > COPIED_BYTES_MAX {
                    let text = "the operations copy more than this server allows";
                    return Err(Misfit { kind: Some(Kind::TooCostly), ..from.misfit(text) });
                }
                let value = value.clone();
                path.add(document, value)
            }
            Operation::Test { path, value } => match path.find(document) {
                Some(found) if same(found, value) => Ok(()),
                Some(_) => Err(path.misfit("the value there is another")),
                None => Err(path.misfit("there is nothing")),
            },
        }
    }
}

impl fmt::Display for Operation {
    /// As the client sent it, without values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Add { path, .. } => write!(f, "add {}", path.text),
            Operation::Remove { path } => write!(f, "remove {}", path.text),
            Operation::Replace { path, .. } => write!(f, "replace {}", path.text),
            Operation::Test { path, .. } => write!(f, "test {}", path.text),
            Operation::Move { from, path } => write!(f, "move {} to {}", from.text, path.text),
            Operation::Copy { from, path } => write!(f, "copy {} to {}", from.text, path.text),
        }
    }
}

impl Pointer {
    fn read(text: &str) -> Option<Pointer> {
        let tokens = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return None,
            Some(rest) => rest.split('/').map(unescape).collect::<Option<_>>()?,
        };
        Some(Pointer { text: text.to_owned(), tokens })
    }

    fn is_below(&self, other: &Pointer) -> bool {
        self.tokens.len() > other.tokens.len() && self.tokens.starts_with(&other.tokens)
    }

    fn misfit(&self, text: &'static str) -> Misfit {
        Misfit { text, at: self.clone(), kind: None }
    }

    /// The place as FHIRPath; None when a token is no name of an element.
    fn place(&self, kind: &str) -> Option<String> {
        let mut place = kind.to_owned();
        for token in &self.tokens {
            match token.as_str() {
                "-" => {}
                token if array_index(token).is_some() => place += &format!("[{token}]"),
                token => {
                    let name = token.strip_prefix('_').unwrap_or(token);
                    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                        return None;
                    }
                    place.push('.');
                    place.push_str(name);
                }
            }
        }
        Some(place)
    }

    fn find<'n>(&self, document: &'n Node) -> Option<&'n Node> {
        self.tokens.iter().try_fold(document, |node, token| match node {
            Node::Object(members) => members.get(token),
            Node::Array(items) => items.get(array_index(token)?),
            _ => None,
        })
    }

    fn find_mut<'n>(&self, document: &'n mut Node) -> Result<&'n mut Node, Misfit> {
        walk(document, &self.tokens).ok_or_else(|| self.misfit("there is nothing"))
    }

    /// What holds the place, and the last token.
    fn parent<'n, 'p>(&'p self, document: &'n mut Node) -> Result<Option<(&'n mut Node, &'p str)>, Misfit> {
        let Some((last, before)) = self.tokens.split_last() else { return Ok(None) };
        let parent = walk(document, before).ok_or_else(|| self.misfit("what should hold it is not there"))?;
        Ok(Some((parent, last)))
    }

    fn add(&self, document: &mut Node, value: Node) -> Result<(), Misfit> {
        match self.parent(document)? {
            None => *document = value,
            Some((Node::Object(members), name)) => match members.entry(name) {
                Entry::Occupied(mut slot) => drop(slot.insert(value)),
                Entry::Vacant(slot) => drop(slot.insert(value)),
            },
            Some((Node::Array(items), "-")) => items.push(value),
            Some((Node::Array(items), index)) => match array_index(index) {
                Some(index) if index <= items.len() => items.insert(index, value),
                _ => return Err(self.misfit("the list has no such place")),
            },
            Some(_) => return Err(self.misfit("what should hold it is no object and no list")),
        }
        Ok(())
    }

    fn remove(&self, document: &mut Node) -> Result<Node, Misfit> {
        let removed = match self.parent(document)? {
            None => return Err(self.misfit("the whole document cannot be removed")),
            Some((Node::Object(members), name)) => members.shift_remove(name),
            Some((Node::Array(items), index)) => {
                let index = array_index(index).filter(|index| *index < items.len());
                index.map(|index| items.remove(index))
            }
            Some(_) => None,
        };
        removed.ok_or_else(|| self.misfit("there is nothing"))
    }
}

fn walk<'n>(document: &'n mut Node, tokens: &[String]) -> Option<&'n mut Node> {
    tokens.iter().try_fold(document, |node, token| match node {
        Node::Object(members) => members.get_mut(token),
        Node::Array(items) => items.get_mut(array_index(token)?),
        _ => None,
    })
}

/// `~1` is `/`, `~0` is `~`; any other tilde is a fault.
fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut parts = token.split('~');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let rest = part.strip_prefix('0').map(|rest| ('~', rest)).or(part.strip_prefix('1').map(|rest| ('/', rest)));
        let (escaped, rest) = rest?;
        out.push(escaped);
        out.push_str(rest);
    }
    Some(out)
}

/// Digits without leading zeros.
fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| token.parse().ok()).flatten()
}

/// Roughly the bytes of a tree.
fn size(node: &Node) -> usize {
    match node {
        Node::Null | Node::Bool(_) => 8,
        Node::Number(number) => number.as_str().len() + 8,
        Node::String(text) => text.len() + 8,
        Node::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Node::Object(members) => members.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>() + 8,
    }
}

/// Equality as RFC 6902 (4.6) has it: numbers by value, objects without order.
fn same(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Number(a), Node::Number(b)) => canonical(a.as_str()) == canonical(b.as_str()),
        (Node::Array(a), Node::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Node::Object(a), Node::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Sign, digits without zeros at either end, and the power of ten of the last digit. None as the power: larger than
/// can be told.
fn canonical(text: &str) -> (bool, String, Option<i64>) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    let zeros = digits.len() - trimmed.len();
    let trimmed = trimmed.trim_start_matches('0');
    if trimmed.is_empty() {
        return (false, String::new(), Some(0));
    }
    let exponent = exponent.parse::<i64>().ok();
    let power = exponent.and_then(|exponent| exponent.checked_add(zeros as i64)?.checked_sub(fraction.len() as i64));
    match power {
        Some(power) => (negative, trimmed.to_owned(), Some(power)),
        None => (negative, text.to_owned(), None),
    }
}
