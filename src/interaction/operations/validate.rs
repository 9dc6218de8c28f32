//! `$validate`: every fault of a resource's structure, and with a mode what else would stand against it here.
//! Profiles are refused until they are supported.

use super::{Call, note, opened, stored};
use crate::access::{Create, Delete, Read, Update, authorize};
use crate::audit::What;
use crate::domain::{self, Rules};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{Resource, TypeId, definitions, reference, validate as structure};
use crate::interaction::{Answer, Body, Content, Done, Scene, is_audit};
use crate::store::Found;

/// What the caller would do with the resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing said: structure alone.
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
            structure::structure(&node)
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
    match mode {
        Mode::Create => {
            issues.extend(permitted(authorize::<Create>(scene.caller, kind)));
            issues.extend(rules(scene, &node, None));
        }
        Mode::Update => issues.extend(update(scene, call, &node, place).await?),
        Mode::None | Mode::Delete => {}
    }
    Ok(issues)
}

fn permitted<T>(decision: Result<T>) -> Vec<Issue> {
    decision.err().map(|error| error.issues).unwrap_or_default()
}

/// The domain's rules, as a write would apply them.
fn rules(scene: Scene<'_>, node: &Node, current: Option<&crate::search::Values>) -> Vec<Issue> {
    let Ok(mut resource) = Resource::check(node.clone()) else { return Vec::new() };
    // The number is not drawn: any will do to see whether the rules hold.
    let rules = Rules { mrn_system: &scene.app.config.mrn_system, mrn_next: Some(0) };
    domain::apply(&mut resource, current, &rules).err().map(|error| error.issues).unwrap_or_default()
}

async fn update(scene: Scene<'_>, call: &Call, node: &Node, place: &str) -> Result<Vec<Issue>> {
    let kind = call.kind()?;
    let mut issues = permitted(authorize::<Update>(scene.caller, kind));
    let own = node.get("id").and_then(Node::as_str);
    let fault = match (own, &call.id) {
        (None, _) => Some("The resource of an update must carry the id of the address."),
        (Some(own), Some(id)) if own != id => Some("The id of the resource is not the id of the address."),
        (Some(own), _) if !reference::is_id(own) => Some("The id has a form that no address can have."),
        _ => None,
    };
    issues.extend(fault.map(|text| Issue::error("invalid", text).at(format!("{place}.id"))));
    let (Some(id), Ok(grant)) = (own, authorize::<Update>(scene.caller, kind)) else { return Ok(issues) };
    let current = match scene.app.store.begin().current(&grant, id).await {
        Ok(current) => current,
        Err(error) if error.kind == Kind::NotFound => return Ok([issues, error.issues].concat()),
        Err(error) => return Err(error),
    };
    if current.is_some() && is_audit(kind) {
        issues.push(Issue::error("business-rule", "An AuditEvent can be neither changed nor deleted."));
    }
    let standing = current.as_ref().filter(|current| !current.deleted).and_then(|current| current.values.as_ref());
    issues.extend(rules(scene, node, standing));
    Ok(issues)
}

/// What stands against deleting a resource.
async fn deletion(scene: Scene<'_>, kind: TypeId, id: &str) -> Result<Vec<Issue>> {
    let mut issues = permitted(authorize::<Delete>(scene.caller, kind));
    if is_audit(kind) {
        issues.push(Issue::error("business-rule", "An AuditEvent can be neither changed nor deleted."));
        return Ok(issues);
    }
    let grant = authorize::<Read>(scene.caller, kind)?;
    if !matches!(scene.app.store.find(&grant, id).await?, Found::Current(_)) {
        issues.extend(Error::not_found().issues);
    }
    Ok(issues)
}
