//! What can be known of a search over audit entries before any is opened: the time it is about, and blind terms that
//! its hits must have. Lets through too much, never too little.

use std::ops::RangeInclusive;

use super::entry::Outcome;
use super::stored::month;
use super::terms::Subject;
use crate::fhir::{ParamId, TypeId, definitions};
use crate::search::Criterion;
use crate::search::query::{Modifier, Prefix, Wanted, WantedReference, WantedSystem};
use crate::vault::Vault;
use crate::world::Instant;

/// Terms of one criterion at most: more are not worth their query.
const TERMS_MAX: usize = 2_000;
/// Instants (milliseconds) that entries can lie in: from year 0001 to the last that the calendar counts.
const TIMES: (i64, i64) = (-62_135_596_800_000, 253_402_207_200_000);

/// The instants (milliseconds, both ends included) that hits must lie in, by `date` and `_lastUpdated`, which are the
/// same for entries of the trail.
pub fn times(kind: TypeId, criteria: &[Criterion]) -> RangeInclusive<i64> {
    let known = definitions();
    let of = |code| known.param(kind, code).map(|param| param.id);
    let (date, updated) = (of("date"), of("_lastUpdated"));
    let (mut from, mut to) = TIMES;
    for criterion in criteria {
        let Criterion::Param { param, modifier: None, any_of } = criterion else { continue };
        if Some(*param) != date && Some(*param) != updated {
            continue;
        }
        let bounds = any_of.iter().map(|wanted| match wanted {
            Wanted::Date { prefix: Prefix::Eq | Prefix::Ap, range } => (range.lo, range.hi),
            Wanted::Date { prefix: Prefix::Ge | Prefix::Gt | Prefix::Sa, range } => (range.lo, i64::MAX),
            Wanted::Date { prefix: Prefix::Le, range } => (i64::MIN, range.hi),
            Wanted::Date { prefix: Prefix::Lt | Prefix::Eb, range } => (i64::MIN, range.lo),
            _ => (i64::MIN, i64::MAX),
        });
        let widest = bounds.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        if let Some((lo, hi)) = widest {
            (from, to) = (from.max(lo), to.min(hi));
        }
    }
    from..=to
}

/// The months in which entries of these times lie, of those there are.
pub fn months(times: &RangeInclusive<i64>, there: (i32, i32)) -> RangeInclusive<i32> {
    let at = |ms: i64| month(Instant(ms.clamp(TIMES.0, TIMES.1)));
    at(*times.start()).max(there.0)..=at(*times.end()).min(there.1)
}

/// Lists of which every hit has at least one term each.
pub fn terms(kind: TypeId, criteria: &[Criterion], months: &RangeInclusive<i32>, vault: &Vault) -> Vec<Vec<i64>> {
    criteria
        .iter()
        .filter_map(|criterion| list(kind, criterion, months, vault))
        .filter(|list| list.len() <= TERMS_MAX)
        .collect()
}

fn code_of(kind: TypeId, param: ParamId) -> Option<&'static str> {
    let known = definitions();
    ["patient", "entity", "agent", "outcome"]
        .into_iter()
        .find(|code| known.param(kind, code).is_some_and(|known| known.id == param))
}

/// The terms of one criterion; None when it cannot narrow.
fn list(kind: TypeId, criterion: &Criterion, months: &RangeInclusive<i32>, vault: &Vault) -> Option<Vec<i64>> {
    let patient = definitions().type_id("Patient")?;
    let of = |subject: Subject<'_>| subject.over(vault, months);
    match criterion {
        Criterion::Param { param, modifier, any_of } => match (code_of(kind, *param)?, modifier) {
            ("patient" | "entity", None | Some(Modifier::Type(_))) => {
                let lists: Option<Vec<_>> = any_of.iter().map(|wanted| referred(wanted, patient, &of)).collect();
                let lists = lists?.concat();
                // Bulk entries have no terms for single resources.
                Some([lists, of(Subject::Bulk)].concat())
            }
            ("agent", Some(Modifier::Identifier)) => {
                let lists: Option<Vec<_>> = any_of
                    .iter()
                    .map(|wanted| match wanted {
                        // Clients have no system; users have their issuer as one.
                        Wanted::Token { system, code: Some(code) } => {
                            let user = of(Subject::User(&code.exact));
                            let client = if matches!(system, WantedSystem::Is(_)) {
                                Vec::new()
                            } else {
                                of(Subject::Client(&code.exact))
                            };
                            Some([user, client].concat())
                        }
                        _ => None,
                    })
                    .collect();
                lists.map(|lists| lists.concat())
            }
            ("outcome", None) => {
                let failed = any_of.iter().all(|wanted| match wanted {
                    Wanted::Token { code: Some(code), .. } => code.exact != Outcome::Success.code(),
                    _ => false,
                });
                failed.then(|| of(Subject::Failed))
            }
            _ => None,
        },
        Criterion::ReferenceIn { param, target, ids } if *target == patient && code_of(kind, *param).is_some() => {
            Some(ids.iter().flat_map(|id| of(Subject::Patient(id))).chain(of(Subject::Bulk)).collect())
        }
        _ => None,
    }
}

/// Terms of a reference to a resource on this server; None when it cannot be told what it is to.
fn referred(wanted: &Wanted, patient: TypeId, of: &impl Fn(Subject<'_>) -> Vec<i64>) -> Option<Vec<i64>> {
    let Wanted::Reference(WantedReference::Local { kinds, id, .. }) = wanted else { return None };
    let [kind] = kinds.as_slice() else { return None };
    Some(match *kind == patient {
        true => of(Subject::Patient(id)),
        false => of(Subject::Entity(definitions().type_name(*kind), id)),
    })
}
