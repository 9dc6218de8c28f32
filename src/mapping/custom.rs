//! How parameters that a site defines itself are treated: by the rules of `default.toml`, but never more openly than
//! the mapping treats the elements they look at.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, PoisonError, RwLock};

use super::build::Making;
use super::file::{self, DefaultFile};
use super::{Mapping, Stored, Treatment, mapping};
use crate::fhir::definitions::Param;
use crate::fhir::{ParamId, TypeId, definitions};

type Known = HashMap<(TypeId, ParamId), &'static Treatment>;

static DEFAULT: LazyLock<DefaultFile> = LazyLock::new(|| {
    // Embedded, and read before by everything that asks for a mapping.
    file::read(file::DEFAULT.0, file::DEFAULT.1).unwrap_or_else(|fault| panic!("{fault}"))
});

/// The treatment of a parameter of the site; None where it is unknown or does not apply to the type.
pub(super) fn treatment(of: TypeId, id: ParamId) -> Option<&'static Treatment> {
    static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);
    let param = definitions().param_by_id(id).filter(|param| param.bases.contains(&of))?;
    if let Some(known) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&(of, id)) {
        return Some(known);
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    // What a number means never changes, so one treatment for each is made in the life of a process.
    Some(known.entry((of, id)).or_insert_with(|| Box::leak(Box::new(make(of, param)))))
}

fn make(of: TypeId, param: &Param) -> Treatment {
    let refused = |reason: &str| Treatment::Refused { reason: reason.to_owned() };
    let Some(members) = param.members(of) else { return refused("What its expression reads cannot be told.") };
    let mapping = mapping(of);
    if let Some(reason) = forbidden(mapping, &members) {
        return refused(reason);
    }
    let making = Making::new(file::DEFAULT.0, of, &DEFAULT);
    match making.by_rule(param, &DEFAULT) {
        Ok(Treatment::Blind { form, partitions }) if in_terms(mapping, &members) => {
            Treatment::Blind { form, partitions }
        }
        Ok(refused @ Treatment::Refused { .. }) => refused,
        // The rules are checked with every standard parameter; one that fits none stays out of the database.
        Ok(_) | Err(_) => Treatment::Capsule,
    }
}

/// Why a parameter may not look at these members.
fn forbidden(mapping: &Mapping, members: &BTreeSet<String>) -> Option<&'static str> {
    let hit = |member: &String| {
        DEFAULT.unindexable.iter().find(|rule| {
            let of_class = |class| mapping.elements.iter().any(|e| e.name == *member && e.classes.contains(class));
            rule.elements.contains(member) || rule.classes.iter().any(of_class)
        })
    };
    members.iter().find_map(hit).map(|rule| rule.reason.as_str())
}

/// Whether the mapping lets every one of these elements stand in terms. A type without a file says so of no element but
/// those that all types share: there the rules alone decide.
fn in_terms(mapping: &Mapping, members: &BTreeSet<String>) -> bool {
    members.iter().all(|member| {
        let mut rules = mapping.elements.iter().filter(|element| element.name == *member).peekable();
        match rules.peek() {
            Some(_) => rules.all(|element| element.stored == Stored::Blind),
            None => !mapping.own_file,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::ParamKind;
    use crate::fhir::definitions::custom::{Spec, install};

    #[test]
    fn a_parameter_is_no_more_open_than_its_element() {
        let cases = [
            ("Patient", ParamKind::String, "Patient.name.suffix", "capsule"),
            ("Patient", ParamKind::Token, "Patient.identifier", "blind"),
            // Its own rules would give prefixes of dates of birth.
            ("Patient", ParamKind::String, "Patient.birthDate", "capsule"),
            ("Observation", ParamKind::Reference, "Observation.focus", "blind"),
            ("Observation", ParamKind::Token, "Observation.interpretation", "capsule"),
            ("Task", ParamKind::Reference, "Task.for", "blind"),
            ("Patient", ParamKind::String, "Patient.photo.title", "refused"),
            ("Patient", ParamKind::String, "Patient.text.div", "refused"),
            ("Task", ParamKind::String, "Task.name | Task.contained.id", "refused"),
        ];
        for (n, (of, kind, expression, expected)) in cases.into_iter().enumerate() {
            let of = definitions().type_id(of).expect("a type");
            let spec = Spec {
                code: format!("mapped-{n}"),
                url: "http://a".into(),
                kind,
                bases: vec![of],
                targets: Vec::new(),
                expression: expression.into(),
                components: Vec::new(),
                limits: Default::default(),
            };
            // Far above what other tests of this process are given.
            let id = ParamId::custom(30_000 + n as u64).expect("a number");
            install(id, spec).expect(expression);
            let found = match crate::mapping::treatment(of, id) {
                Treatment::Blind { .. } => "blind",
                Treatment::Capsule => "capsule",
                Treatment::Compartment => "compartment",
                Treatment::Refused { .. } => "refused",
            };
            assert_eq!(found, expected, "{expression}");
        }
        let unknown = crate::mapping::treatment(TypeId(1), ParamId::custom(29_999).expect("a number"));
        assert!(matches!(unknown, Treatment::Refused { .. }));
    }
}
