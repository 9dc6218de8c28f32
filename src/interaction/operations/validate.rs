//! `$validate`: every fault of a resource's structure and references, and with a mode what else would stand against it
//! here, found out by the road of the write itself.
//! Profiles are refused until they are supported.

use super::{Call, note, opened, stored};
use crate::access::{Create, Delete, Update, authorize};
use crate::audit::What;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{Resource, TypeId, definitions, validate as structure};
use crate::interaction::write::stage::{Change, same_id};
use crate::interaction::write::{foreseen, references};
use crate::interaction::{Answer, Body, Content, Done, Scene};

/// What the caller would do with the resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing said: structure and references.
    None,
    Create,
    Update,
    Delete,
}

pub(super) async fn validate(scene: Scene<'_>, mut call: Call) -> Result<Answer> {
    let kind = call.kind()?;
    if call.input.text("profile").is_some() {
        let text = "Validation against profiles is not supported yet: structure alone is checked.";
        return Err(Error::unsupported(text).at(call.input.place("profile")));
    }
    let mode = mode(&call)?;
    let place = call.input.place("resource");
    let given = call.input.take("resource");
    let issues = match (given, mode) {
        (given, Mode::Delete) => {
            let id = given_id(&call, given.as_ref())?;
            record(scene, kind).await?;
            deletion(scene, kind, &id).await?
        }
        (Some(node), mode) => {
            record(scene, kind).await?;
            content(scene, &call, node, &place, mode).await?
        }
        (None, Mode::None) if call.id.is_some() => {
            let (_, node) = opened(scene, stored(scene, kind, call.id()?).await?).await?;
            let mut issues = structure::structure(&node);
            issues.extend(referring(scene, &Resource::stored(node)?).await?);
            issues
        }
        (None, _) => return Err(Error::invalid("There is no resource to be validated.")),
    };
    Ok(Answer { done: Done::Ok, version: None, body: Body::Content(Content::Outcome(issues)) })
}

async fn record(scene: Scene<'_>, kind: TypeId) -> Result<()> {
    scene.app.trail.record(scene.event(What::Operation, Some(kind))).await.map(drop)
}

fn mode(call: &Call) -> Result<Mode> {
    Ok(match call.input.text("mode") {
        None => Mode::None,
        Some("create") => Mode::Create,
        Some("update") => Mode::Update,
        Some("delete") => Mode::Delete,
        Some("profile") => {
            let text = "Validation against profiles is not supported yet.";
            return Err(Error::unsupported(text).at(call.input.place("mode")));
        }
        Some(_) => {
            return Err(Error::invalid("The mode is create, update or delete.").at(call.input.place("mode")));
        }
    })
}

fn given_id(call: &Call, given: Option<&Node>) -> Result<String> {
    let own = given.and_then(|node| node.get("id")).and_then(Node::as_str);
    let id = call.id.as_deref().or(own);
    id.map(str::to_owned)
        .ok_or_else(|| Error::invalid("mode=delete needs the address of a resource, or one with an id."))
}

/// Faults of a resource that was sent.
async fn content(scene: Scene<'_>, call: &Call, node: Node, place: &str, mode: Mode) -> Result<Vec<Issue>> {
    let kind = call.kind()?;
    let expected = definitions().type_name(kind);
    let bare = !place.starts_with("Parameters.");
    let mut issues = if bare { structure::structure(&node) } else { structure::structure_at(&node, place) };
    let given = node.get("resourceType").and_then(Node::as_str);
    if given.is_some_and(|given| given != expected && definitions().type_id(given).is_some()) {
        let text = format!("The address asks for a {expected}, but resourceType is another.");
        issues.push(Issue::error("invalid", text).at(format!("{place}.resourceType")));
    }
    let claims = node.pointer("/meta/profile").and_then(Node::as_array).is_some_and(|list| !list.is_empty());
    if claims {
        let text = "Profiles that the resource claims were not checked: only its structure was.";
        issues.push(note(text).at(format!("{place}.meta.profile")));
    }
    if structure::refuses(&issues) {
        return Ok(issues);
    }
    let resource = Resource::stored(node)?;
    let found = match mode {
        Mode::Create => create(scene, kind, resource).await?,
        Mode::Update => update(scene, call, resource).await?,
        Mode::None | Mode::Delete => referring(scene, &resource).await?,
    };
    issues.extend(found.into_iter().map(|issue| if bare { issue } else { placed(issue, place) }));
    Ok(issues)
}

/// The issue of a resource, where that lies in Parameters.
fn placed(mut issue: Issue, place: &str) -> Issue {
    issue.expression = issue.expression.map(|own| match own.split_once('.') {
        Some((_, rest)) => format!("{place}.{rest}"),
        None => place.to_owned(),
    });
    issue
}

/// What is wrong with the references, for who says nothing of what is to be done. Whether something is there is told
/// to those alone who could find out by writing.
async fn referring(scene: Scene<'_>, resource: &Resource) -> Result<Vec<Issue>> {
    let mut issues = references::undefined(scene, resource);
    let kind = resource.kind();
    if authorize::<Create>(scene.caller, kind).is_ok() || authorize::<Update>(scene.caller, kind).is_ok() {
        issues.extend(references::lost(scene, resource).await?);
    }
    Ok(issues)
}

async fn create(scene: Scene<'_>, kind: TypeId, resource: Resource) -> Result<Vec<Issue>> {
    let undefined = references::undefined(scene, &resource);
    let grant = match authorize::<Create>(scene.caller, kind) {
        Ok(grant) => grant,
        Err(error) => return Ok(together(error.issues, undefined)),
    };
    let change = Change::Create { grant, resource: resource.into(), id: scene.app.world.uuid() };
    Ok(together(foreseen(scene, &change).await?, undefined))
}

async fn update(scene: Scene<'_>, call: &Call, resource: Resource) -> Result<Vec<Issue>> {
    let kind = resource.kind();
    let undefined = references::undefined(scene, &resource);
    let Some(id) = call.id.as_deref().or(resource.id()).map(str::to_owned) else {
        let text = "The resource of an update must carry the id of the address.";
        let issue = Issue::error("invalid", text).at(format!("{}.id", resource.type_name()));
        return Ok(together(vec![issue], undefined));
    };
    let grant = match same_id(&resource, &id).and_then(|()| authorize::<Update>(scene.caller, kind)) {
        Ok(grant) => grant,
        Err(error) => return Ok(together(error.issues, undefined)),
    };
    let change = Change::Update {
        grant,
        resource: resource.into(),
        id,
        conditions: scene.facts.conditions.clone(),
        fresh: false,
    };
    Ok(together(foreseen(scene, &change).await?, undefined))
}

/// Each issue once.
fn together(mut issues: Vec<Issue>, others: Vec<Issue>) -> Vec<Issue> {
    for other in others {
        if !issues.contains(&other) {
            issues.push(other);
        }
    }
    issues
}

/// What stands against deleting a resource.
async fn deletion(scene: Scene<'_>, kind: TypeId, id: &str) -> Result<Vec<Issue>> {
    let grant = match authorize::<Delete>(scene.caller, kind) {
        Ok(grant) => grant,
        Err(error) => return Ok(error.issues),
    };
    let standing = match scene.app.store.begin().current(&grant, id).await {
        Ok(current) => current.is_some_and(|current| !current.deleted),
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Gone) => false,
        Err(error) => return Err(error),
    };
    if !standing {
        return Ok(Error::not_found().issues);
    }
    let conditions = scene.facts.conditions.clone();
    foreseen(scene, &Change::Delete { grant, kind, id: id.to_owned(), conditions }).await
}
