//! An entry of a transaction, understood: its condition is looked at, so that its address is known before references
//! are rewritten.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::overlap::Own;
use super::resolve::Links;
use super::{asked, at, facts_of, in_entry};
use crate::access::{Create, Delete, Update, authorize};
use crate::audit::Touched;
use crate::error::{Error, Result};
use crate::fhir::bundle;
use crate::fhir::json::Node;
use crate::fhir::patch::Patch;
use crate::fhir::sent::Held;
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::conditional::Condition;
use crate::interaction::write::patch;
use crate::interaction::write::plan::Goal;
use crate::interaction::write::stage::{self, Change, Ready};
use crate::interaction::{Conditions, Facts, Interaction, Scene, VersionOf};
use crate::store::Premise;

/// One entry, understood.
pub(super) enum Step {
    Create {
        kind: TypeId,
        id: String,
        body: Held,
    },
    Update {
        kind: TypeId,
        id: String,
        body: Held,
        conditions: Conditions,
        fresh: bool,
        /// By its address; a conditional one need not carry its id.
        named: bool,
    },
    Patch {
        kind: TypeId,
        id: String,
        patch: Patch,
        conditions: Conditions,
    },
    Delete {
        kind: TypeId,
        ids: Vec<String>,
        conditions: Conditions,
    },
    /// A conditional create whose condition is met already.
    Existing {
        version: VersionOf,
        touched: Touched,
    },
    /// A conditional create with the condition of an earlier entry: it finds what that one makes.
    Again {
        of: usize,
        address: String,
    },
    /// Performed after the commit.
    Read {
        asked: Interaction,
        facts: Box<Facts>,
        head: bool,
    },
}

/// What the conditions of a transaction gave so far.
#[derive(Default)]
pub(super) struct Looked {
    /// Conditional creates that found nothing: by their condition, the entry and its address.
    made: HashMap<String, (usize, String)>,
    /// What the transaction rests on.
    pub premises: Vec<Premise>,
    /// What it deletes: deletions come before everything else.
    pub deleted: HashMap<TypeId, HashSet<String>>,
    /// Conditions that the transaction's own entries may meet.
    pub own: Vec<Own>,
}

/// The resource of an entry as conditions see it once it is written. None: it is not valid, which is told at its own
/// entry.
pub(super) fn foreseen(scene: Scene<'_>, id: &str, node: Node) -> Option<Resource> {
    let mut resource = Resource::check(node).ok()?;
    resource.stamp(id, 1, scene.app.world.now());
    Some(resource)
}

fn address(kind: TypeId, id: &str) -> String {
    format!("{}/{id}", definitions().type_name(kind))
}

impl Step {
    /// # Errors
    /// As the same request on its own, with the place of the entry.
    pub async fn of(scene: Scene<'_>, entry: &mut bundle::Entry, n: usize, looked: &mut Looked) -> Result<Step> {
        let head = entry.method == "HEAD";
        // What is written stays as it is until its turn comes.
        let mut held = None;
        let asked = asked(scene, entry, n, |body| {
            held = Some(body);
            Ok(Node::Null)
        })?;
        let held = || held.ok_or_else(|| Error::internal("a write without a resource"));
        let facts = facts_of(scene, entry);
        facts.conditions.fit(&asked).map_err(|error| error.at(at(n, "request")))?;
        let at_url = |error: Error| error.at(at(n, "request.url"));
        Ok(match asked {
            Interaction::Create { kind, .. } => Step::create(scene, (kind, held()?), &facts, n, looked).await?,
            Interaction::Update { kind, target, .. } => {
                authorize::<Update>(scene.caller, kind)?;
                let goal = Goal::of(scene, kind, target).map_err(at_url)?;
                let (body, named) = (held()?, matches!(goal, Goal::Id(_)));
                let tree = if named { Cow::Owned(Node::Null) } else { body.tree()? };
                let own = tree.get("id").and_then(Node::as_str);
                let put = goal.update(scene, own, &mut looked.premises).await.map_err(at_url)?;
                drop(tree);
                if let Goal::Matching(condition) = &goal {
                    looked.own.push(Own::of(n, kind, condition));
                }
                Step::Update { kind, id: put.id, body, conditions: facts.conditions, fresh: put.fresh, named }
            }
            Interaction::Patch { kind, target, patch: operations } => {
                patch::grants(scene, kind).map_err(at_url)?;
                let goal = Goal::of(scene, kind, target).map_err(at_url)?;
                let id = goal.patch(scene, &mut looked.premises).await.map_err(at_url)?;
                Step::Patch { kind, id, patch: operations, conditions: facts.conditions }
            }
            Interaction::Delete { kind, target } => {
                authorize::<Delete>(scene.caller, kind)?;
                let goal = Goal::of(scene, kind, target).map_err(at_url)?;
                let ids = goal.delete(scene, &mut looked.premises, &facts.conditions).await.map_err(at_url)?;
                looked.deleted.entry(kind).or_default().extend(ids.iter().cloned());
                Step::Delete { kind, ids, conditions: facts.conditions }
            }
            Interaction::Operation { operation, .. } if operation.affects => {
                let text = "An operation that writes has a commit of its own: it cannot be part of a transaction.";
                return Err(Error::unsupported(text).at(at(n, "request.url")));
            }
            asked => Step::Read { asked, facts: Box::new(facts), head },
        })
    }

    async fn create(
        scene: Scene<'_>,
        (kind, body): (TypeId, Held),
        facts: &Facts,
        n: usize,
        looked: &mut Looked,
    ) -> Result<Step> {
        let id = scene.app.world.uuid();
        let Some(condition) = &facts.conditions.if_none_exist else {
            return Ok(Step::Create { kind, id, body });
        };
        authorize::<Create>(scene.caller, kind)?;
        let at_condition = |error: Error| error.at(at(n, "request.ifNoneExist"));
        let condition = Condition::parse(scene, kind, condition).map_err(at_condition)?;
        let text = condition.text();
        if let Some((of, address)) = looked.made.get(&text) {
            return Ok(Step::Again { of: *of, address: address.clone() });
        }
        let found = match looked.deleted.get(&kind).filter(|going| !going.is_empty()) {
            None => condition.one_or_none(scene, &mut looked.premises).await,
            Some(going) => condition.one_without(scene, &mut looked.premises, going).await,
        };
        if let Some(found) = found.map_err(at_condition)? {
            return Ok(Step::Existing { version: found.version, touched: found.touched });
        }
        looked.own.push(Own::of(n, kind, &condition));
        looked.made.insert(text, (n, address(kind, &id)));
        Ok(Step::Create { kind, id, body })
    }

    /// What the entry's resource is called here.
    pub fn address(&self) -> Option<String> {
        Some(match self {
            Step::Create { kind, id, .. } | Step::Update { kind, id, .. } | Step::Patch { kind, id, .. } => {
                address(*kind, id)
            }
            Step::Existing { version, .. } => address(version.kind, &version.id),
            Step::Again { address, .. } => address.clone(),
            Step::Delete { .. } | Step::Read { .. } => return None,
        })
    }

    /// Type, id and content of what it writes.
    pub fn written(&self) -> Option<(TypeId, &str, &Held)> {
        match self {
            Step::Create { kind, id, body, .. } | Step::Update { kind, id, body, .. } => Some((*kind, id, body)),
            _ => None,
        }
    }

    /// Whether it writes or deletes something of a type.
    pub fn changes_type(&self, of: TypeId) -> bool {
        match self {
            Step::Create { kind, .. } | Step::Update { kind, .. } | Step::Patch { kind, .. } => *kind == of,
            Step::Delete { kind, ids, .. } => *kind == of && !ids.is_empty(),
            Step::Existing { .. } | Step::Again { .. } | Step::Read { .. } => false,
        }
    }

    /// Whether the resource is deleted by this entry, or has another content afterwards.
    pub fn replaces(&self, of: TypeId, wanted: &str) -> bool {
        match self {
            Step::Update { kind, id, .. } => *kind == of && id == wanted,
            Step::Delete { kind, ids, .. } => *kind == of && ids.iter().any(|id| id == wanted),
            _ => false,
        }
    }

    /// Authorizes and checks a write.
    ///
    /// # Errors
    /// With the place of each fault.
    pub fn changes(self, scene: Scene<'_>, n: usize, links: &Links) -> Result<Vec<Change>> {
        let checked = || match self {
            Step::Create { kind, id, body } => {
                let grant = authorize::<Create>(scene.caller, kind)?;
                let is_small = body.has_tree();
                let resource = Ready::of(links.checked(kind, body, n)?, is_small);
                Ok(vec![Change::Create { grant, resource, id }])
            }
            Step::Update { kind, id, body, conditions, fresh, named } => {
                let grant = authorize::<Update>(scene.caller, kind)?;
                let is_small = body.has_tree();
                let resource = links.checked(kind, body, n)?;
                if named {
                    stage::same_id(&resource, &id)?;
                }
                let resource = Ready::of(resource, is_small);
                Ok(vec![Change::Update { grant, resource, id, conditions, fresh }])
            }
            Step::Patch { kind, id, patch: operations, conditions } => {
                let (grant, reads) = patch::grants(scene, kind)?;
                Ok(vec![Change::Patch { grant, reads, kind, id, patch: operations, conditions }])
            }
            Step::Delete { kind, ids, conditions } => {
                let change = |id| {
                    let grant = authorize::<Delete>(scene.caller, kind)?;
                    Ok(Change::Delete { grant, kind, id, conditions: conditions.clone() })
                };
                ids.into_iter().map(change).collect()
            }
            Step::Existing { .. } | Step::Again { .. } | Step::Read { .. } => {
                Err(Error::internal("an entry that writes nothing"))
            }
        };
        checked().map_err(|error| in_entry(error, n))
    }
}
