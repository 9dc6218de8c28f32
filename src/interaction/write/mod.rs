//! create, update (also as create) and delete (http.html#create, #update, #delete).

pub(super) mod stage;

use stage::{Change, Staged};

use super::{Answer, Body, Content, Done, Return, Scene, Shape, conditional};
use crate::access::{Create, Delete, Update, authorize};
use crate::audit::{Touched, What};
use crate::error::{Error, Issue, Kind, Result, Severity};
use crate::fhir::TypeId;
use crate::fhir::json::Node;

/// How often a write that lost a race is tried again before the client hears of it.
pub(super) const TRIES_MAX: u32 = 5;

pub(super) async fn create(scene: Scene<'_>, kind: TypeId, body: Node) -> Result<Answer> {
    let grant = authorize::<Create>(scene.caller, kind)?;
    let resource = stage::checked(kind, body)?;
    let Some(condition) = &scene.facts.conditions.if_none_exist else {
        let id = scene.app.world.uuid();
        return single(scene, Change::Create { grant, resource, id, claim: None }).await;
    };
    let condition = conditional::Condition::parse(scene, kind, condition)?;
    let id = scene.app.world.uuid();
    let change = Change::Create { grant, resource, id, claim: Some(condition.claim()) };
    for _ in 0..TRIES_MAX {
        if let Some(found) = condition.one(scene).await? {
            let mut event = scene.event(What::Create, Some(kind));
            event.touched = vec![found.touched];
            scene.app.trail.record(event).await?;
            return Ok(Answer::empty(Done::Ok, Some(found.version)));
        }
        match attempt(scene, &change).await {
            // Someone else made it in the meantime: look again.
            Err(error) if error.kind == Kind::Conflict => {}
            other => return other,
        }
    }
    Err(conflict())
}

pub(super) async fn update(scene: Scene<'_>, kind: TypeId, id: &str, body: Node) -> Result<Answer> {
    let grant = authorize::<Update>(scene.caller, kind)?;
    let resource = stage::checked(kind, body)?;
    stage::same_id(&resource, id)?;
    single(scene, Change::Update { grant, resource, conditions: scene.facts.conditions.clone() }).await
}

pub(super) async fn delete(scene: Scene<'_>, kind: TypeId, id: &str) -> Result<Answer> {
    let grant = authorize::<Delete>(scene.caller, kind)?;
    let conditions = scene.facts.conditions.clone();
    single(scene, Change::Delete { grant, kind, id: id.to_owned(), conditions }).await
}

/// Writes, and tries again when another write came in between. With If-Match the second look tells the client.
pub(super) async fn single(scene: Scene<'_>, change: Change) -> Result<Answer> {
    for _ in 0..TRIES_MAX {
        match attempt(scene, &change).await {
            Err(error) if lost_race(&error) => {}
            other => return other,
        }
    }
    Err(conflict())
}

/// Whether trying again can help: a value that is taken stays taken.
pub(super) fn lost_race(error: &Error) -> bool {
    error.kind == Kind::Conflict && error.issues.iter().all(|issue| issue.code != "duplicate")
}

pub(super) fn conflict() -> Error {
    Error::new(Kind::Conflict, "Other writes to the same resource kept coming in between. Try again.")
}

async fn attempt(scene: Scene<'_>, change: &Change) -> Result<Answer> {
    let mut tx = scene.app.store.begin();
    let staged = change.stage(scene, &mut tx).await?;
    let (kind, id) = change.target();
    let mut event = scene.event(change.what(), Some(kind));
    let returns = scene.facts.prefer.returns.unwrap_or(Return::Representation);
    if !staged.writes {
        let what = change.what();
        event.touched = vec![Touched { kind, id: id.to_owned(), version: None, patients: Vec::new(), what }];
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
        (false, _) => "Nothing was to be changed.",
        (true, Done::Created) => "Created.",
        (true, Done::NoContent) => "Deleted.",
        (true, _) => "Updated.",
    };
    Content::Outcome(vec![Issue {
        severity: Severity::Information,
        code: "informational",
        diagnostics: text.into(),
        expression: None,
    }])
}
