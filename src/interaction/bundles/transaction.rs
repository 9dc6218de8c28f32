//! transaction: all writes in one commit with one record, or nothing at all. Deletions come first, then creates, then
//! updates; reads and searches are performed after the commit, each with a record and a status of its own.

use std::collections::{HashMap, HashSet};

use super::{answered, asked, at, facts_of, failed, in_entry, is_of_entry};
use crate::access::{Create, Delete, Update, authorize};
use crate::audit::{Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, Addresses};
use crate::fhir::json::Node;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::conditional::Condition;
use crate::interaction::write::stage::{self, Change, Staged};
use crate::interaction::write::{TRIES_MAX, conflict, lost_race, outcome};
use crate::interaction::{
    self, Answer, Body, Bundle, BundleKind, Conditions, Content, Done, Entry, Facts, Interaction, Response, Return,
    Scene, Shape, VersionOf,
};

/// One entry, understood.
enum Step {
    Create {
        kind: TypeId,
        id: String,
        body: Node,
        claim: Option<stage::Claim>,
    },
    Update {
        kind: TypeId,
        id: String,
        body: Node,
        conditions: Conditions,
    },
    Delete {
        kind: TypeId,
        id: String,
        conditions: Conditions,
    },
    /// A conditional create whose condition is met already.
    Existing {
        version: VersionOf,
        touched: Touched,
    },
    /// Performed after the commit.
    Read {
        asked: Interaction,
        facts: Box<Facts>,
    },
}

/// A change and the entry it came from.
type Numbered = (usize, Change);

pub(super) async fn transaction(scene: Scene<'_>, entries: Vec<Result<bundle::Entry>>) -> Result<Answer> {
    let entries = entries.into_iter().collect::<Result<Vec<_>>>()?;
    let mut addresses = Addresses::default();
    let mut full_urls = Vec::with_capacity(entries.len());
    let mut steps = Vec::with_capacity(entries.len());
    for (n, mut entry) in entries.into_iter().enumerate() {
        let mut step = step(scene, &mut entry, n).await.map_err(|error| in_entry(error, n))?;
        if let (Some(full_url), Some(address)) = (&entry.full_url, step.address()) {
            let same = addresses.entries_of(full_url).any(|other| same_content(&mut steps, other, &mut step));
            if !same {
                addresses.add(full_url, n, address);
            }
        }
        full_urls.push(entry.full_url);
        steps.push(step);
    }
    resolve(scene, &mut steps, &full_urls, &addresses).await?;
    let mut entries: Vec<Entry> = steps.iter().map(|_| Entry::default()).collect();
    let mut touched = Vec::new();
    let mut reads = Vec::new();
    let mut changes = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Existing { version, touched: found } => {
                touched.push(found);
                entries[n].response = Some(Response::Done { done: Done::Ok, version: Some(version) });
            }
            Step::Read { asked, facts } => reads.push((n, asked, facts)),
            step => changes.push((n, change(scene, step, n)?)),
        }
    }
    commit(scene, in_order(changes)?, touched, &mut entries).await?;
    for (n, asked, facts) in reads {
        entries[n] = match Box::pin(interaction::perform(scene.app, scene.caller, &facts, asked)).await {
            Ok(answer) => answered(answer),
            Err(error) if error.kind == Kind::Audit => return Err(error),
            Err(error) => failed(in_entry(error, n)),
        };
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

impl Step {
    /// What the entry's resource is called here.
    fn address(&self) -> Option<String> {
        let (kind, id) = match self {
            Step::Create { kind, id, .. } | Step::Update { kind, id, .. } => (*kind, id),
            Step::Existing { version, .. } => (version.kind, &version.id),
            Step::Delete { .. } | Step::Read { .. } => return None,
        };
        Some(format!("{}/{id}", definitions().type_name(kind)))
    }

    fn body(&mut self) -> Option<&mut Node> {
        match self {
            Step::Create { body, .. } | Step::Update { body, .. } => Some(body),
            _ => None,
        }
    }
}

async fn step(scene: Scene<'_>, entry: &mut bundle::Entry, n: usize) -> Result<Step> {
    let asked = asked(scene, entry, n)?;
    let facts = facts_of(scene, entry);
    Ok(match asked {
        Interaction::Create { kind, body } => {
            let id = scene.app.world.uuid();
            let Some(condition) = &facts.conditions.if_none_exist else {
                return Ok(Step::Create { kind, id, body, claim: None });
            };
            authorize::<Create>(scene.caller, kind)?;
            let at_condition = |error: Error| error.at(at(n, "request.ifNoneExist"));
            let condition = Condition::parse(scene, kind, condition).map_err(at_condition)?;
            match condition.one(scene).await.map_err(at_condition)? {
                Some(found) => Step::Existing { version: found.version, touched: found.touched },
                None => Step::Create { kind, id, body, claim: Some(condition.claim()) },
            }
        }
        Interaction::Update { kind, id, body } => Step::Update { kind, id, body, conditions: facts.conditions },
        Interaction::Delete { kind, id } => Step::Delete { kind, id, conditions: facts.conditions },
        Interaction::Operation { operation, .. } if operation.affects => {
            let text = "An operation that writes has a commit of its own: it cannot be part of a transaction.";
            return Err(Error::unsupported(text).at(at(n, "request.url")));
        }
        asked => Step::Read { asked, facts: Box::new(facts) },
    })
}

/// Whether two entries would make the same resource.
fn same_content(steps: &mut [Step], other: usize, step: &mut Step) -> bool {
    match (steps.get_mut(other).and_then(Step::body), step.body()) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Rewrites references between entries, and conditional references (`Patient?identifier=...`) to what they match.
async fn resolve(
    scene: Scene<'_>,
    steps: &mut [Step],
    full_urls: &[Option<String>],
    addresses: &Addresses,
) -> Result<()> {
    let base = &scene.app.config.base_url;
    let mut wanted: HashMap<String, (usize, TypeId, String)> = HashMap::new();
    for (n, step) in steps.iter_mut().enumerate() {
        let Some(body) = step.body() else { continue };
        addresses.rewrite(body, full_urls[n].as_deref()).map_err(|error| error.at(at(n, "resource")))?;
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
    for (text, (n, kind, query)) in wanted {
        let matched = match Condition::parse(scene, kind, &query) {
            Ok(condition) => condition.one(scene).await,
            Err(error) => Err(error),
        };
        let none = || Error::new(Kind::Precondition, "A conditional reference matches no resource.");
        let matched = matched.and_then(|matched| matched.ok_or_else(none));
        let matched = matched.map_err(|error| error.at(at(n, "resource")))?;
        found.insert(text, format!("{}/{}", definitions().type_name(kind), matched.version.id));
    }
    for step in steps {
        let Some(body) = step.body() else { continue };
        bundle::references(body, |text| {
            if let Some(address) = found.get(text.as_str()) {
                text.clone_from(address);
            }
        });
    }
    Ok(())
}

/// Authorizes and checks a write.
fn change(scene: Scene<'_>, step: Step, n: usize) -> Result<Change> {
    let place = at(n, "resource");
    let checked = || match step {
        Step::Create { kind, id, body, claim } => {
            let grant = authorize::<Create>(scene.caller, kind)?;
            Ok(Change::Create { grant, resource: stage::checked_at(kind, body, &place)?, id, claim })
        }
        Step::Update { kind, id, body, conditions } => {
            let grant = authorize::<Update>(scene.caller, kind)?;
            let resource = stage::checked_at(kind, body, &place)?;
            stage::same_id(&resource, &id)?;
            Ok(Change::Update { grant, resource, conditions })
        }
        Step::Delete { kind, id, conditions } => {
            let grant = authorize::<Delete>(scene.caller, kind)?;
            Ok(Change::Delete { grant, kind, id, conditions })
        }
        Step::Existing { .. } | Step::Read { .. } => Err(Error::internal("an entry that writes nothing")),
    };
    checked().map_err(|error| in_entry(error, n))
}

/// DELETE, POST, PUT; no resource twice.
fn in_order(mut changes: Vec<Numbered>) -> Result<Vec<Numbered>> {
    let mut seen = HashSet::new();
    for (n, change) in &changes {
        if !seen.insert(change.target()) {
            let text = "Another entry writes the same resource: a transaction has no order between them.";
            return Err(Error::invalid(text).at(at(*n, "request.url")));
        }
    }
    changes.sort_by_key(|(_, change)| match change {
        Change::Delete { .. } => 0,
        Change::Create { .. } => 1,
        Change::Update { .. } => 2,
    });
    Ok(changes)
}

/// Writes everything, and tries again when another write came in between.
async fn commit(scene: Scene<'_>, changes: Vec<Numbered>, touched: Vec<Touched>, entries: &mut [Entry]) -> Result<()> {
    for _ in 0..TRIES_MAX {
        match attempt(scene, &changes, &touched, entries).await {
            Err(error) if lost_race(&error) => {}
            other => return other,
        }
    }
    Err(conflict())
}

async fn attempt(scene: Scene<'_>, changes: &[Numbered], touched: &[Touched], entries: &mut [Entry]) -> Result<()> {
    let mut tx = scene.app.store.begin();
    let looked_at = changes.iter().filter(|(_, change)| !matches!(change, Change::Create { .. }));
    let looked_at: Vec<(TypeId, &str)> = looked_at.map(|(_, change)| change.target()).collect();
    tx.prefetch(&looked_at).await?;
    let mut staged: Vec<(usize, Staged)> = Vec::with_capacity(changes.len());
    for (n, change) in changes {
        let one = change.stage(scene, &mut tx).await;
        staged.push((*n, one.map_err(|error| if is_of_entry(&error) { in_entry(error, *n) } else { error })?));
    }
    let mut event = scene.event(What::Transaction, None);
    event.touched = touched.to_vec();
    if staged.iter().all(|(_, staged)| !staged.writes) {
        scene.app.trail.record(event).await?;
        staged.into_iter().for_each(|(n, staged)| entries[n] = entry(staged, None, Return::Minimal));
        return Ok(());
    }
    let returns = scene.facts.prefer.returns.unwrap_or(Return::Minimal);
    let wanted: Vec<Resource> = match returns {
        Return::Representation => staged.iter_mut().filter_map(|(_, staged)| staged.resource.take()).collect(),
        Return::Minimal | Return::OperationOutcome => Vec::new(),
    };
    let (written, _) = scene.app.trail.commit(event, tx, wanted, Vec::new()).await?;
    let mut contents = HashMap::with_capacity(written.len());
    for released in written {
        contents.insert((released.kind(), released.id().to_owned()), released);
    }
    for (n, staged) in staged {
        let of = staged.version.as_ref().map(|version| (version.kind, version.id.clone()));
        let content = of.and_then(|of| contents.remove(&of));
        entries[n] = entry(staged, content.map(|released| Content::Released(released, Shape::Full)), returns);
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
