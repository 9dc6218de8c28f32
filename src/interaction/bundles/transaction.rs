//! transaction: all writes in one commit with one record, or nothing at all. Deletions come first, then creates, then
//! updates and patches; reads and searches are performed after the commit, each with a record and a status of its own.
//! The faults of all entries are told together.

use std::collections::{HashMap, HashSet};

use super::resolve::Links;
use super::step::{Looked, Step};
use super::{Faults, answered, at, failed, in_entry, overlap, without_content};
use crate::audit::{Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, Addresses};
use crate::fhir::{Resource, TypeId};
use crate::interaction::write::patch::Bases;
use crate::interaction::write::references::{self, Look};
use crate::interaction::write::stage::{Change, Staged};
use crate::interaction::write::{TRIES_MAX, lost_race, nothing_written, outcome};
use crate::interaction::{
    self, Answer, Body, Bundle, BundleKind, Conditions, Content, Done, Entry, Facts, Interaction, Response, Return,
    Scene, Shape,
};
use crate::store::{Premise, Tx};

/// A change and the entry it came from.
type Numbered = (usize, Change);

/// A transaction whose entries are understood.
struct Understood {
    changes: Vec<Numbered>,
    /// What conditions found, and what the transaction so rests on.
    touched: Vec<Touched>,
    premises: Vec<Premise>,
    reads: Vec<(usize, Interaction, Box<Facts>, bool)>,
    /// Entries that find what another one makes.
    again: Vec<(usize, usize)>,
    /// Conditional creates whose resource is there.
    found: Vec<usize>,
    entries: Vec<Entry>,
}

/// What conditions gave.
struct Rests {
    touched: Vec<Touched>,
    premises: Vec<Premise>,
}

pub(super) async fn transaction(scene: Scene<'_>, entries: Vec<Result<bundle::Entry>>) -> Result<Answer> {
    let mut faults = Faults::default();
    let mut read: Vec<bundle::Entry> = Vec::with_capacity(entries.len());
    for (n, entry) in entries.into_iter().enumerate() {
        read.extend(faults.take(entry, n)?);
    }
    faults.told()?;
    for _ in 1..TRIES_MAX {
        // Put aside for another try after a lost race, which has to look at conditions again.
        let again = read.clone();
        match once(scene, read).await {
            Err(error) if lost_race(&error) => read = again,
            other => return other,
        }
    }
    once(scene, read).await
}

async fn once(scene: Scene<'_>, entries: Vec<bundle::Entry>) -> Result<Answer> {
    let Understood { changes, touched, premises, reads, again, mut found, mut entries } =
        understood(scene, entries).await?;
    let rests = Rests { touched, premises };
    commit(scene, in_order(changes)?, &rests, &mut entries).await?;
    for (n, of) in again {
        if let Some(Response::Done { version, .. }) = &entries[of].response {
            entries[n].response = Some(Response::Done { done: Done::Ok, version: version.clone() });
            found.push(n);
        }
    }
    for n in found {
        entries[n].content = as_found(scene, &entries[n]).await?;
    }
    for (n, asked, facts, head) in reads {
        let entry = match Box::pin(interaction::perform(scene.app, scene.caller, &facts, asked)).await {
            Ok(answer) => answered(answer),
            Err(error) if error.kind == Kind::Audit => return Err(error),
            Err(error) => failed(in_entry(error, n)),
        };
        entries[n] = if head { without_content(entry) } else { entry };
    }
    Ok(Answer::bundle(Bundle {
        id: scene.app.world.uuid(),
        kind: BundleKind::TransactionResponse,
        at: scene.app.world.now(),
        total: None,
        links: Vec::new(),
        entries,
    }))
}

/// What a conditional create gives back that made nothing, as on its own: where it is asked for, the resource, to who may
/// read it.
async fn as_found(scene: Scene<'_>, entry: &Entry) -> Result<Option<Content>> {
    let Some(Response::Done { version: Some(version), .. }) = &entry.response else { return Ok(None) };
    match scene.facts.prefer.returns {
        Some(Return::Representation) => {}
        Some(Return::OperationOutcome) => return Ok(Some(nothing_written())),
        Some(Return::Minimal) | None => return Ok(None),
    }
    let facts = Facts { pledge: None, conditions: Conditions::default(), ..scene.facts.clone() };
    let asked = Interaction::Read { kind: version.kind, id: version.id.clone(), query: Vec::new() };
    match Box::pin(interaction::perform(scene.app, scene.caller, &facts, asked)).await {
        Ok(Answer { body: Body::Content(content), .. }) => Ok(Some(content)),
        Err(error) if error.kind == Kind::Audit => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Understands, resolves, authorizes and checks every entry.
async fn understood(scene: Scene<'_>, sent: Vec<bundle::Entry>) -> Result<Understood> {
    let mut faults = Faults::default();
    let mut addresses = Addresses::default();
    let mut looked = Looked::default();
    let mut full_urls = Vec::with_capacity(sent.len());
    let mut steps: Vec<Option<Step>> = sent.iter().map(|_| None).collect();
    let mut others = Vec::with_capacity(sent.len());
    for (n, mut entry) in sent.into_iter().enumerate() {
        full_urls.push(entry.full_url.take());
        match entry.method == "DELETE" {
            true => steps[n] = faults.take(Step::of(scene, &mut entry, n, &mut looked).await, n)?,
            false => others.push((n, entry)),
        }
    }
    for (n, mut entry) in others {
        steps[n] = faults.take(Step::of(scene, &mut entry, n, &mut looked).await, n)?;
    }
    overlap::settle(scene, &mut steps, std::mem::take(&mut looked.own), &mut faults).await?;
    for (n, full_url) in full_urls.iter().enumerate() {
        let address = steps[n].as_ref().and_then(Step::address);
        let (Some(full_url), Some(address)) = (full_url, address) else { continue };
        let same = addresses.entries_of(full_url).any(|other| same_content(&steps, other, n));
        if !same {
            addresses.add(full_url, n, address);
        }
    }
    let links = (full_urls, addresses);
    let links = Links::resolve(scene, &steps, links, &mut looked.premises, &mut faults).await?;
    let mut understood = Understood {
        changes: Vec::with_capacity(steps.len()),
        touched: Vec::new(),
        premises: looked.premises,
        reads: Vec::new(),
        again: Vec::new(),
        found: Vec::new(),
        entries: steps.iter().map(|_| Entry::default()).collect(),
    };
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            None => {}
            Some(Step::Existing { version, touched: found }) => {
                understood.touched.push(found);
                understood.found.push(n);
                understood.entries[n].response = Some(Response::Done { done: Done::Ok, version: Some(version) });
            }
            Some(Step::Again { of, .. }) => understood.again.push((n, of)),
            Some(Step::Read { asked, facts, head }) => understood.reads.push((n, asked, facts, head)),
            Some(Step::Delete { ids, .. }) if ids.is_empty() => {
                understood.entries[n].response = Some(Response::Done { done: Done::NoContent, version: None });
            }
            Some(step) => {
                let changes = faults.take(step.changes(scene, n, &links), n)?;
                understood.changes.extend(changes.into_iter().flatten().map(|change| (n, change)));
            }
        }
    }
    faults.told()?;
    Ok(understood)
}

/// Whether two entries would make the same resource.
fn same_content(steps: &[Option<Step>], one: usize, other: usize) -> bool {
    let body = |n: usize| steps[n].as_ref()?.written()?.2.tree().ok();
    match (body(one), body(other)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// DELETE, POST, PUT and PATCH; no resource twice.
fn in_order(mut changes: Vec<Numbered>) -> Result<Vec<Numbered>> {
    let mut seen = HashSet::new();
    let mut faults = Faults::default();
    for (n, change) in &changes {
        if !seen.insert(change.target()) {
            let text = "Another entry writes the same resource: a transaction has no order between them.";
            faults.take(Err::<(), _>(Error::invalid(text).at(at(*n, "request.url"))), *n)?;
        }
    }
    faults.told()?;
    changes.sort_by_cached_key(|(_, change)| match change {
        Change::Delete { .. } => 0,
        // After what it is made of.
        Change::Create { resource, .. } | Change::Update { resource, .. } if resource.is_composite() => 3,
        Change::Create { .. } => 1,
        Change::Update { .. } | Change::Patch { .. } => 2,
    });
    Ok(changes)
}

/// Writes everything.
async fn commit(scene: Scene<'_>, changes: Vec<Numbered>, rests: &Rests, entries: &mut [Entry]) -> Result<()> {
    let bases = Bases::open(scene, changes.iter().map(|(_, change)| change)).await?;
    let mut tx = scene.app.store.begin();
    tx.rests_on(rests.premises.clone());
    tx.pledges(scene.facts.pledge.clone());
    let looked_at = changes.iter().filter(|(_, change)| !matches!(change, Change::Create { .. }));
    let looked_at: Vec<(TypeId, &str)> = looked_at.map(|(_, change)| change.target()).collect();
    tx.prefetch(&looked_at).await?;
    let returns = scene.facts.prefer.returns.unwrap_or(Return::Minimal);
    let mut faults = Faults::default();
    let mut staged: Vec<(usize, Staged)> = Vec::with_capacity(changes.len());
    for (n, change) in changes {
        let Some(mut one) = faults.take(change.stage(scene, &mut tx, &bases).await, n)? else { continue };
        if returns != Return::Representation {
            // A large transaction would be held once more for nothing.
            one.resource = None;
        }
        staged.push((n, one));
    }
    faults.told()?;
    unreferenced(scene, &mut tx, &staged).await?;
    let mut event = scene.event(What::Transaction, None);
    event.touched = rests.touched.clone();
    if staged.iter().all(|(_, staged)| !staged.writes) {
        scene.app.trail.record(event).await?;
        return place(staged, HashMap::new(), Return::Minimal, entries);
    }
    let wanted: Vec<Resource> = match returns {
        Return::Representation => staged.iter_mut().filter_map(|(_, staged)| staged.resource.take()).collect(),
        Return::Minimal | Return::OperationOutcome => Vec::new(),
    };
    let (written, _) = scene.app.trail.commit(event, tx, wanted, Vec::new()).await?;
    let mut contents = HashMap::with_capacity(written.len());
    for released in written {
        let key = (released.kind(), released.id().to_owned());
        contents.insert(key, Content::Released(released, Shape::Full));
    }
    place(staged, contents, returns, entries)
}

/// References that lead nowhere and deletions that would leave such, told with the places of their entries.
async fn unreferenced(scene: Scene<'_>, tx: &mut Tx, staged: &[(usize, Staged)]) -> Result<()> {
    let mut faults = Faults::default();
    let mut found = Vec::new();
    let resources = staged.iter().map(|(_, staged)| staged);
    for (kind, id, error) in references::faults(scene, tx, resources, Look::Now).await? {
        let of = |staged: &Staged| staged.version.as_ref().is_some_and(|it| it.kind == kind && it.id == id);
        found.push((staged.iter().find(|(_, staged)| of(staged)).map_or(0, |(n, _)| *n), error));
    }
    found.sort_by_key(|(n, _)| *n);
    for (n, error) in found {
        faults.take(Err::<(), _>(error), n)?;
    }
    faults.told()
}

/// Puts the outcomes where their entries are; several deletions of one entry are one outcome.
fn place(
    staged: Vec<(usize, Staged)>,
    mut contents: HashMap<(TypeId, String), Content>,
    returns: Return,
    entries: &mut [Entry],
) -> Result<()> {
    let mut of_entry: HashMap<usize, Vec<Staged>> = HashMap::with_capacity(staged.len());
    for (n, staged) in staged {
        of_entry.entry(n).or_default().push(staged);
    }
    for (n, all) in of_entry {
        let staged = Staged::together(all);
        let of = staged.version.as_ref().map(|version| (version.kind, version.id.clone()));
        let content = of.and_then(|of| contents.remove(&of));
        entries[n] = entry(staged, content, returns);
    }
    Ok(())
}

fn entry(staged: Staged, content: Option<Content>, returns: Return) -> Entry {
    let content = match returns {
        Return::OperationOutcome => Some(outcome(&staged)),
        Return::Minimal | Return::Representation => content,
    };
    let body = content.map_or(Body::Empty, Body::Content);
    answered(Answer { done: staged.done, version: staged.version, body })
}
