//! `Observation/$lastn`: the most recent observations of each code. Which they are is decided on the capsules; only
//! those are opened.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Call, every, link, options, searchset};
use crate::access::{Grants, Search, authorize};
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::interaction::search::parse;
use crate::interaction::{Answer, Scene, terminology};
use crate::search::query::Summary;
use crate::search::values::Value;
use crate::search::{Query, View};
use crate::store::Judge;
use crate::vault::Rid;

/// One match as far as choosing needs it.
pub(super) struct Choice {
    rid: Rid,
    /// What it is grouped by: any of these in common.
    keys: Vec<String>,
    /// The latest moment it is about; without one it comes last.
    at: i64,
    /// Breaks ties, so that the same data gives the same answer.
    updated: i64,
    id: String,
}

pub(super) async fn lastn(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let kind = call.kind()?;
    let mut query = parse(scene, kind, &call.input.search, &options(scene)).await?;
    let named = |codes: &[&str]| {
        call.input.search.iter().any(|(name, value)| {
            !value.is_empty() && codes.contains(&name.split([':', '.']).next().unwrap_or_default())
        })
    };
    if !named(&["patient", "subject"]) || !named(&["code", "category"]) {
        let text = "$lastn needs patient or subject, and category or code, among its search parameters.";
        return Err(Error::new(Kind::Invalid, text));
    }
    let shaped = !query.sort.is_empty() || !query.includes.is_empty() || !query.revincludes.is_empty();
    let paged = call.input.search.iter().any(|(name, _)| matches!(name.as_str(), "_count" | "_total"));
    if shaped || paged || query.summary != Summary::False || !query.elements.is_empty() {
        return Err(Error::unsupported(
            "$lastn takes search parameters that filter, and none that shape the answer; \
                                       'max' says how many of each code.",
        ));
    }
    // Whoever may not search the type learns nothing of what a set of codes holds.
    authorize::<Search>(scene.caller, kind)?;
    terminology::resolve(scene, &mut query).await?;
    let grants = Grants::of(scene.caller, &query)?;
    let judge = choice(kind, "code", &["date"])?;
    let all = scene.app.store.survey(&grants, &query, judge).await?;
    let each = call.input.number("max").unwrap_or(1);
    let rids = most_recent(all, each);
    let max = scene.app.config.page_size_max.size();
    if rids.len() > max {
        let text = format!("The answer would hold {} observations, more than {max}: ask for fewer codes.", rids.len());
        return Err(Error::new(Kind::TooCostly, text));
    }
    let matches = scene.app.store.pick(&grants, &query, &rids).await?;
    let patients = call.input.search.iter().filter(|(name, _)| name == "patient" || name == "subject");
    let ids = patients.filter_map(|(_, value)| value.rsplit('/').next()).map(str::to_owned).collect();
    let event = Event { patients: ids, ..scene.event(What::Operation, Some(kind)) };
    let applied = query.applied.iter().cloned().chain([("max".to_owned(), each.to_string())]).collect();
    searchset(scene, link(scene, &call.address()?, &applied), event, matches, query.notes).await
}

/// Reads of a capsule what choosing needs: `code` groups, the first of `dates` that is there orders.
pub(super) fn choice(kind: TypeId, code: &str, dates: &[&str]) -> Result<Judge<Choice>> {
    let param = |code: &str| {
        definitions().param(kind, code).map(|param| param.id).ok_or_else(|| Error::internal("an unknown parameter"))
    };
    let code = param(code)?;
    let dates = dates.iter().map(|date| param(date)).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(move |rid, _, view: &View<'_>| {
        let (mut coded, mut texts) = (Vec::new(), Vec::new());
        for value in view.param(code)? {
            if let Value::Token { system, code, text } = value {
                match code {
                    Some(code) => coded.push(format!("{}|{code}", system.unwrap_or_default())),
                    None => texts.extend(text),
                }
            }
        }
        let mut at = i64::MIN;
        for date in &dates {
            let ends = view.param(*date)?.into_iter().filter_map(|value| match value {
                Value::Date(range) => Some(if range.hi == i64::MAX { range.lo } else { range.hi }),
                _ => None,
            });
            if let Some(latest) = ends.max() {
                at = latest;
                break;
            }
        }
        // Text counts only where there is no code: the same code is worded in many ways.
        let keys = if coded.is_empty() { texts } else { coded };
        Ok(Choice { rid, keys, at, updated: view.last_updated().0, id: view.id().to_owned() })
    }))
}

/// The last `max` of each group, groups in the order of their most recent member.
pub(super) fn most_recent(mut all: Vec<Choice>, max: usize) -> Vec<Rid> {
    all.sort_by(|a, b| (b.at, b.updated, &a.id).cmp(&(a.at, a.updated, &b.id)));
    let mut groups = Groups::default();
    let of: Vec<usize> = all.iter().map(|one| groups.group(&one.keys)).collect();
    let mut order: Vec<usize> = Vec::new();
    let mut taken: HashMap<usize, Vec<Rid>> = HashMap::new();
    for (one, group) in all.iter().zip(of) {
        let group = groups.root(group);
        let members = taken.entry(group).or_insert_with(|| {
            order.push(group);
            Vec::new()
        });
        if members.len() < max {
            members.push(one.rid);
        }
    }
    order.into_iter().filter_map(|group| taken.remove(&group)).flatten().collect()
}

/// Groups that grow together where a member has keys of both.
#[derive(Default)]
struct Groups {
    parents: Vec<usize>,
    of_key: HashMap<String, usize>,
}

impl Groups {
    fn group(&mut self, keys: &[String]) -> usize {
        let own = self.parents.len();
        self.parents.push(own);
        for key in keys {
            match self.of_key.get(key).copied() {
                Some(other) => {
                    let (root, mine) = (self.root(other), self.root(own));
                    self.parents[mine] = root;
                }
                None => drop(self.of_key.insert(key.clone(), own)),
            }
        }
        own
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }
}

/// A search of a type that an operation narrows by itself.
pub(super) fn narrowed(scene: Scene<'_>, kind: TypeId, pairs: &[(&str, String)]) -> Result<Query> {
    let mut query = every(scene, kind)?;
    let options = options(scene);
    for (name, value) in pairs {
        query.criteria.push(crate::search::Criterion::parse(kind, name, value, &options)?);
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: i64, keys: &[&str], at: i64) -> Choice {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Choice { rid: Rid(n), keys, at, updated: 0, id: n.to_string() }
    }

    #[test]
    fn groups_are_of_codes_that_any_member_joins() {
        let all = [
            one(1, &["l|a"], 10),
            one(2, &["l|a", "s|x"], 30),
            one(3, &["s|x"], 20),
            one(4, &["l|b"], 40),
            one(5, &["l|b"], i64::MIN),
            one(6, &[], 5),
            one(7, &[], 6),
        ];
        let numbers = |max| {
            let all = all.iter().map(|c| Choice { keys: c.keys.clone(), id: c.id.clone(), ..*c }).collect();
            most_recent(all, max).into_iter().map(|rid| rid.0).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), [4, 2, 7, 6], "without a code each stands alone");
        assert_eq!(numbers(2), [4, 5, 2, 3, 7, 6]);
    }
}
