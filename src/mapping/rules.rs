//! What can be known of a search parameter from the definitions alone, and which rule of `default.toml` fits it.

use super::file::Rule;
use crate::fhir::definitions::{Param, Shape};
use crate::fhir::{ParamKind, TypeId, definitions};

/// What a parameter looks at in one type.
pub(super) struct Facts {
    /// FHIR types of the elements; None where the expression is no plain path.
    pub types: Option<Vec<&'static str>>,
    /// Whether all of them have few values by definition.
    pub closed: bool,
    /// Members of the resource that it reads.
    pub members: Vec<String>,
}

pub(super) fn facts(of: TypeId, param: &Param) -> Facts {
    let mut facts = Facts { types: Some(Vec::new()), closed: true, members: Vec::new() };
    let text = param.text(of).unwrap_or_default();
    for part in text.split(" | ") {
        let steps = steps(part);
        for name in members(definitions().type_name(of), part, &steps) {
            if !facts.members.contains(&name) {
                facts.members.push(name);
            }
        }
        match end(of, &steps) {
            Some((types, closed)) => {
                facts.closed &= closed;
                if let Some(all) = &mut facts.types {
                    all.extend(types);
                }
            }
            None => {
                facts.types = None;
                facts.closed = false;
            }
        }
    }
    facts
}

/// The members of the resource that one alternative reads: those after the type's name, wherever it stands.
fn members(kind: &str, part: &str, steps: &[Step<'_>]) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
    let named: Vec<String> = part
        .match_indices(kind)
        .filter(|(at, _)| !part[..*at].ends_with(|c: char| c.is_ascii_alphanumeric()))
        .filter_map(|(at, _)| part[at + kind.len()..].strip_prefix('.'))
        .map(word)
        .collect();
    let generic = ["DomainResource.", "Resource."].iter().find_map(|base| part.strip_prefix(base)).map(word);
    let first = steps.iter().find_map(|step| match step {
        Step::Member(name) => Some((*name).to_owned()),
        Step::As(_) | Step::Other => None,
    });
    if named.is_empty() { generic.or(first).into_iter().collect() } else { named }
}

enum Step<'a> {
    Member(&'a str),
    As(&'a str),
    /// Something that leads to a value which is not the element itself (`exists()`, a comparison).
    Other,
}

/// The steps of one alternative of a search expression: `(Observation.value as Quantity).value`, without the leading
/// type name and without filters, which change neither member nor type.
fn steps(part: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let (mut depth, mut start) = (0usize, 0usize);
    let mut pieces = Vec::new();
    // Outer parentheses only group: `(Observation.value as Quantity)`.
    let part = part.trim();
    let inner = part.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|rest| !rest.contains(')'));
    let part = inner.unwrap_or(part);
    for (at, c) in part.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '.' if depth == 0 => {
                pieces.push(&part[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&part[start..]);
    for piece in pieces.into_iter().map(str::trim) {
        let (name, cast) = match piece.split_once(" as ") {
            Some((name, cast)) => (name.trim(), Some(cast.trim())),
            None => (piece, None),
        };
        if name.starts_with("where(") {
            continue;
        }
        if let Some(cast) = name.strip_prefix("as(").and_then(|rest| rest.strip_suffix(')')) {
            steps.push(Step::As(cast.trim()));
        } else if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
        {
            steps.push(Step::Member(name));
        } else if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            steps.push(Step::Other);
        }
        steps.extend(cast.map(Step::As));
    }
    steps
}

/// The types at the end of a path, and whether they have few values by definition.
fn end(of: TypeId, steps: &[Step<'_>]) -> Option<(Vec<&'static str>, bool)> {
    let mut shape: Option<&'static Shape> = definitions().resource_shape(of);
    let mut found = None;
    let mut at = 0;
    while at < steps.len() {
        let Step::Member(name) = steps[at] else { return None };
        let element = shape?.elements.iter().find(|element| element.name == name)?;
        let cast = match steps.get(at + 1) {
            Some(Step::As(cast)) => Some(*cast),
            _ => None,
        };
        let types: Vec<&'static str> =
            element.types.iter().copied().filter(|kind| cast.is_none_or(|cast| *kind == cast)).collect();
        let member = match (element.choice, types.as_slice()) {
            (false, _) => Some(name.to_owned()),
            (true, [one]) => one.chars().next().map(|c| format!("{name}{}{}", c.to_ascii_uppercase(), &one[1..])),
            (true, _) => None,
        };
        shape = member.and_then(|member| shape?.child(&member)?.shape());
        let closed = element.required_binding.is_some() || types.iter().all(|kind| ["code", "boolean"].contains(kind));
        found = Some((types, closed));
        at += if cast.is_some() { 2 } else { 1 };
    }
    found.filter(|(types, _)| !types.is_empty())
}

impl Rule {
    /// Whether all its conditions hold for a parameter of a type.
    pub(super) fn fits(&self, of: TypeId, param: &Param, facts: &Facts, compartment: bool) -> bool {
        let contains =
            |list: &Option<Vec<String>>, name: &str| list.as_ref().is_none_or(|l| l.iter().any(|n| n == name));
        contains(&self.names, param.code)
            && contains(&self.types, definitions().type_name(of))
            && contains(&self.kinds, param.kind.name())
            && self.of.as_ref().is_none_or(|of| {
                facts.types.as_ref().is_some_and(|types| types.iter().all(|kind| of.iter().any(|o| o == kind)))
            })
            && self.closed.is_none_or(|closed| closed == facts.closed)
            && self.compartment.is_none_or(|is| is == compartment)
            && self.expression.is_none_or(|has| has == has_expression(of, param))
    }
}

pub(super) fn has_expression(of: TypeId, param: &Param) -> bool {
    param.kind == ParamKind::Composite || param.text(of).is_some_and(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, code: &str) -> Facts {
        let kind = definitions().type_id(kind).expect("a type");
        facts(kind, definitions().param(kind, code).expect("a parameter"))
    }

    #[test]
    fn facts_come_from_the_definitions() {
        let cases: &[(&str, &str, Option<&[&str]>, bool)] = &[
            ("Patient", "gender", Some(&["code"]), true),
            ("Patient", "active", Some(&["boolean"]), true),
            ("Patient", "identifier", Some(&["Identifier"]), false),
            ("Patient", "family", Some(&["string"]), false),
            ("Patient", "email", Some(&["ContactPoint"]), false),
            ("Observation", "code", Some(&["CodeableConcept"]), false),
            ("Observation", "value-quantity", Some(&["Quantity", "SampledData"]), false),
            ("Condition", "clinical-status", Some(&["CodeableConcept"]), true),
            ("DocumentReference", "location", Some(&["url"]), false),
            ("Encounter", "class", Some(&["Coding"]), false),
            ("Patient", "deceased", None, false),
        ];
        for (kind, code, types, closed) in cases {
            let facts = of(kind, code);
            assert_eq!((facts.types.as_deref(), facts.closed), (*types, *closed), "{kind} {code}");
        }
        assert_eq!(of("Patient", "deceased").members, ["deceased"]);
        assert_eq!(of("Patient", "phone").members, ["telecom"]);
        assert_eq!(of("Observation", "combo-code").members, ["code", "component"]);
    }
}
