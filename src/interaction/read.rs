//! read and vread (http.html#read, #vread).

use super::{Answer, Body, Content, Done, Pairs, Scene, Shape, VersionOf, is_audit, operations};
use crate::access::{Read, authorize};
use crate::audit::{Released, Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions, json};
use crate::store::{Found, Sealed};

pub(super) async fn read(scene: Scene<'_>, kind: TypeId, id: &str, query: &Pairs) -> Result<Answer> {
    let grant = authorize::<Read>(scene.caller, kind)?;
    let shape = Shape::from_pairs(Some(kind), query, scene.facts.prefer.lenient)?;
    if is_audit(kind) {
        let released = Box::pin(scene.app.trail.read(scene.event(What::Read, Some(kind)), &grant, id)).await?;
        return released.map(|released| whole(released, shape)).ok_or_else(Error::not_found);
    }
    match scene.app.store.find(&grant, id).await? {
        Found::Current(sealed) => disclose(scene, What::Read, sealed, shape).await,
        Found::Deleted { version } => Err(gone(version)),
        Found::Absent => Box::pin(built_in(scene, kind, id, &shape)).await,
    }
}

/// The definitions that this server itself makes, where none is stored under the id.
async fn built_in(scene: Scene<'_>, kind: TypeId, id: &str, shape: &Shape) -> Result<Answer> {
    let own = definitions().type_name(kind) == "OperationDefinition";
    let Some(node) = operations::built_in(scene, id).filter(|_| own) else { return Err(Error::not_found()) };
    scene.app.trail.record(scene.event(What::Read, Some(kind))).await?;
    Ok(Answer::made(json::parse(&shape.cut(&json::write(&node))?)?))
}

pub(super) async fn vread(scene: Scene<'_>, kind: TypeId, id: &str, vid: &str, query: &Pairs) -> Result<Answer> {
    let grant = authorize::<Read>(scene.caller, kind)?;
    let shape = Shape::from_pairs(Some(kind), query, scene.facts.prefer.lenient)?;
    let Ok(version) = vid.parse() else { return Err(Error::not_found()) };
    if is_audit(kind) {
        // They never change: the first version is the only one.
        let released = match version {
            1 => scene.app.trail.read(scene.event(What::Vread, Some(kind)), &grant, id).await?,
            _ => None,
        };
        return released.map(|released| whole(released, shape)).ok_or_else(Error::not_found);
    }
    match scene.app.store.find_version(&grant, id, version).await? {
        Found::Current(sealed) => disclose(scene, What::Vread, sealed, shape).await,
        Found::Deleted { version } => Err(gone(version)),
        Found::Absent => Err(Error::not_found()),
    }
}

async fn disclose(scene: Scene<'_>, what: What, sealed: Sealed, shape: Shape) -> Result<Answer> {
    let header = sealed.header();
    let mut event = scene.event(what, Some(header.kind));
    if scene.facts.conditions.not_modified(header.version, header.last_updated.seconds()) {
        let version = VersionOf {
            kind: header.kind,
            id: header.id.clone(),
            version: header.version,
            at: header.last_updated,
            written: false,
        };
        event.touched = vec![touched(&sealed, what)];
        scene.app.trail.record(event).await?;
        return Ok(Answer::empty(Done::NotModified, Some(version)));
    }
    let released = scene.app.trail.disclose(event, vec![sealed]).await?.pop();
    let released = released.ok_or_else(|| Error::internal("a disclosure without content"))?;
    Ok(whole(released, shape))
}

fn whole(released: Released, shape: Shape) -> Answer {
    Answer {
        done: Done::Ok,
        version: Some(VersionOf::read(&released)),
        body: Body::Content(Content::Released(released, shape)),
    }
}

/// The record of a version that was looked at.
pub(super) fn touched(sealed: &Sealed, what: What) -> Touched {
    let header = sealed.header();
    Touched {
        kind: header.kind,
        id: header.id.clone(),
        version: Some(header.version),
        patients: header.patients.clone(),
        what,
    }
}

pub(super) fn gone(version: u32) -> Error {
    Error::new(Kind::Gone, format!("The resource was deleted; version {version} is the deletion."))
}
