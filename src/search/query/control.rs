//! Parameters that shape the answer: `_sort`, `_count`, `_total`, `_summary`, `_elements`.

use super::chain::{Fault, searchable};
use super::parse::limits;
use super::{QueryOptions, SortBy, Summary, Total};
use crate::error::{Error, Kind};
use crate::fhir::{ParamKind, TypeId, definitions};

fn bad(name: &str, value: &str, expected: &str) -> Fault {
    Fault::Wrong(Error::invalid(format!("The value '{value}' of '{name}' is not valid; expected {expected}.")))
}

/// `a,-b`: parameters of the type, `-` for descending.
pub(super) fn sort(kind: TypeId, value: &str, options: &QueryOptions) -> Result<Vec<SortBy>, Fault> {
    let mut keys: Vec<SortBy> = Vec::new();
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let (code, descending) = match part.strip_prefix('-') {
            Some(code) => (code, true),
            None => (part, false),
        };
        if code == "_score" {
            let text = "'_score' cannot be sorted by: the hits of this server are not weighted.";
            return Err(Fault::Unknown(Error::unsupported(text)));
        }
        let param = searchable(kind, code, options)?;
        if matches!(param.kind, ParamKind::Composite | ParamKind::Special) {
            return Err(bad("_sort", part, "parameters that are not composite"));
        }
        if param.kind == ParamKind::Phonetic {
            return Err(bad("_sort", part, "names themselves (family, name): sounds are in no order"));
        }
        if keys.iter().any(|key| key.param == param.id) {
            return Err(bad("_sort", value, "each parameter once"));
        }
        keys.push(SortBy { param: param.id, descending });
    }
    if keys.len() > limits::SORT_KEYS {
        let text = format!("At most {} keys of _sort are taken.", limits::SORT_KEYS);
        return Err(Fault::Wrong(Error::new(Kind::TooCostly, text)));
    }
    Ok(keys)
}

/// What searches of one type take out before (`interaction::contained`); all others look at no contained resource.
pub(super) fn contained(name: &str, value: &str) -> Result<(), Fault> {
    match (name, value) {
        ("_contained", "false") | ("_containedType", "container" | "contained") => Ok(()),
        ("_contained", "true" | "both") => {
            let text =
                format!("'{name}={value}' is only supported in searches of one type, or of one in a compartment.");
            Err(Fault::Unknown(Error::unsupported(text)))
        }
        ("_contained", _) => Err(bad(name, value, "true, false or both")),
        _ => Err(bad(name, value, "container or contained")),
    }
}

pub(super) fn count(value: &str) -> Result<usize, Fault> {
    value.parse().map_err(|_| bad("_count", value, "a whole number from 0"))
}

pub(super) fn total(value: &str) -> Result<Total, Fault> {
    Ok(match value {
        "none" => Total::None,
        "estimate" => Total::Estimate,
        "accurate" => Total::Accurate,
        _ => return Err(bad("_total", value, "none, estimate or accurate")),
    })
}

pub(super) fn summary(value: &str) -> Result<Summary, Fault> {
    Ok(match value {
        "true" => Summary::True,
        "text" => Summary::Text,
        "data" => Summary::Data,
        "count" => Summary::Count,
        "false" => Summary::False,
        _ => return Err(bad("_summary", value, "true, text, data, count or false")),
    })
}

/// Elements of the type by their paths, with or without the type before them (`name`, `Patient.contact.name`).
pub(super) fn elements(kind: TypeId, value: &str) -> Result<Vec<String>, Fault> {
    let name = definitions().type_name(kind);
    let known = definitions().children(name).unwrap_or(&[]);
    let mut wanted: Vec<String> = Vec::new();
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let path = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).unwrap_or(part);
        if !definitions().is_path(name, path) {
            let near = near(part, known.iter().map(|element| element.name));
            let text = format!("'{part}' in '_elements' is no element of {name}{near}.");
            return Err(Fault::Unknown(Error::invalid(text)));
        }
        if !wanted.iter().any(|have| have == path) {
            wanted.push(path.into());
        }
    }
    Ok(wanted)
}

/// "; did you mean ..." with up to three names that resemble the one given, or nothing.
pub(super) fn near<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    const NAME_MAX: usize = 64;
    if given.len() > NAME_MAX {
        return String::new();
    }
    let given = given.to_lowercase();
    let mut close: Vec<(usize, &str)> = known
        .filter_map(|name| {
            let other = name.to_lowercase();
            let apart = distance(&given, &other);
            let within = given.len() > 3 && (other.contains(&given) || given.contains(&other));
            (apart <= 1 + given.len() / 4 || within).then_some((apart, name))
        })
        .collect();
    close.sort_unstable();
    close.truncate(3);
    if close.is_empty() {
        return String::new();
    }
    let names: Vec<_> = close.into_iter().map(|(_, name)| format!("'{name}'")).collect();
    format!("; did you mean {}", names.join(", "))
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_resemble() {
        assert_eq!(near("birthDate", ["birthdate", "name", "gender"].into_iter()), "; did you mean 'birthdate'");
        assert_eq!(near("xyz", ["birthdate", "name"].into_iter()), "");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
