//! Conditions of a transaction's writes and its own entries: a conditional create finds what another entry makes, and two
//! entries must not mean the same resource. Stored resources are looked at elsewhere.

use std::collections::{HashMap, HashSet};

use super::step::{Step, foreseen};
use super::{Faults, at};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::{ParamId, TypeId, definitions};
use crate::interaction::Scene;
use crate::interaction::conditional::{Condition, several};

/// Entries compared with conditions that go by no code: each comparison indexes a resource.
const COMPARED_MAX: usize = 10_000;

/// A condition of a conditional create that found nothing stored, or of a conditional update. As text: a transaction may
/// have thousands, and few are looked at again.
pub(super) struct Own {
    n: usize,
    kind: TypeId,
    text: String,
    codes: Option<(ParamId, Vec<String>)>,
}

impl Own {
    pub fn of(n: usize, kind: TypeId, condition: &Condition) -> Own {
        Own { n, kind, text: condition.text(), codes: condition.codes() }
    }
}

/// Entries that write, by type, and by the codes that conditions ask for.
#[derive(Default)]
struct Written {
    all: HashMap<TypeId, Vec<usize>>,
    by_code: HashMap<(TypeId, ParamId, String), Vec<usize>>,
}

/// Conditional creates first, as a transaction writes; those that find what another entry makes become that entry's.
///
/// # Errors
/// In `faults`, with the place of the condition: `Kind::Precondition` where it matches several, or where an update means
/// what another entry writes; `Kind::TooCostly` where too much would have to be compared.
pub(super) async fn settle(
    scene: Scene<'_>,
    steps: &mut [Option<Step>],
    mut own: Vec<Own>,
    faults: &mut Faults,
) -> Result<()> {
    if own.is_empty() {
        return Ok(());
    }
    let written = written(scene, steps, &own)?;
    let conditional: HashSet<usize> = own.iter().map(|own| own.n).collect();
    let is_create = |step: &Option<Step>| matches!(step, Some(Step::Create { .. }));
    own.sort_by_key(|own| (!is_create(&steps[own.n]), own.n));
    let mut moved: HashMap<usize, (usize, String)> = HashMap::new();
    let mut compared = 0;
    for own in own {
        let creates = is_create(&steps[own.n]);
        // A later conditional create comes after this one: its own condition decides.
        let before = |m: usize| is_create(&steps[m]) && (m < own.n || !conditional.contains(&m));
        let mut others: Vec<usize> = written.could_satisfy(&own);
        others.retain(|m| *m != own.n && (!creates || before(*m)));
        if own.codes.is_none() {
            compared += others.len();
        }
        let place = at(own.n, if creates { "request.ifNoneExist" } else { "request.url" });
        let found = match compared > COMPARED_MAX {
            true => Err(too_many(own.kind)),
            false => satisfying(scene, steps, &own, others).await,
        };
        let found = found.and_then(|found| match (creates, found.as_slice()) {
            (_, []) => Ok(None),
            (true, [of]) => Ok(Some(*of)),
            (true, _) => Err(several()),
            (false, [of, ..]) => Err(overlaps(*of)),
        });
        let Some(Some(of)) = faults.take(found.map_err(|error| error.at(place)), own.n)? else { continue };
        let Some(address) = steps[of].as_ref().and_then(Step::address) else { continue };
        moved.insert(own.n, (of, address.clone()));
        steps[own.n] = Some(Step::Again { of, address });
    }
    // Those with the same condition as one that is made by another entry now.
    for step in steps.iter_mut().flatten() {
        if let Step::Again { of, address } = step
            && let Some((to, there)) = moved.get(of)
        {
            (*of, *address) = (*to, there.clone());
        }
    }
    Ok(())
}

fn written(scene: Scene<'_>, steps: &[Option<Step>], own: &[Own]) -> Result<Written> {
    let mut wanted: HashMap<TypeId, HashSet<ParamId>> = HashMap::new();
    for own in own {
        wanted.entry(own.kind).or_default().extend(own.codes.as_ref().map(|(param, _)| *param));
    }
    let mut written = Written::default();
    for (n, step) in steps.iter().enumerate() {
        if let Some((kind, ..)) = step.as_ref().and_then(Step::written).filter(|(kind, ..)| wanted.contains_key(kind)) {
            written.all.entry(kind).or_default().push(n);
        }
    }
    // One alone is the one whose condition it is.
    written.all.retain(|_, entries| entries.len() > 1);
    for (kind, entries) in &written.all {
        let Some(params) = wanted.get(kind).filter(|params| !params.is_empty()) else { continue };
        for n in entries {
            let Some((_, id, body)) = steps[*n].as_ref().and_then(Step::written) else { continue };
            let Some(resource) = foreseen(scene, id, body.tree()?.into_owned()) else { continue };
            for (param, code) in scene.app.store.codes(&resource, params).unwrap_or_default() {
                written.by_code.entry((*kind, param, code)).or_default().push(*n);
            }
        }
    }
    Ok(written)
}

impl Written {
    /// In order, distinct.
    fn could_satisfy(&self, own: &Own) -> Vec<usize> {
        let Some((param, codes)) = &own.codes else { return self.all.get(&own.kind).cloned().unwrap_or_default() };
        let of = |code: &String| self.by_code.get(&(own.kind, *param, code.clone()));
        let mut found: Vec<usize> = codes.iter().filter_map(of).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Those of the entries whose resources satisfy a condition.
async fn satisfying(scene: Scene<'_>, steps: &[Option<Step>], own: &Own, others: Vec<usize>) -> Result<Vec<usize>> {
    if others.is_empty() {
        return Ok(others);
    }
    // Its premises are noted already.
    let condition = Condition::parse(scene, own.kind, &own.text)?.settled(scene, &mut Vec::new()).await?;
    let own_id = steps[own.n].as_ref().and_then(Step::written).map(|(_, id, _)| id.to_owned());
    let mut found = Vec::new();
    for m in others {
        let Some((_, id, body)) = steps[m].as_ref().and_then(Step::written) else { continue };
        let Some(resource) = foreseen(scene, id, body.tree()?.into_owned()) else { continue };
        // Two entries with one address are told as such.
        if Some(id) != own_id.as_deref() && condition.holds(scene, &resource)? {
            found.push(m);
        }
    }
    Ok(found)
}

fn overlaps(of: usize) -> Error {
    let text = format!("The condition matches what entry {of} writes too: a transaction has no order between them.");
    Error::with_issues(Kind::Precondition, vec![Issue::error("multiple-matches", text)])
}

fn too_many(kind: TypeId) -> Error {
    let name = definitions().type_name(kind);
    let text = format!(
        "Conditions without identifier or code would have to be compared with more than {COMPARED_MAX} {name} of this \
         transaction. Name an identifier."
    );
    Error::new(Kind::TooCostly, text)
}
