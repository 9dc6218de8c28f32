//! `SearchParameter/[id]/$status`: whether a search parameter of the site can be searched by, and how far it is.

use serde_json::json;

use super::{Call, stored};
use crate::audit::{Touched, What};
use crate::error::Result;
use crate::fhir::definitions;
use crate::fhir::json::Node;
use crate::interaction::{Answer, Scene};
use crate::mapping::{Treatment, treatment};
use crate::search::custom::Standing;

pub(super) async fn status(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let (kind, id) = (call.kind()?, call.id()?);
    // That it is there, and may be read, is all that is needed of it.
    let sealed = stored(scene, kind, id).await?;
    let customs = scene.app.store.customs_now().await?;
    let live = |standing| !matches!(standing, Standing::Ending { .. });
    let one = customs.all.iter().find(|one| one.definition.resource == id && live(one.standing));
    let mut told: Vec<Node> = Vec::new();
    match one {
        None => told.push(json!({"name": "status", "valueCode": "inactive"})),
        Some(one) => {
            told.push(json!({"name": "code", "valueCode": one.param.code}));
            let (status, counts) = match one.standing {
                Standing::Indexing { done, total } => ("indexing", Some((done, total))),
                Standing::Ready | Standing::Ending { .. } => ("ready", None),
            };
            told.push(json!({"name": "status", "valueCode": status}));
            for (name, count) in counts.into_iter().flat_map(|(done, total)| [("done", done), ("total", total)]) {
                told.push(json!({"name": name, "valueUnsignedInt": count.min(i32::MAX as u64)}));
            }
            for base in &one.param.bases {
                if let Treatment::Refused { reason } = treatment(*base, one.param.id) {
                    let parts = [
                        json!({"name": "type", "valueCode": definitions().type_name(*base)}),
                        json!({"name": "reason", "valueString": reason}),
                    ];
                    told.push(json!({"name": "refused", "part": parts}));
                }
            }
        }
    }
    let mut event = scene.event(What::Operation, Some(kind));
    let version = Some(sealed.header().version);
    event.touched = vec![Touched { kind, id: id.to_owned(), version, patients: Vec::new(), what: What::Operation }];
    scene.app.trail.record(event).await?;
    Ok(Answer::made(json!({"resourceType": "Parameters", "parameter": told})))
}
