//! create, update (also as create), patch and delete (http.html#create ...), each also conditional.

pub(super) mod patch;
pub(super) mod plan;
pub(super) mod references;
pub(super) mod stage;

use patch::Bases;
use plan::{Plan, Settled};
use references::Look;
use stage::{Change, Staged};

use super::conditional::Match;
use super::{Answer, Body, Content, Done, Facts, Return, Scene, Shape, Target, VersionOf};
use crate::access::{Read, authorize};
use crate::audit::{Touched, What};
use crate::error::{Error, Issue, Kind, Result, Severity};
use crate::fhir::TypeId;
use crate::fhir::json::Node;
use crate::fhir::patch::Patch;
use crate::store::{Found, Premise};

/// How often a write that lost a race is tried again before the client hears of it.
pub(super) const TRIES_MAX: u32 = 16;

pub(super) async fn create(scene: Scene<'_>, kind: TypeId, body: Node) -> Result<Answer> {
    perform(scene, &Plan::create(scene, kind, body)?).await
}

pub(super) async fn update(scene: Scene<'_>, kind: TypeId, target: Target, body: Node) -> Result<Answer> {
    perform(scene, &Plan::update(scene, kind, target, body)?).await
}

pub(super) async fn patch(scene: Scene<'_>, kind: TypeId, target: Target, patch: Patch) -> Result<Answer> {
    perform(scene, &Plan::patch(scene, kind, target, patch)?).await
}

pub(super) async fn delete(scene: Scene<'_>, kind: TypeId, target: Target) -> Result<Answer> {
    perform(scene, &Plan::delete(scene, kind, target)?).await
}

/// Writes, and tries again when another write came in between, from the condition on. With If-Match the second look
/// tells the client.
async fn perform(scene: Scene<'_>, plan: &Plan) -> Result<Answer> {
    let (mut turn, mut look) = (None, Look::AtCommit);
    for _ in 0..TRIES_MAX {
        let done = match plan.settle(scene).await? {
            Settled::Existing(found) => return existing(scene, plan, found).await,
            Settled::Changes(changes, premises) => {
                let of = (plan.what(), plan.kind());
                attempt(scene, of, &changes, premises, std::mem::replace(&mut look, Look::Now)).await
            }
        };
        match done {
            // Those who lost go one after the other: each of many at once would lose to all before it.
            Err(error) if lost_race(&error) && turn.is_none() => {
                turn = Some(scene.app.store.turn(plan.contended()).await);
            }
            Err(error) if lost_race(&error) => {}
            other => return other,
        }
    }
    Err(conflict())
}

/// Answers a conditional create whose resource is there: with that resource, where it is asked for and may be read.
async fn existing(scene: Scene<'_>, plan: &Plan, found: Match) -> Result<Answer> {
    let Match { version, touched } = found;
    let mut event = scene.event(plan.what(), Some(plan.kind()));
    event.touched = vec![touched];
    let returns = scene.facts.prefer.returns.unwrap_or(Return::Representation);
    if let (Return::Representation, Ok(grant)) = (returns, authorize::<Read>(scene.caller, plan.kind()))
        && let Found::Current(sealed) = scene.app.store.find(&grant, &version.id).await?
    {
        let mut released = scene.app.trail.disclose(event, vec![sealed]).await?;
        let released = released.pop().ok_or_else(|| Error::internal("a disclosure without content"))?;
        let version = VersionOf { written: true, ..VersionOf::read(&released) };
        let body = Body::Content(Content::Released(released, Shape::Full));
        return Ok(Answer { done: Done::Ok, version: Some(version), body });
    }
    scene.app.trail.record(event).await?;
    let body = match returns {
        Return::OperationOutcome => Body::Content(nothing_written()),
        Return::Minimal | Return::Representation => Body::Empty,
    };
    Ok(Answer { done: Done::Ok, version: Some(version), body })
}

/// What a conditional create says that found its resource.
pub(super) fn nothing_written() -> Content {
    Content::Outcome(vec![note("The condition matches a resource that is there: nothing was written.")])
}

/// Writes a change that an operation made ready, and tries again when another write came in between.
pub(super) async fn single(scene: Scene<'_>, change: Change) -> Result<Answer> {
    let (what, kind) = (change.what(), change.target().0);
    let changes = [change];
    let (mut turn, mut look) = (None, Look::AtCommit);
    for _ in 0..TRIES_MAX {
        match attempt(scene, (what, kind), &changes, Vec::new(), std::mem::replace(&mut look, Look::Now)).await {
            Err(error) if lost_race(&error) && turn.is_none() => {
                turn = Some(scene.app.store.turn(plan::contended(changes[0].target())).await);
            }
            Err(error) if lost_race(&error) => {}
            other => return other,
        }
    }
    Err(conflict())
}

/// Whether trying again can help: a value that is taken stays taken, and a rule stays a rule.
pub(crate) fn lost_race(error: &Error) -> bool {
    error.kind == Kind::Conflict && error.issues.iter().all(|issue| issue.code == Kind::Conflict.issue_code())
}

pub(super) fn conflict() -> Error {
    Error::new(Kind::Conflict, "Other writes to the same resource kept coming in between. Try again.")
}

async fn attempt(
    scene: Scene<'_>,
    (what, kind): (What, TypeId),
    changes: &[Change],
    premises: Vec<Premise>,
    look: Look,
) -> Result<Answer> {
    let bases = Bases::open(scene, changes.iter()).await?;
    let mut tx = scene.app.store.begin();
    tx.rests_on(premises);
    let mut all = Vec::with_capacity(changes.len());
    for change in changes {
        all.push(change.stage(scene, &mut tx, &bases).await?);
    }
    // What writes nothing has no writer to look.
    let look = if all.iter().any(|staged| staged.writes) { look } else { Look::Now };
    // Of a conditional delete several may be referred to: they are told together.
    let mut faults = references::faults(scene, &mut tx, all.iter(), look).await?.into_iter();
    if let Some((.., mut error)) = faults.next() {
        error.issues.extend(faults.flat_map(|(.., error)| error.issues));
        return Err(error);
    }
    let staged = Staged::together(all);
    let mut event = scene.event(what, Some(kind));
    let returns = scene.facts.prefer.returns.unwrap_or(Return::Representation);
    if !staged.writes {
        let touched = changes.iter().map(|change| {
            let (kind, id) = change.target();
            Touched { kind, id: id.to_owned(), version: None, patients: Vec::new(), what: change.what() }
        });
        event.touched = touched.collect();
        scene.app.trail.record(event).await?;
        return Ok(answer(staged, None, returns));
    }
    let wanted = match returns {
        Return::Representation => staged.resource.iter().cloned().collect(),
        Return::Minimal | Return::OperationOutcome => Vec::new(),
    };
    let (mut written, _) = scene.app.trail.commit(event, tx, wanted, Vec::new()).await?;
    let content = written.pop().map(|released| Content::Released(released, Shape::Full));
    Ok(answer(staged, content, returns))
}

/// What would stand against a change: everything that the write itself looks at, up to the commit. Nothing is kept.
///
/// # Errors
/// Where it cannot be found out.
pub(in crate::interaction) async fn foreseen(scene: Scene<'_>, change: &Change) -> Result<Vec<Issue>> {
    let facts = Facts { trial: true, ..scene.facts.clone() };
    let scene = Scene { facts: &facts, ..scene };
    let mut tx = scene.app.store.begin();
    let staged = match change.stage(scene, &mut tx, &Bases::default()).await {
        Ok(staged) => staged,
        Err(error) if error.kind.is_ours() => return Err(error),
        Err(error) => return Ok(error.issues),
    };
    let mut faults = references::faults(scene, &mut tx, std::iter::once(&staged), Look::Now).await?;
    let mut issues: Vec<Issue> = faults.drain(..).flat_map(|(.., error)| error.issues).collect();
    issues.extend(tx.taken().await?.into_iter().flat_map(|error| error.issues));
    Ok(issues)
}

fn answer(staged: Staged, content: Option<Content>, returns: Return) -> Answer {
    let body = match (returns, content) {
        (Return::OperationOutcome, _) => Body::Content(outcome(&staged)),
        (_, Some(content)) => Body::Content(content),
        (_, None) => Body::Empty,
    };
    let done = match (&body, staged.done) {
        (Body::Content(_), Done::NoContent) => Done::Ok,
        (_, done) => done,
    };
    Answer { done, version: staged.version, body }
}

/// What was done, in words, for `Prefer: return=OperationOutcome`.
pub(super) fn outcome(staged: &Staged) -> Content {
    let text = match (staged.writes, staged.done) {
        (false, _) => std::borrow::Cow::from("Nothing was to be changed."),
        (true, Done::Created) => "Created.".into(),
        (true, Done::NoContent) if staged.count > 1 => format!("Deleted {} resources.", staged.count).into(),
        (true, Done::NoContent) => "Deleted.".into(),
        (true, _) => "Updated.".into(),
    };
    Content::Outcome(vec![note(text)])
}

fn note(text: impl Into<std::borrow::Cow<'static, str>>) -> Issue {
    Issue { severity: Severity::Information, ..Issue::error("informational", text) }
}
