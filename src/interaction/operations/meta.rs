//! `$meta`, `$meta-add` and `$meta-delete`: profiles, tags and security labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::{Call, every, opened, returned, stored};
use crate::access::{Grants, Search, Update, authorize};
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::write::stage::Change;
use crate::interaction::write::{TRIES_MAX, conflict, single};
use crate::interaction::{Answer, Body, Conditions, Content, Facts, Return, Scene, is_audit};
use crate::search::View;
use crate::search::values::Value;
use crate::store::Judge;

/// Different profiles, tags and labels that are gathered.
const LABELS_MAX: usize = 10_000;

/// The lists of a Meta that these operations are about, and the search parameter that holds each.
const LISTS: [(&str, &str); 3] = [("profile", "_profile"), ("security", "_security"), ("tag", "_tag")];

pub(super) async fn meta(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let meta = match (call.kind, &call.id) {
        (Some(kind), Some(id)) => {
            let (_, mut node) = opened(scene, stored(scene, kind, id).await?).await?;
            node.get_mut("meta").map(Node::take).unwrap_or_else(|| json!({}))
        }
        (kind, _) => in_use(scene, kind).await?,
    };
    Ok(Answer::made(returned("valueMeta", meta)))
}

/// All labels on the resources of a type, or of every type the caller may search, in a fixed order.
async fn in_use(scene: Scene<'_>, kind: Option<TypeId>) -> Result<Node> {
    let kinds = match kind {
        Some(kind) => vec![kind],
        None => {
            let searched = |kind: &TypeId| !is_audit(*kind) && authorize::<Search>(scene.caller, *kind).is_ok();
            definitions().types().iter().copied().filter(searched).collect()
        }
    };
    if kinds.is_empty() {
        return Err(Error::new(Kind::Forbidden, "The access token has no search permission for any type."));
    }
    // By list and by the text of the item, which also fixes the order.
    let mut found: BTreeMap<(usize, String), Node> = BTreeMap::new();
    for kind in kinds {
        let query = every(scene, kind)?;
        let grants = Grants::of(scene.caller, &query)?;
        for item in scene.app.store.survey(&grants, &query, labels(kind)).await?.into_iter().flatten() {
            found.insert((item.0, item.1.to_string()), item.1);
        }
        if found.len() > LABELS_MAX {
            let text = format!("More than {LABELS_MAX} different profiles, tags and labels are in use.");
            return Err(Error::new(Kind::TooCostly, text));
        }
    }
    scene.app.trail.record(scene.event(What::Operation, kind)).await?;
    let mut meta = json!({});
    for ((list, _), item) in found {
        let items = meta[LISTS[list].0].take();
        let mut items = match items {
            Node::Array(items) => items,
            _ => Vec::new(),
        };
        items.push(item);
        meta[LISTS[list].0] = items.into();
    }
    Ok(meta)
}

/// The labels in a capsule, each with the place of its list.
fn labels(kind: TypeId) -> Judge<Vec<(usize, Node)>> {
    Arc::new(move |_, _, view: &View<'_>| {
        let mut found = Vec::new();
        for (list, (_, code)) in LISTS.iter().enumerate() {
            let Some(param) = definitions().param(kind, code) else { continue };
            found.extend(view.param(param.id)?.into_iter().filter_map(label).map(|node| (list, node)));
        }
        Ok(found)
    })
}

fn label(value: Value) -> Option<Node> {
    match value {
        Value::Uri(uri) => Some(json!(uri)),
        Value::Token { system, code, text } => {
            let mut coding = json!({});
            for (name, part) in [("system", system), ("code", code), ("display", text)] {
                if let Some(part) = part {
                    coding[name] = json!(part);
                }
            }
            Some(coding)
        }
        Value::Reference { to: Some(crate::fhir::reference::Reference::Absolute { url }), .. } => Some(json!(url)),
        _ => None,
    }
}

/// Changes the lists of one resource's meta. It is an update of the version that was read: tried again when another
/// write comes in between.
pub(super) async fn change(scene: Scene<'_>, mut call: Call, apply: fn(&mut Vec<Node>, Vec<Node>)) -> Result<Answer> {
    let (kind, id) = (call.kind()?, call.id()?.to_owned());
    let place = call.input.place("meta");
    let meta = call.input.take("meta").ok_or_else(|| Error::internal("an operation without its input"))?;
    if !LISTS.iter().any(|(list, _)| meta.get(list).is_some()) {
        return Err(Error::invalid("The meta names no profile, tag or security label.").at(place));
    }
    let asked = scene.facts.conditions.if_match()?;
    for _ in 0..TRIES_MAX {
        authorize::<Update>(scene.caller, kind)?;
        let (released, mut node) = opened(scene, stored(scene, kind, &id).await?).await?;
        if asked.is_some_and(|asked| !asked.holds(released.version())) {
            let text = format!("If-Match names another version; the current one is {}.", released.version());
            return Err(Error::new(Kind::Precondition, text));
        }
        if !edit(&mut node, &meta, apply) {
            let meta = node.get_mut("meta").map(Node::take).unwrap_or_else(|| json!({}));
            return Ok(Answer::made(returned("valueMeta", meta)));
        }
        let conditions = Conditions { if_match: Some(released.version().to_string()), ..Conditions::default() };
        let mut prefer = scene.facts.prefer;
        prefer.returns = Some(Return::Representation);
        let facts = Facts { prefer, ..scene.facts.clone() };
        let grant = authorize::<Update>(scene.caller, kind)?;
        let resource = Resource::check(node)?;
        let change = Change::Update { grant, resource: resource.into(), id: id.clone(), conditions, fresh: false };
        match Box::pin(single(Scene { facts: &facts, ..scene }, change)).await {
            // Someone else wrote in the meantime: their version is the one to change.
            Err(error) if error.kind == Kind::Precondition => {}
            answer => return with_meta(answer?),
        }
    }
    Err(conflict())
}

fn with_meta(answer: Answer) -> Result<Answer> {
    let Body::Content(Content::Released(released, _)) = &answer.body else {
        return Err(Error::internal("an update without its content"));
    };
    let mut node = json::parse(released.bytes())?;
    let meta = node.get_mut("meta").map(Node::take).unwrap_or_else(|| json!({}));
    Ok(Answer { body: Body::Content(Content::Made(returned("valueMeta", meta))), ..answer })
}

/// Applies the lists; whether anything is different afterwards.
fn edit(node: &mut Node, wanted: &Node, apply: fn(&mut Vec<Node>, Vec<Node>)) -> bool {
    let Some(members) = node.as_object_mut() else { return false };
    let meta = members.entry("meta").or_insert_with(|| json!({}));
    let Some(meta) = meta.as_object_mut() else { return false };
    let mut changed = false;
    for (list, _) in LISTS {
        let Some(given) = wanted.get(list).and_then(Node::as_array) else { continue };
        let mut items = meta.get(list).and_then(Node::as_array).cloned().unwrap_or_default();
        let before = items.len();
        apply(&mut items, given.clone());
        if items.len() == before {
            continue;
        }
        changed = true;
        match items.is_empty() {
            true => drop(meta.shift_remove(list)),
            false => drop(meta.insert(list.to_owned(), items.into())),
        }
    }
    changed
}

/// Profiles are the same by url, labels by system and code: their display does not count.
fn same(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Object(_), Node::Object(_)) => ["system", "code"].iter().all(|name| a.get(name) == b.get(name)),
        _ => a == b,
    }
}

pub(super) fn add(items: &mut Vec<Node>, given: Vec<Node>) {
    for node in given {
        if !items.iter().any(|item| same(item, &node)) {
            items.push(node);
        }
    }
}

pub(super) fn delete(items: &mut Vec<Node>, given: Vec<Node>) {
    items.retain(|item| !given.iter().any(|node| same(item, node)));
}
