//! The walk through tree and definitions side by side. Allocates nothing unless there is a fault.

use serde_json::{Map, Value};

use super::{Faults, primitive};
use crate::error::{Issue, Severity};
use crate::fhir::definitions::{Child, Definitions, Primitive, Shape, ShapeKind, definitions};
use crate::fhir::json::Node;

/// Checks one resource; `place` is its FHIRPath when it is not a document of its own, `deep` says whether resources
/// inside it are looked into.
pub(super) fn check(node: &Node, place: Option<&str>, deep: bool) -> Vec<Issue> {
    let mut walk = Walk::start(place, deep);
    walk.resource(node, Within::Nothing);
    walk.faults.into_issues()
}

/// Checks a value of a datatype.
pub(super) fn check_datatype(kind: &str, node: &Node, place: &str) -> Vec<Issue> {
    let mut walk = Walk::start(Some(place), true);
    match (definitions().shape(kind), node) {
        (Some(shape), Value::Object(members)) => walk.object(shape, members, Within::Nothing),
        _ => walk.fault("structure", "Expected an object."),
    }
    walk.faults.into_issues()
}

/// What a resource is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    /// An entry of a Bundle or a parameter: a document of its own.
    Document,
    /// `contained` of a resource.
    Resource,
}

struct Walk<'a> {
    definitions: &'static Definitions,
    element: &'static Shape,
    extension: &'static Shape,
    faults: Faults,
    /// Names from the root, with their place in an array.
    steps: Vec<(&'a str, Option<usize>)>,
    deep: bool,
}

impl<'a> Walk<'a> {
    fn start(place: Option<&'a str>, deep: bool) -> Walk<'a> {
        let definitions = definitions();
        let shape = |name| definitions.shape(name).expect("part of every definition");
        Walk {
            definitions,
            element: shape("Element"),
            extension: shape("Extension"),
            faults: Faults::default(),
            steps: place.map(|place| (place, None)).into_iter().collect(),
            deep,
        }
    }

    /// FHIRPath of the present place.
    fn place(&self) -> String {
        let mut text = String::new();
        for (n, (name, at)) in self.steps.iter().enumerate() {
            if n > 0 {
                text.push('.');
            }
            if n == 0 || is_identifier(name) {
                text.push_str(name);
            } else {
                text.push('`');
                text.extend(name.chars().take(64).filter(|c| *c != '`' && !c.is_control()));
                text.push('`');
            }
            if let Some(at) = at {
                text.push_str(&format!("[{at}]"));
            }
        }
        text
    }

    fn fault(&mut self, code: &'static str, text: impl Into<std::borrow::Cow<'static, str>>) {
        let place = if self.faults.issues.len() < super::MAX_ISSUES { self.place() } else { String::new() };
        self.faults.add(|| Issue::error(code, text).at(place));
    }

    /// A departure that data in the field shows and that a reader can live with.
    fn tolerate(&mut self, code: &'static str, text: &'static str) {
        let place = self.place();
        self.faults.add(|| Issue { severity: Severity::Warning, ..Issue::error(code, text).at(place) });
    }

    fn within(&mut self, name: &'a str, at: Option<usize>, inner: impl FnOnce(&mut Self)) {
        self.steps.push((name, at));
        inner(self);
        self.steps.pop();
    }

    fn resource(&mut self, node: &'a Node, inside: Within) {
        let Value::Object(members) = node else {
            return self.fault("structure", "A resource must be a JSON object.");
        };
        let kind = match members.get("resourceType") {
            Some(Value::String(name)) => self.definitions.type_id(name),
            Some(_) => None,
            None => return self.fault("required", "A resource must say its resourceType."),
        };
        let Some(shape) = kind.and_then(|kind| self.definitions.resource_shape(kind)) else {
            return self.fault("structure", "The resourceType is not a resource type of FHIR R4.");
        };
        if self.steps.is_empty() {
            self.steps.push((shape.path, None));
        }
        if inside == Within::Resource && members.contains_key("contained") {
            self.within("contained", None, |w| {
                w.fault("structure", "A contained resource must not contain resources.");
            });
        }
        self.object(shape, members, inside);
    }

    /// Checks the members of an object against its shape.
    fn object(&mut self, shape: &'static Shape, members: &'a Map<String, Value>, inside: Within) {
        let is_resource = shape.kind == ShapeKind::Resource;
        let mut seen = 0u64;
        for (name, value) in members {
            if is_resource && name == "resourceType" {
                continue;
            }
            let (plain, sibling) = match name.strip_prefix('_') {
                Some(plain) => (plain, true),
                None => (name.as_str(), false),
            };
            let Some(child) = shape.child(plain).filter(|c| !sibling || c.primitive.is_some()) else {
                self.unknown(shape, name);
                continue;
            };
            let bit = 1u64 << child.at;
            if seen & bit != 0 && child.element.choice && self.other_choice(shape, members, child) {
                self.within(child.element.name, None, |w| {
                    w.fault("structure", "Only one type of value is allowed here, but there are several.");
                });
            }
            seen |= bit;
            if sibling {
                self.sibling(child, members.get(plain), value);
            } else {
                self.member(child, members, value, inside);
            }
        }
        if members.len() <= 1 {
            self.not_empty(is_resource, members);
        }
        self.missing(shape, shape.required & !seen);
        if std::ptr::eq(shape, self.extension) {
            self.extension_rule(shape, seen);
        }
    }

    /// Whether a choice element has a value of another type before this one; reported once, at the second.
    fn other_choice(&self, shape: &Shape, members: &'a Map<String, Value>, child: &Child) -> bool {
        let types = members
            .keys()
            .map(|name| name.strip_prefix('_').unwrap_or(name))
            .take_while(|name| *name != child.name)
            .filter(|name| shape.child(name).is_some_and(|c| c.at == child.at));
        types.count() > 0
    }

    /// `ele-1`: an element has a value or children, its id is not enough.
    fn not_empty(&mut self, is_resource: bool, members: &Map<String, Value>) {
        if members.is_empty() {
            self.fault("structure", "An object must not be empty.");
        } else if !is_resource && members.keys().all(|name| name == "id") {
            self.fault("invariant", "An element must have a value or children beside its id (ele-1).");
        }
    }

    /// `ext-1`: an extension has a value or extensions, not both.
    fn extension_rule(&mut self, shape: &Shape, seen: u64) {
        let has = |name: &str| {
            let at = shape.elements.iter().position(|e| e.name == name);
            at.is_some_and(|at| seen & (1 << at) != 0)
        };
        match (has("value"), has("extension")) {
            (true, true) => self.fault("invariant", "An extension has either a value or extensions, not both (ext-1)."),
            (false, false) => self.fault("invariant", "An extension must have a value or extensions (ext-1)."),
            _ => {}
        }
    }

    fn missing(&mut self, shape: &'static Shape, mut bits: u64) {
        while bits != 0 {
            let element = &shape.elements[bits.trailing_zeros() as usize];
            bits &= bits - 1;
            self.within(element.name, None, |w| w.fault("required", "This element is required."));
        }
    }

    fn unknown(&mut self, shape: &'static Shape, name: &'a str) {
        let likely = likely_name(shape, name);
        let text = match likely {
            Some(likely) => format!("No element of this name in {}; is `{likely}` meant?", shape.path),
            None => format!("No element of this name in {}.", shape.path),
        };
        self.within(name, None, |w| w.fault("structure", text));
    }

    /// A member that is not a `_name`.
    fn member(&mut self, child: &'static Child, members: &'a Map<String, Value>, value: &'a Node, inside: Within) {
        let name = child.element.name;
        let repeats = child.element.max != Some(1);
        match value {
            Value::Array(_) if !repeats => {
                self.within(name, None, |w| w.fault("structure", "This element does not repeat: no array here."));
            }
            Value::Array(items) => {
                self.count(child, items.len());
                let beside = child.primitive.and_then(|_| siblings(child, members));
                for (n, item) in items.iter().enumerate() {
                    self.steps.push((name, Some(n)));
                    if item.is_null() && beside.is_some_and(|b| b.get(n).is_some_and(Value::is_object)) {
                        // The value is absent, its extensions say why.
                    } else {
                        self.value(child, item, inside);
                    }
                    self.steps.pop();
                }
            }
            _ if repeats => self.within(name, None, |w| {
                w.fault("structure", "This element repeats: its values must be in an array.");
            }),
            _ => {
                self.steps.push((name, None));
                self.value(child, value, inside);
                self.steps.pop();
            }
        }
    }

    fn count(&mut self, child: &'static Child, count: usize) {
        if count == 0 {
            self.within(child.element.name, None, |w| w.tolerate("structure", "An array must not be empty."));
        }
        if let Some(max) = child.element.max.filter(|max| count > *max as usize) {
            self.within(child.element.name, None, |w| {
                w.fault("structure", format!("At most {max} values are allowed here."));
            });
        }
    }

    /// One value, the present place being its own.
    fn value(&mut self, child: &'static Child, value: &'a Node, inside: Within) {
        if let Some(primitive) = child.primitive {
            if let Err(text) = primitive::check(primitive, value) {
                if primitive == Primitive::Base64Binary && value.as_str().is_some_and(|v| !v.is_empty()) {
                    self.tolerate("value", text);
                } else {
                    self.fault("value", text);
                }
            } else if let (Some(codes), Value::String(code)) = (child.codes, value)
                && codes.binary_search(&code.as_str()).is_err()
            {
                self.fault("code-invalid", "The code is not one of those that are required here.");
            }
            return;
        }
        let Some(shape) = child.shape() else { return };
        match value {
            Value::Object(members) if shape.kind != ShapeKind::Resource => self.object(shape, members, inside),
            Value::Object(_) if !self.deep => {}
            Value::Object(_) => {
                // Resources in a DomainResource are contained in it, all others are documents.
                let contained = child.element.name == "contained";
                self.resource(value, if contained { Within::Resource } else { Within::Document });
            }
            Value::Null => self.fault("structure", "null is not allowed here."),
            _ => self.fault("structure", format!("Expected an object ({}).", child.kind)),
        }
    }

    /// A `_name` member: id and extensions of the primitive `name`.
    fn sibling(&mut self, child: &'static Child, plain: Option<&'a Node>, value: &'a Node) {
        let name = child.element.name;
        match value {
            Value::Array(items) if child.element.max != Some(1) => {
                let values = plain.and_then(Value::as_array);
                if values.is_some_and(|values| values.len() != items.len()) {
                    self.within(name, None, |w| {
                        w.fault("structure", "The arrays of values and of their extensions differ in length.");
                    });
                }
                if plain.is_none() {
                    self.count(child, items.len());
                }
                for (n, item) in items.iter().enumerate() {
                    let has_value = values.and_then(|v| v.get(n)).is_some_and(|v| !v.is_null());
                    if item.is_null() && (has_value || values.is_some_and(|v| n < v.len())) {
                        continue;
                    }
                    self.steps.push((name, Some(n)));
                    self.extensions(item, has_value);
                    self.steps.pop();
                }
            }
            Value::Object(_) if child.element.max == Some(1) => {
                self.steps.push((name, None));
                self.extensions(value, plain.is_some());
                self.steps.pop();
            }
            _ => self.within(name, None, |w| {
                let text = if child.element.max == Some(1) {
                    "The extensions of a value that does not repeat must be an object."
                } else {
                    "The extensions of a value that repeats must be in an array."
                };
                w.fault("structure", text);
            }),
        }
    }

    /// The object that holds id and extensions of a primitive.
    fn extensions(&mut self, node: &'a Node, has_value: bool) {
        let Value::Object(members) = node else {
            return self.fault("structure", "Neither a value nor extensions are here.");
        };
        if has_value && members.len() == 1 && members.get("id").is_some_and(Value::is_string) {
            return;
        }
        self.object(self.element, members, Within::Nothing);
    }
}

/// The array beside an array of primitives.
fn siblings<'a>(child: &Child, members: &'a Map<String, Value>) -> Option<&'a Vec<Value>> {
    // Arrays of primitives are few, so the name is only put together when there is a sibling at all.
    let found = members.iter().find(|(name, _)| name.strip_prefix('_') == Some(child.name));
    found.and_then(|(_, value)| value.as_array())
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The member that was probably meant: at most two letters wrong, and fewer than half.
fn likely_name(shape: &'static Shape, name: &str) -> Option<&'static str> {
    if name.len() > 40 || !name.is_ascii() {
        return None;
    }
    let near = shape.members().iter().map(|child| (distance(name.as_bytes(), child.name.as_bytes()), child.name));
    let whole_type = shape.members().iter().find(|c| c.element.choice && c.element.name == name).map(|c| c.name);
    near.min().filter(|(d, likely)| *d <= 2 && d * 2 < likely.len()).map(|(_, likely)| likely).or(whole_type)
}

/// Letters to insert, delete, replace or swap with their neighbour to make `b` of `a`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let (mut before, mut last) = (vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
