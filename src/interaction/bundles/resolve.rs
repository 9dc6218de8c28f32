//! References between the entries of a transaction, and conditional references (`Patient?identifier=...`): these are
//! resolved as after all writes, so against what is stored and against the other entries.

use std::collections::HashMap;

use super::step::Step;
use super::{Faults, at};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, Addresses};
use crate::fhir::reference::{self, Reference};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::Scene;
use crate::interaction::conditional::Condition;
use crate::store::Premise;

/// Stored matches of a conditional reference that are looked at: entries of the bundle may replace some of them.
const MATCHES_MAX: usize = 20;

/// A conditional reference: the first entry that has it, the type and the query.
type Wanted = (usize, TypeId, String);

/// Rewrites the references of all entries.
///
/// # Errors
/// `Kind::Invalid` where a reference has no one target, `Kind::Precondition` where a conditional one does not match
/// exactly one resource: all of them, each with the place of its entry.
pub(super) async fn resolve(
    scene: Scene<'_>,
    steps: &mut [Option<Step>],
    full_urls: &[Option<String>],
    addresses: &Addresses,
    premises: &mut Vec<Premise>,
    faults: &mut Faults,
) -> Result<()> {
    let base = &scene.app.config.base_url;
    let mut wanted: HashMap<String, Wanted> = HashMap::new();
    for (n, step) in steps.iter_mut().enumerate() {
        let Some(body) = step.as_mut().and_then(Step::body) else { continue };
        let rewritten = addresses.rewrite(body, full_urls[n].as_deref());
        faults.take(rewritten.map_err(|error| error.at(at(n, "resource"))), n)?;
        bundle::references(body, |text| {
            if text.contains('?')
                && let Reference::Conditional { kind, query } = reference::parse(text, base)
            {
                wanted.entry(text.clone()).or_insert((n, kind, query));
            }
        });
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut found = HashMap::with_capacity(wanted.len());
    let mut wanted: Vec<(String, Wanted)> = wanted.into_iter().collect();
    wanted.sort_unstable_by_key(|(_, (n, ..))| *n);
    for (text, (n, kind, query)) in wanted {
        let id = matched(scene, steps, kind, &query, premises).await.map_err(|error| error.at(at(n, "resource")));
        if let Some(id) = faults.take(id, n)? {
            found.insert(text, format!("{}/{id}", definitions().type_name(kind)));
        }
    }
    for step in steps {
        let Some(body) = step.as_mut().and_then(Step::body) else { continue };
        bundle::references(body, |text| {
            if let Some(address) = found.get(text.as_str()) {
                text.clone_from(address);
            }
        });
    }
    Ok(())
}

/// The id of the one resource that satisfies a conditional reference once the transaction is done. The transaction rests
/// on what was looked at.
async fn matched(
    scene: Scene<'_>,
    steps: &[Option<Step>],
    kind: TypeId,
    query: &str,
    premises: &mut Vec<Premise>,
) -> Result<String> {
    let condition = Condition::parse(scene, kind, query)?;
    decidable(&condition, steps, kind)?;
    let mut looked = Vec::new();
    let condition = condition.settled(scene, &mut looked).await?;
    premises.extend(looked.into_iter().map(Premise::looks_only));
    let mut ids: Vec<String> = Vec::new();
    for found in condition.all(scene, MATCHES_MAX).await? {
        let replaced = steps.iter().flatten().any(|step| step.replaces(kind, &found.version.id));
        if !replaced {
            ids.push(found.version.id);
        }
    }
    let written = steps.iter().flatten().filter_map(Step::written);
    for (_, id, body) in written.filter(|(of, ..)| *of == kind) {
        // What is not valid is told at its own entry.
        let Ok(mut resource) = Resource::check(body.clone()) else { continue };
        resource.stamp(id, 1, scene.app.world.now());
        if condition.holds(scene, &resource)? {
            ids.push(id.to_owned());
        }
    }
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        (None, _) => Err(Error::new(Kind::Precondition, "A conditional reference matches no resource.")),
        _ => Err(Error::new(Kind::Precondition, "A conditional reference matches more than one resource.")),
    }
}

/// Refuses what cannot be known before the transaction is done: what a patch makes of a resource, and what chains, `_has`
/// and sets of codes find among the transaction's own entries.
fn decidable(condition: &Condition, steps: &[Option<Step>], kind: TypeId) -> Result<()> {
    let steps = || steps.iter().flatten();
    let name = definitions().type_name(kind);
    if steps().any(|step| matches!(step, Step::Patch { kind: of, .. } if *of == kind)) {
        let text =
            format!("A {name} is patched by the same transaction, so a reference by a query to {name} is not sure.");
        return Err(Error::unsupported(format!("{text} Send the patch on its own.")));
    }
    let looked = condition.looks_at().into_iter().find(|of| steps().any(|step| step.changes_type(*of)));
    match looked {
        Some(of) => {
            let of = definitions().type_name(of);
            Err(Error::unsupported(format!(
                "The query of a reference goes by {of} resources (a chain, _has or a set of codes), which the same \
                 transaction writes. Refer by fullUrl, or send them before."
            )))
        }
        None => Ok(()),
    }
}
