//! Reads the fact tables. They are part of the build, so a fault in them is a fault of the build: it panics, and the
//! first test to touch the definitions shows it.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::param::{Component, Limits, Of, Param, ParamKind};
use super::shape::{Child, Element, Primitive, Shape, ShapeKind};
use super::{Definitions, ParamId, TypeId};

const TYPES: &str = include_str!("../../../fhir-profiles/r4/types.tsv");
const ELEMENTS: &str = include_str!("../../../fhir-profiles/r4/elements.tsv");
const CODES: &str = include_str!("../../../fhir-profiles/r4/codes.tsv");
const SYSTEMS: &str = include_str!("../../../fhir-profiles/r4/systems.tsv");
const PARAMS: &str = include_str!("../../../fhir-profiles/r4/params.tsv");
const COMPARTMENTS: &str = include_str!("../../../fhir-profiles/r4/compartments.tsv");

/// The column of a row, or "" when the row ends before it.
struct Row(std::str::Split<'static, char>);

impl Row {
    fn next(&mut self) -> &'static str {
        self.0.next().unwrap_or("")
    }

    fn number(&mut self) -> u16 {
        self.next().parse().expect("a number")
    }
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    table.lines().filter(|l| !l.starts_with('#')).map(|l| Row(l.split('\t')))
}

fn list(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(',').filter(|t| !t.is_empty())
}

pub(super) fn load() -> Definitions {
    let mut types = Vec::new();
    let mut names = Vec::new();
    let mut ids = HashMap::new();
    for mut row in rows(TYPES) {
        let (id, name) = (TypeId(row.number()), row.next());
        types.push(id);
        names.resize(names.len().max(usize::from(id.0) + 1), "");
        names[usize::from(id.0)] = name;
        ids.insert(name, id);
    }
    let codes: HashMap<_, &'static [&'static str]> =
        rows(CODES).map(|mut row| (row.next(), &*row.0.collect::<Vec<_>>().leak())).collect();
    let systems = rows(SYSTEMS).map(|mut row| (row.next(), row.next())).collect();
    let (raw, bases) = elements();
    let (shapes, by_path) = shapes(raw, &codes);
    let of_type = names.iter().map(|name| by_path.get(name).copied().unwrap_or(u16::MAX)).collect();
    let params = params(&ids, &bases);
    let of_params = params_by_type(&types, &params);
    let mut compartments: HashMap<_, HashMap<_, _>> = HashMap::new();
    for mut row in rows(COMPARTMENTS) {
        let (compartment, of, codes) = (row.next(), ids[row.next()], list(row.next()).collect());
        compartments.entry(compartment).or_default().insert(of, codes);
    }
    Definitions { types, names, ids, of_type, shapes, by_path, bases, codes, systems, params, of_params, compartments }
}

struct RawShape {
    path: &'static str,
    kind: ShapeKind,
    is_abstract: bool,
    elements: Vec<Element>,
}

/// The shapes with their elements, and the base of every type.
fn elements() -> (Vec<RawShape>, HashMap<&'static str, &'static str>) {
    let mut shapes: Vec<RawShape> = Vec::new();
    let mut bases = HashMap::new();
    for mut row in rows(ELEMENTS) {
        let name = row.next();
        let Some(path) = name.strip_prefix('=') else {
            shapes.last_mut().expect("a header comes first").elements.push(element(name, row));
            continue;
        };
        let (base, kind) = (row.next(), row.next());
        let (is_abstract, kind) = match kind.strip_prefix("abstract-") {
            Some(kind) => (true, kind),
            None => (false, kind),
        };
        let kind = match kind {
            "resource" => ShapeKind::Resource,
            "backbone" => ShapeKind::Backbone,
            _ => {
                if kind == "primitive" {
                    assert!(Primitive::of(path).is_some(), "{path} is a known primitive");
                }
                ShapeKind::Datatype
            }
        };
        if kind != ShapeKind::Backbone {
            bases.insert(path, base);
        }
        if Primitive::of(path).is_none() {
            shapes.push(RawShape { path, kind, is_abstract, elements: Vec::new() });
        }
    }
    (shapes, bases)
}

fn element(name: &'static str, mut row: Row) -> Element {
    let (min, max, flags) = (row.number().into(), row.next(), row.next());
    let types = list(row.next()).collect();
    let (children, binding) = (row.next(), row.next());
    Element {
        name: name.strip_suffix("[x]").unwrap_or(name),
        choice: name.ends_with("[x]"),
        min,
        max: (max != "*").then(|| max.parse().expect("a number")),
        summary: flags.contains('s'),
        modifier: flags.contains('m'),
        attribute: flags.contains('a'),
        types,
        children: (!children.is_empty()).then_some(children),
        required_binding: (!binding.is_empty()).then_some(binding),
        targets: list(row.next()).collect(),
    }
}

/// Links the elements of each shape to the shapes of their values.
fn shapes(
    raw: Vec<RawShape>,
    codes: &HashMap<&'static str, &'static [&'static str]>,
) -> (Vec<Shape>, HashMap<&'static str, u16>) {
    let by_path: HashMap<&'static str, u16> =
        raw.iter().enumerate().map(|(n, s)| (s.path, u16::try_from(n).expect("far fewer shapes"))).collect();
    let shapes = raw.into_iter().map(|shape| {
        let elements: &'static [Element] = shape.elements.leak();
        let mut members = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            for &kind in &element.types {
                let name = if element.choice { choice_name(element.name, kind) } else { element.name };
                members.push(Child {
                    name,
                    element,
                    at: u8::try_from(at).expect("far fewer elements"),
                    kind,
                    primitive: Primitive::of(kind),
                    codes: element.required_binding.filter(|_| kind == "code").and_then(|b| codes.get(b).copied()),
                    shape: by_path.get(element.children.unwrap_or(kind)).copied(),
                });
            }
        }
        Shape::new(shape.path, shape.kind, shape.is_abstract, elements, members)
    });
    let shapes = shapes.collect();
    (shapes, by_path)
}

/// `value` and `dateTime` to `valueDateTime`.
fn choice_name(name: &str, kind: &str) -> &'static str {
    let (first, rest) = kind.split_at(1);
    format!("{name}{}{rest}", first.to_ascii_uppercase()).leak()
}

fn params(
    ids: &HashMap<&'static str, TypeId>,
    parents: &HashMap<&'static str, &'static str>,
) -> Vec<Option<&'static Param>> {
    let mut params = Vec::new();
    // An abstract base stands for the types derived from it.
    let derived =
        |name: &'static str| ids.iter().filter(move |(of, _)| parents.get(*of) == Some(&name)).map(|(_, id)| *id);
    let numbers = |names: &'static str| {
        let mut found: Vec<TypeId> = Vec::new();
        for name in list(names) {
            match ids.get(name) {
                Some(id) => found.push(*id),
                None => found.extend(derived(name)),
            }
        }
        found.sort_unstable();
        found
    };
    for mut row in rows(PARAMS) {
        let id = ParamId(row.number());
        let (code, kind, url) = (row.next(), ParamKind::of(row.next()).expect("a known kind"), row.next());
        let (bases, targets) = (numbers(row.next()), numbers(row.next()));
        let components = row.next().split(';').filter_map(|c| c.split_once('=')).map(|(number, expression)| {
            let of = Of::Number(ParamId(number.parse().expect("a number")));
            Component { of, expression, told: None, compiled: OnceLock::new() }
        });
        let components = components.collect();
        let compiled = (0..bases.len().max(1)).map(|_| OnceLock::new()).collect();
        let expression = row.next();
        let limits = Limits::default();
        let param = Param { id, code, url, kind, bases, targets, components, expression, limits, compiled };
        params.resize(params.len().max(usize::from(id.0) + 1), None);
        params[usize::from(id.0)] = Some(&*Box::leak(Box::new(param)));
    }
    params
}

/// The parameters of each type, by type number, sorted by code.
fn params_by_type(types: &[TypeId], params: &[Option<&'static Param>]) -> Vec<Vec<&'static Param>> {
    let mut of_params: Vec<Vec<&'static Param>> = Vec::new();
    of_params.resize(types.iter().map(|t| usize::from(t.0) + 1).max().unwrap_or(0), Vec::new());
    for param in params.iter().flatten().copied() {
        for of in if param.bases.is_empty() { types } else { &param.bases } {
            of_params[usize::from(of.0)].push(param);
        }
    }
    of_params.iter_mut().for_each(|params| params.sort_unstable_by_key(|p| p.code));
    of_params
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases hold these numbers: whatever is appended, none that was given once may change.
    #[test]
    fn numbers_never_change() {
        let pinned = |table: &'static str, count: usize, name: usize| {
            let mut sum = 0xcbf2_9ce4_8422_2325u64;
            for row in rows(table).take(count) {
                let cells: Vec<_> = row.0.collect();
                for byte in cells[0].bytes().chain(cells[name].bytes()) {
                    sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
            sum
        };
        assert_eq!(pinned(TYPES, 146, 1), 8_267_631_603_180_326_143, "numbers of resource types");
        assert_eq!(pinned(PARAMS, 1387, 3), 10_371_101_353_858_667_455, "numbers of search parameters");
    }
}
