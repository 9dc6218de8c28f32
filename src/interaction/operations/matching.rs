//! `Patient/$match`: candidates share something that the database can narrow by (an identifier, a telephone number, the
//! beginning of a name ...); how like they are is decided on their capsules. Only what is given back is opened.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Call, escaped, every, graded, link, note, options};
use crate::access::Grants;
use crate::audit::What;
use crate::domain::likeness::{Grade, Likeness, grade};
use crate::error::{Error, Kind, Result};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::{Answer, Scene};
use crate::search::query::QueryOptions;
use crate::search::values::{Value, Values, values};
use crate::search::{Criterion, Query, View, text};
use crate::store::{Judge, Sealed};
use crate::vault::Rid;

/// Values of one parameter that candidates are looked for by.
const VALUES_MAX: usize = 8;
/// Letters of a name that candidates share.
const FAMILY: usize = 4;
const GIVEN: usize = 3;

/// A patient that is like the one given.
pub(super) struct Match {
    pub sealed: Sealed,
    pub score: f64,
    pub grade: Grade,
}

pub(super) async fn patients(scene: Scene<'_>, mut call: Call) -> Result<Answer> {
    let kind = call.kind()?;
    let max = scene.app.config.page_size.size();
    let count = call.input.number("count").unwrap_or(max).min(scene.app.config.page_size_max.size());
    let certain = call.input.flag("onlyCertainMatches") == Some(true);
    let (mut found, more) = matches(scene, given(&mut call, "resource")?, kind, count).await?;
    let mut notes = Vec::new();
    if more {
        notes.push(note(format!("More patients match: the best {count} are given.")));
    }
    if certain {
        found.retain(|one| one.grade == Grade::Certain);
        if found.len() > 1 {
            found.clear();
            notes.push(note("More than one match is certain: none is given, as onlyCertainMatches asks."));
        }
    }
    let event = scene.event(What::Operation, Some(kind));
    let with_grade = |one: Match| {
        // Three digits: more would say what is not known.
        (one.sealed, Some(((one.score * 1000.0).floor() / 1000.0, one.grade.code())))
    };
    // The person who was looked for was in the body, and does not go into an address.
    let applied = vec![("count".to_owned(), count.to_string()), ("onlyCertainMatches".to_owned(), certain.to_string())];
    let own = link(scene, &call.address()?, &applied);
    graded(scene, own, event, found.into_iter().map(with_grade).collect(), notes).await
}

/// A resource parameter, checked.
pub(super) fn given(call: &mut Call, name: &str) -> Result<Resource> {
    let place = call.input.place(name);
    let node = call.input.take(name).ok_or_else(|| Error::internal("an operation without its input"))?;
    Resource::check_at(node, &place)
}

/// The best matches, best first, and whether there are more. Their disclosure is the caller's to put on record.
pub(super) async fn matches(
    scene: Scene<'_>,
    mut resource: Resource,
    kind: TypeId,
    count: usize,
) -> Result<(Vec<Match>, bool)> {
    let now = scene.app.world.now();
    // Values are computed of stored resources: this one is as if it were.
    resource.stamp("given", 1, now);
    let values = values(&resource, 1, now, &scene.app.config.base_url)?;
    let mut query = every(scene, kind)?;
    query.criteria.push(Criterion::AnyOf(roads(&values, kind, &options(scene))?));
    let grants = Grants::of(scene.caller, &query)?;
    let likeness = Likeness::of(kind, |param| values.params.get(&param).cloned().unwrap_or_default())?;
    let judge: Judge<(Rid, f64, String)> = Arc::new(move |rid, _, view: &View<'_>| {
        Ok((rid, likeness.score(|param| view.param(param))?, view.id().to_owned()))
    });
    let mut scored = scene.app.store.survey(&grants, &query, judge).await?;
    scored.retain(|(_, score, _)| grade(*score).is_some());
    let best_first = |a: &(Rid, f64, String), b: &(Rid, f64, String)| {
        b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then_with(|| a.2.cmp(&b.2))
    };
    scored.sort_by(best_first);
    let more = scored.len() > count;
    scored.truncate(count);
    let rids: Vec<Rid> = scored.iter().map(|(rid, ..)| *rid).collect();
    let sealed = scene.app.store.pick(&grants, &query, &rids).await?;
    let of = |sealed: Sealed| {
        let (_, score, _) = scored.iter().find(|(_, _, id)| *id == sealed.header().id)?;
        Some(Match { sealed, score: *score, grade: grade(*score)? })
    };
    Ok((sealed.into_iter().filter_map(of).collect(), more))
}

/// What a candidate must share, in one way or another: lists of criteria of which each begins with one that narrows.
///
/// # Errors
/// `Kind::BusinessRule` when nothing is given by which patients could be found.
pub(super) fn roads(given: &Values, kind: TypeId, options: &QueryOptions) -> Result<Vec<Vec<Criterion>>> {
    let of = |code: &str| {
        let param = definitions().param(kind, code).map(|param| param.id);
        param.and_then(|param| given.params.get(&param)).into_iter().flatten().take(VALUES_MAX)
    };
    let beginning = |value: &Value, letters: usize| match value {
        Value::Text(name) => {
            let folded = text::fold(name);
            let start: String = folded.split(' ').next().unwrap_or_default().chars().take(letters).collect();
            (start.chars().count() > 1).then_some(start)
        }
        _ => None,
    };
    let born = of("birthdate").find_map(|value| match value {
        Value::Date(range) => Some(crate::world::Instant(range.lo).to_fhir()),
        _ => None,
    });
    let mut roads: Vec<Vec<(&str, String)>> = Vec::new();
    for value in of("identifier") {
        if let Value::Identifier { system, value: Some(number), .. } = value {
            let system = system.as_deref().map(|system| format!("{}|", escaped(system))).unwrap_or_default();
            roads.push(vec![("identifier", format!("{system}{}", escaped(number)))]);
        }
    }
    for code in ["phone", "email"] {
        for value in of(code) {
            if let Value::Token { code: Some(text), .. } = value {
                roads.push(vec![(code, escaped(text))]);
            }
        }
    }
    roads.extend(of("family").filter_map(|name| beginning(name, FAMILY)).map(|start| vec![("family", start)]));
    if let Some(born) = &born {
        let given = of("given").filter_map(|name| beginning(name, GIVEN));
        roads.extend(given.map(|start| vec![("given", start), ("birthdate", born[..4].to_owned())]));
        for value in of("address-postalcode") {
            if let Value::Text(code) = value {
                roads.push(vec![("address-postalcode", escaped(code)), ("birthdate", born[..10].to_owned())]);
            }
        }
    }
    if roads.is_empty() {
        let text = "Patients are matched by identifier, family name, telephone, email, or given name or postal code \
                    together with the date of birth: the Patient has none of these.";
        return Err(Error::new(Kind::BusinessRule, text));
    }
    let parse = |road: Vec<(&str, String)>| {
        road.into_iter().map(|(name, value)| Criterion::parse(kind, name, &value, options)).collect::<Result<Vec<_>>>()
    };
    roads.into_iter().map(parse).collect()
}

/// A search for the resources of a type that refer to one resource by a parameter.
pub(super) fn referring(scene: Scene<'_>, kind: TypeId, param: &str, to: &str) -> Result<Query> {
    let mut query = every(scene, kind)?;
    query.criteria.push(Criterion::parse(kind, param, to, &options(scene))?);
    Ok(query)
}

#[cfg(test)]
mod tests;
