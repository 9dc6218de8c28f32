//! What the database can narrow of a query. The capsule decides every hit, so whatever stands here may let through
//! too much, but must never leave out a hit: in doubt a criterion narrows nothing.

use std::collections::{BTreeSet, HashSet};

use super::capsule::canonical_params;
use super::matcher::unresolved;
use super::query::{Criterion, Modifier, Prefix, Wanted, WantedReference, WantedSystem};
use super::terms::{COMPARTMENT_PARTITIONS, Raw, compartment_term, composite_parts, year_of};
use super::values::Common;
use crate::error::Result;
use crate::fhir::date::Range;
use crate::fhir::{ParamId, TypeId, definitions};
use crate::mapping::{self, BlindForm, Treatment};
use crate::vault::Vault;

/// How the database narrows candidates. Everything in it must hold; it may let through too much, never too little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Nothing can match: no need to ask the database.
    pub never: bool,
    /// One of these logical ids (`_id`).
    pub ids: Option<Vec<String>>,
    /// Rows of these patients.
    pub patients: Option<Patients>,
    /// Conjunction of disjunctions of blind terms.
    pub terms: Vec<Vec<i64>>,
    /// Inclusive range of `yr`, where the type's year parameter allows it (rows with no year always stay).
    pub years: Option<(i16, i16)>,
}

/// Rows sealed under the surrogate of one of `ids` (logical ids of Patients), or that hold one of `terms`
/// (compartment terms of rows of several patients; terms of other things the same parameter may refer to).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patients {
    pub ids: Vec<String>,
    pub terms: Vec<i64>,
}

/// What the database can narrow of resolved criteria on a type (those of the query and of row filters together).
///
/// # Errors
/// `Kind::Internal` when a chain or `_has` is still unresolved.
pub fn narrow(kind: TypeId, criteria: &[Criterion], vault: &Vault) -> Result<Narrow> {
    let scene = Scene { kind, patient: definitions().type_id("Patient"), vault };
    let mut all = Narrow::default();
    for criterion in criteria {
        all.and(scene.one(criterion)?);
    }
    Ok(all)
}

/// Larger sets of codes are left to the capsules: each code has as many terms as its parameter has partitions.
const CODES_NARROW_MAX: usize = 250;

struct Scene<'a> {
    kind: TypeId,
    patient: Option<TypeId>,
    vault: &'a Vault,
}

impl Narrow {
    fn never() -> Narrow {
        Narrow { never: true, ..Narrow::default() }
    }

    /// Both must hold.
    fn and(&mut self, other: Narrow) {
        self.never |= other.never;
        self.ids = match (self.ids.take(), other.ids) {
            (Some(ours), Some(theirs)) => {
                let theirs: HashSet<String> = theirs.into_iter().collect();
                let both: Vec<String> = ours.into_iter().filter(|id| theirs.contains(id)).collect();
                self.never |= both.is_empty();
                Some(both)
            }
            (ours, theirs) => ours.or(theirs),
        };
        // Two sets of patients cannot be intersected (a row may belong to several): the smaller one narrows.
        self.patients = match (self.patients.take(), other.patients) {
            (Some(ours), Some(theirs)) => Some(if theirs.size() < ours.size() { theirs } else { ours }),
            (ours, theirs) => ours.or(theirs),
        };
        self.terms.extend(other.terms);
        self.years = match (self.years, other.years) {
            (Some(ours), Some(theirs)) => Some((ours.0.max(theirs.0), ours.1.min(theirs.1))),
            (ours, theirs) => ours.or(theirs),
        };
    }

    /// At least one must hold.
    fn any(roads: Vec<Narrow>) -> Narrow {
        let mut roads: Vec<Narrow> = roads.into_iter().filter(|road| !road.never).collect();
        match roads.len() {
            0 => return Narrow::never(),
            1 => return roads.remove(0),
            _ => {}
        }
        let mut all = Narrow::default();
        if roads.iter().all(|road| road.ids.is_some()) {
            let ids: BTreeSet<String> = roads.iter_mut().filter_map(|road| road.ids.take()).flatten().collect();
            all.ids = Some(ids.into_iter().collect());
        }
        let years = roads.iter().map(|road| road.years).collect::<Option<Vec<_>>>();
        all.years = years.and_then(|years| years.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))));
        let shortest = |road: &Narrow| road.terms.iter().min_by_key(|clause| clause.len()).cloned();
        let clauses = roads.iter().map(shortest).collect::<Option<Vec<_>>>();
        if let Some(clauses) = clauses {
            all.terms.push(distinct(clauses.into_iter().flatten().collect()));
        } else {
            // Some go by patient, the others by terms: rows of these patients or with one of these terms.
            let mut patients = Patients::default();
            let complete = roads.into_iter().all(|mut road| match (road.patients.take(), shortest(&road)) {
                (Some(of), _) => {
                    patients.ids.extend(of.ids);
                    patients.terms.extend(of.terms);
                    true
                }
                (None, Some(clause)) => {
                    patients.terms.extend(clause);
                    true
                }
                (None, None) => false,
            });
            if complete {
                all.patients = Some(patients.tidy());
            }
        }
        all
    }
}

fn distinct<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

impl Patients {
    fn size(&self) -> usize {
        self.ids.len() + self.terms.len()
    }

    fn tidy(self) -> Patients {
        Patients { ids: distinct(self.ids), terms: distinct(self.terms) }
    }
}

impl Scene<'_> {
    fn one(&self, criterion: &Criterion) -> Result<Narrow> {
        Ok(match criterion {
            Criterion::Param { param, modifier, any_of } => self.param(*param, *modifier, any_of),
            Criterion::ReferenceIn { param, target, ids } => self.references(*param, *target, ids),
            Criterion::IdIn(ids) => self.named(ids),
            Criterion::NoneOf(_) => Narrow::default(),
            Criterion::AnyOf(lists) => {
                let roads = lists.iter().map(|list| narrow(self.kind, list, self.vault));
                Narrow::any(roads.collect::<Result<_>>()?)
            }
            Criterion::PatientIn(ids) | Criterion::PatientsWithin(ids) => self.patients(ids),
            Criterion::Masked { criteria, .. } => narrow(self.kind, criteria, self.vault)?,
            Criterion::NoPatient | Criterion::NotForbidden(_) => Narrow::default(),
            Criterion::Chain { .. } | Criterion::Has { .. } | Criterion::Hierarchy { .. } => return Err(unresolved()),
        })
    }

    /// Rows of these patients, by surrogate and, where a row belongs to several, by term.
    fn patients(&self, ids: &HashSet<String>) -> Narrow {
        let mut patients = Patients::default();
        for id in ids {
            patients.ids.push(id.clone());
            patients.terms.push(compartment_term(self.kind, id, self.vault));
        }
        Narrow { never: ids.is_empty(), patients: Some(patients.tidy()), ..Narrow::default() }
    }

    fn param(&self, param: ParamId, modifier: Option<Modifier>, any_of: &[Wanted]) -> Narrow {
        if matches!(modifier, Some(Modifier::Missing | Modifier::Not | Modifier::NotIn | Modifier::Other)) {
            return Narrow::default();
        }
        if param == Common::get().id {
            return ids(any_of);
        }
        let mut all = match mapping::treatment(self.kind, param) {
            // Above and below are other canonicals than the one that is named.
            Treatment::Compartment if matches!(modifier, Some(Modifier::Above | Modifier::Below)) => Narrow::default(),
            Treatment::Compartment => self.compartment(param, any_of),
            Treatment::Blind { form, partitions } => self.blind(param, *form, *partitions, modifier, any_of),
            Treatment::Capsule | Treatment::Refused { .. } => self.composite(param, any_of),
        };
        if mapping::mapping(self.kind).year == Some(param) {
            all.years = years(any_of);
        }
        all
    }

    /// One term per partition: rows derive theirs in one of them.
    fn keyed(&self, param: ParamId, partitions: u8, raw: &Raw) -> impl Iterator<Item = i64> {
        (0..partitions.max(1)).map(move |partition| raw.key(self.kind, param, partition, self.vault))
    }

    fn blind(
        &self,
        param: ParamId,
        form: BlindForm,
        partitions: u8,
        modifier: Option<Modifier>,
        any_of: &[Wanted],
    ) -> Narrow {
        let roads = any_of.iter().map(|wanted| raws(form, modifier, wanted)).collect::<Option<Vec<_>>>();
        let Some(roads) = roads else { return Narrow::default() };
        let clauses = |road: Vec<Vec<Raw>>| -> Vec<Vec<i64>> {
            let keyed = |clause: Vec<Raw>| clause.iter().flat_map(|raw| self.keyed(param, partitions, raw)).collect();
            road.into_iter().map(|clause| distinct(keyed(clause))).collect()
        };
        let roads = roads.into_iter().map(|road| Narrow { terms: clauses(road), ..Narrow::default() });
        Narrow::any(roads.collect())
    }

    /// Composites by those of their components that have terms.
    fn composite(&self, param: ParamId, any_of: &[Wanted]) -> Narrow {
        let parts = composite_parts(self.kind, param);
        let road = |wanted: &Wanted| {
            let Wanted::Composite(wanted) = wanted else { return Narrow::default() };
            let mut all = Narrow::default();
            for (wanted, part) in wanted.iter().zip(&parts) {
                if let Some((part, form, partitions)) = part {
                    all.and(self.blind(*part, *form, *partitions, None, std::slice::from_ref(wanted)));
                }
            }
            all
        };
        if parts.iter().all(Option::is_none) {
            return Narrow::default();
        }
        Narrow::any(any_of.iter().map(road).collect())
    }

    /// Logical ids and canonical urls.
    fn named(&self, names: &HashSet<String>) -> Narrow {
        let (urls, ids): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| is_url(name));
        let mut roads = Vec::new();
        if !ids.is_empty() {
            let ids = Some(distinct(ids.into_iter().cloned().collect()));
            roads.push(Narrow { ids, ..Narrow::default() });
        }
        let canonical = canonical_params(self.kind).filter(|_| !urls.is_empty());
        if let Some((param, _)) = canonical {
            let plain = urls.iter().map(|url| Wanted::Uri(url.split('|').next().unwrap_or(url).to_owned()));
            roads.push(self.param(param, None, &plain.collect::<Vec<_>>()));
        }
        Narrow::any(roads)
    }

    /// References of a compartment: to patients by surrogate, to anything else by term.
    fn compartment(&self, param: ParamId, any_of: &[Wanted]) -> Narrow {
        let mut patients = Patients::default();
        for wanted in any_of {
            match wanted {
                Wanted::Reference(WantedReference::Local { kinds, id, .. }) => {
                    let kinds = if kinds.is_empty() { definitions().types() } else { kinds };
                    kinds.iter().for_each(|kind| self.refer(param, *kind, id, &mut patients));
                }
                Wanted::Reference(WantedReference::Url(url)) => {
                    patients.terms.extend(self.keyed(param, COMPARTMENT_PARTITIONS, &Raw::whole(url)));
                }
                _ => return Narrow::default(),
            }
        }
        Narrow { patients: Some(patients.tidy()), ..Narrow::default() }
    }

    fn refer(&self, param: ParamId, kind: TypeId, id: &str, patients: &mut Patients) {
        if is_url(id) {
            patients.terms.extend(self.keyed(param, COMPARTMENT_PARTITIONS, &Raw::whole(id)));
        } else if Some(kind) == self.patient {
            patients.ids.push(id.to_owned());
            patients.terms.push(compartment_term(self.kind, id, self.vault));
        } else {
            patients.terms.extend(self.keyed(param, COMPARTMENT_PARTITIONS, &Raw::local(kind, id)));
        }
    }

    fn references(&self, param: ParamId, target: TypeId, ids: &HashSet<String>) -> Narrow {
        if ids.is_empty() {
            return Narrow::never();
        }
        match mapping::treatment(self.kind, param) {
            Treatment::Compartment => {
                let mut patients = Patients::default();
                ids.iter().for_each(|id| self.refer(param, target, id, &mut patients));
                Narrow { patients: Some(patients.tidy()), ..Narrow::default() }
            }
            Treatment::Blind { form: BlindForm::Whole, partitions } => {
                let terms = ids.iter().flat_map(|id| {
                    let raw = if is_url(id) { Raw::whole(id) } else { Raw::local(target, id) };
                    self.keyed(param, *partitions, &raw).collect::<Vec<_>>()
                });
                Narrow { terms: vec![distinct(terms.collect())], ..Narrow::default() }
            }
            _ => Narrow::default(),
        }
    }
}

/// A logical id has no colon, a canonical url has one.
fn is_url(name: &str) -> bool {
    name.contains(':')
}

/// Conjunction of disjunctions of terms that a hit must have; None: it may have none of them.
fn raws(form: BlindForm, modifier: Option<Modifier>, wanted: &Wanted) -> Option<Vec<Vec<Raw>>> {
    match (form, modifier, wanted) {
        (BlindForm::Token, None, Wanted::Token { system, code: Some(code) }) => {
            let system = match system {
                WantedSystem::Any => None,
                WantedSystem::Absent => Some(None),
                WantedSystem::Is(system) => Some(Some(system.as_str())),
            };
            Some(vec![vec![Raw::code(system, &code.exact)]])
        }
        (BlindForm::Token, _, Wanted::Codes(codes)) if codes.len() <= CODES_NARROW_MAX => {
            Some(vec![codes.iter().map(|(system, code)| Raw::code(Some(Some(system)), code)).collect()])
        }
        (BlindForm::Token, Some(Modifier::OfType), Wanted::OfType { value, .. }) => {
            Some(vec![vec![Raw::code(None, value)]])
        }
        (BlindForm::Prefix, None | Some(Modifier::Exact | Modifier::Whole), Wanted::Text { folded, .. }) => {
            let words = Raw::words(folded, modifier.is_some());
            (!words.is_empty()).then(|| words.into_iter().map(|word| vec![word]).collect())
        }
        (BlindForm::Sound, None, Wanted::Sounds(sounds)) => {
            let any = |classes: Vec<&str>| classes.into_iter().map(Raw::sound).collect();
            Some(sounds.narrowing().map(any).collect())
        }
        (BlindForm::Whole, None, Wanted::Uri(uri)) => Some(vec![vec![Raw::whole(uri)]]),
        (BlindForm::Whole, None | Some(Modifier::Type(_)), Wanted::Reference(wanted)) => Some(vec![match wanted {
            WantedReference::Local { kinds, id, .. } => {
                let kinds = if kinds.is_empty() { definitions().types() } else { kinds };
                kinds.iter().map(|kind| Raw::local(*kind, id)).collect()
            }
            WantedReference::Url(url) => vec![Raw::whole(url)],
        }]),
        _ => None,
    }
}

/// `_id`: as written, without a system.
fn ids(any_of: &[Wanted]) -> Narrow {
    let mut ids = Vec::new();
    for wanted in any_of {
        match wanted {
            Wanted::Token { system: WantedSystem::Any | WantedSystem::Absent, code: Some(code) } => {
                ids.push(code.exact.clone());
            }
            // An id is in no system.
            Wanted::Token { system: WantedSystem::Is(_), .. } => {}
            _ => return Narrow::default(),
        }
    }
    Narrow { never: ids.is_empty(), ids: Some(distinct(ids)), ..Narrow::default() }
}

/// The years of rows whose date lies in one year and satisfies one of these.
fn years(any_of: &[Wanted]) -> Option<(i16, i16)> {
    let mut all: Option<(i16, i16)> = None;
    for wanted in any_of {
        let Wanted::Date { prefix, range: Range { lo, hi } } = wanted else { return None };
        let from = |ms: i64| year_of(ms).unwrap_or(i16::MIN);
        let to = |ms: i64| year_of(ms).unwrap_or(i16::MAX);
        let (first, last) = match prefix {
            Prefix::Ne => return None,
            Prefix::Eq | Prefix::Ap => (from(*lo), to(*hi)),
            Prefix::Gt | Prefix::Sa => (from(*hi), i16::MAX),
            Prefix::Ge => (from(*lo), i16::MAX),
            Prefix::Lt | Prefix::Eb => (i16::MIN, to(*lo)),
            Prefix::Le => (i16::MIN, to(*hi)),
        };
        all = Some(all.map_or((first, last), |all| (all.0.min(first), all.1.max(last))));
    }
    all
}

#[cfg(test)]
mod tests;
