//! `Composition/$document`: a Composition and everything it refers to as a document Bundle. What it refers to is read
//! under the caller's own grants; where something cannot be had there is no document.

use serde_json::json;

use super::{Call, opened, stored};
use crate::access::{Create, authorize};
use crate::audit::What;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::reference::{self, Reference};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::route::Method;
use crate::interaction::search::full_url;
use crate::interaction::write::single;
use crate::interaction::write::stage::Change;
use crate::interaction::{Answer, Done, Facts, Return, Scene};
use crate::store::Sealed;

/// Resources in one document.
const ENTRIES_MAX: usize = 1_000;
/// Sections in one another.
const DEPTH_MAX: usize = 16;

/// A resource that the document needs, and the place that names it.
type Needed = (TypeId, String, String);

pub(super) async fn document(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let kind = call.kind()?;
    let persist = call.input.flag("persist") == Some(true);
    if persist && call.method == Method::Get {
        return Err(Error::new(Kind::Method, "persist=true writes: call $document by POST."));
    }
    let id = composition(scene, call, kind)?;
    let (released, composition) = opened(scene, stored(scene, kind, &id).await?).await?;
    let needed = needed(scene, &composition)?;
    let mut sealed = Vec::with_capacity(needed.len());
    let mut missing = Vec::new();
    for (kind, id, place) in needed {
        match part(scene, kind, &id).await {
            Ok(part) => sealed.push(part),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Gone) => {
                missing.push(Issue::error("not-found", "What this refers to is not there, or not for you.").at(place));
            }
            Err(error) => return Err(error.at(place)),
        }
    }
    if !missing.is_empty() {
        return Err(Error::with_issues(Kind::BusinessRule, missing));
    }
    let parts = match sealed.is_empty() {
        true => Vec::new(),
        false => scene.app.trail.disclose(scene.event(What::Operation, Some(kind)), sealed).await?,
    };
    let mut entries = vec![json!({"fullUrl": full_url(scene, kind, released.id()), "resource": composition})];
    for part in &parts {
        let url = full_url(scene, part.kind(), part.id());
        entries.push(json!({"fullUrl": url, "resource": json::parse(part.bytes())?}));
    }
    let (id, at) = (scene.app.world.uuid(), scene.app.world.now().to_fhir());
    let bundle = json!({
        "resourceType": "Bundle",
        "id": id,
        "meta": {"lastUpdated": at},
        "identifier": {"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{id}")},
        "type": "document",
        "timestamp": at,
        "entry": entries,
    });
    if persist { keep(scene, id, bundle).await } else { Ok(Answer::made(bundle)) }
}

/// The logical id of the Composition: that of the address, or the parameter's at type level.
fn composition(scene: Scene<'_>, call: &Call, kind: TypeId) -> Result<String> {
    let given = call.input.text("id");
    match (&call.id, given) {
        (Some(id), None) => Ok(id.clone()),
        (Some(_), Some(_)) => {
            Err(Error::invalid("The address names the Composition already.").at(call.input.place("id")))
        }
        (None, None) => Err(Error::invalid("$document on the type needs the parameter id.")),
        (None, Some(text)) if reference::is_id(text) => Ok(text.to_owned()),
        (None, Some(text)) => match reference::parse(text, &scene.app.config.base_url) {
            Reference::Local { kind: of, id, .. } if of == kind => Ok(id),
            _ => Err(Error::invalid("The id is that of no Composition on this server.").at(call.input.place("id"))),
        },
    }
}

async fn part(scene: Scene<'_>, kind: TypeId, id: &str) -> Result<Sealed> {
    stored(scene, kind, id).await
}

/// What a document must hold beside its Composition (documents.html#content), in the order of the references.
fn needed(scene: Scene<'_>, composition: &Node) -> Result<Vec<Needed>> {
    let mut found = Found { base: &scene.app.config.base_url, needed: Vec::new() };
    for member in ["subject", "encounter", "author", "custodian"] {
        found.references(composition, member, "Composition");
    }
    for (list, member) in [("attester", "party"), ("event", "detail")] {
        for (n, item) in items(composition, list) {
            found.references(item, member, &format!("Composition.{list}[{n}]"));
        }
    }
    found.sections(composition, "Composition", 0)?;
    if found.needed.len() > ENTRIES_MAX {
        return Err(Error::new(Kind::TooCostly, format!("A document holds at most {ENTRIES_MAX} resources.")));
    }
    Ok(found.needed)
}

fn items<'a>(node: &'a Node, list: &str) -> impl Iterator<Item = (usize, &'a Node)> {
    node.get(list).and_then(Node::as_array).into_iter().flatten().enumerate()
}

struct Found<'a> {
    base: &'a str,
    needed: Vec<Needed>,
}

impl Found<'_> {
    /// The references of a member, which is one or a list.
    fn references(&mut self, node: &Node, member: &str, place: &str) {
        match node.get(member) {
            Some(Node::Array(all)) => {
                for (n, one) in all.iter().enumerate() {
                    self.reference(one, format!("{place}.{member}[{n}]"));
                }
            }
            Some(one) => self.reference(one, format!("{place}.{member}")),
            None => {}
        }
    }

    /// Contained resources are in the Composition; what lies on other servers stays there.
    fn reference(&mut self, node: &Node, place: String) {
        let text = node.get("reference").and_then(Node::as_str).unwrap_or_default();
        if let Reference::Local { kind, id, .. } = reference::parse(text, self.base)
            && !self.needed.iter().any(|(other, of, _)| *other == kind && *of == id)
        {
            self.needed.push((kind, id, place));
        }
    }

    fn sections(&mut self, node: &Node, place: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::new(Kind::TooCostly, format!("Sections may lie {DEPTH_MAX} deep.")));
        }
        for (n, section) in items(node, "section") {
            let place = format!("{place}.section[{n}]");
            for member in ["author", "focus", "entry"] {
                self.references(section, member, &place);
            }
            self.sections(section, &place, depth + 1)?;
        }
        Ok(())
    }
}

/// Stores the document, as a create of a Bundle would.
async fn keep(scene: Scene<'_>, id: String, bundle: Node) -> Result<Answer> {
    let kind = definitions().type_id("Bundle").ok_or_else(|| Error::internal("R4 has no Bundle"))?;
    let grant = authorize::<Create>(scene.caller, kind)?;
    let resource = Resource::check(bundle)?;
    let mut prefer = scene.facts.prefer;
    prefer.returns = Some(Return::Representation);
    let facts = Facts { prefer, conditions: Default::default(), ..scene.facts.clone() };
    let change = Change::Create { grant, resource: resource.into(), id };
    let answer = Box::pin(single(Scene { facts: &facts, ..scene }, change)).await?;
    // The document is the answer; that it was stored is told by Location and ETag.
    Ok(Answer { done: Done::Ok, ..answer })
}
