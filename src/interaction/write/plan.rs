//! A single write as it was asked for: checked and authorized once, its condition looked at before every try.

use super::patch;
use super::stage::{self, Change};
use crate::access::{Create, Delete, Update, authorize};
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::patch::Patch;
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::conditional::{Condition, Match};
use crate::interaction::{Conditions, Scene, Target};
use crate::store::Premise;

/// A write that is ready to be tried.
pub(in crate::interaction) struct Plan {
    kind: TypeId,
    ask: Ask,
    conditions: Conditions,
}

enum Ask {
    Create { resource: Resource, condition: Option<Condition> },
    Update { resource: Resource, goal: Goal },
    Patch { patch: Patch, goal: Goal },
    Delete { goal: Goal },
}

/// Which resource is meant.
pub(in crate::interaction) enum Goal {
    Id(String),
    Matching(Condition),
}

/// What is to be done now that the condition is known.
pub(in crate::interaction) enum Settled {
    /// A conditional create whose resource is there.
    Existing(Match),
    /// With what the conditions among them rest on.
    Changes(Vec<Change>, Vec<Premise>),
}

impl Goal {
    pub fn of(scene: Scene<'_>, kind: TypeId, target: Target) -> Result<Goal> {
        Ok(match target {
            Target::Id(id) => Goal::Id(id),
            Target::Matching(pairs) => Goal::Matching(Condition::of(scene, kind, pairs)?),
        })
    }
}

impl Plan {
    /// # Errors
    /// `Kind::Forbidden`, or `Kind::Invalid` with the place of each fault.
    pub fn create(scene: Scene<'_>, kind: TypeId, body: Node) -> Result<Plan> {
        authorize::<Create>(scene.caller, kind)?;
        let resource = stage::checked(kind, body)?;
        let condition = scene.facts.conditions.if_none_exist.as_deref();
        let condition = condition.map(|text| Condition::parse(scene, kind, text)).transpose()?;
        Ok(Plan::new(scene, kind, Ask::Create { resource, condition }))
    }

    /// # Errors
    /// As [`Plan::create`].
    pub fn update(scene: Scene<'_>, kind: TypeId, target: Target, body: Node) -> Result<Plan> {
        authorize::<Update>(scene.caller, kind)?;
        let resource = stage::checked(kind, body)?;
        let goal = Goal::of(scene, kind, target)?;
        if let Goal::Id(id) = &goal {
            stage::same_id(&resource, id)?;
        }
        Ok(Plan::new(scene, kind, Ask::Update { resource, goal }))
    }

    /// # Errors
    /// As [`Plan::create`].
    pub fn patch(scene: Scene<'_>, kind: TypeId, target: Target, patch: Patch) -> Result<Plan> {
        patch::grants(scene, kind)?;
        let goal = Goal::of(scene, kind, target)?;
        Ok(Plan::new(scene, kind, Ask::Patch { patch, goal }))
    }

    /// # Errors
    /// As [`Plan::create`].
    pub fn delete(scene: Scene<'_>, kind: TypeId, target: Target) -> Result<Plan> {
        authorize::<Delete>(scene.caller, kind)?;
        let goal = Goal::of(scene, kind, target)?;
        Ok(Plan::new(scene, kind, Ask::Delete { goal }))
    }

    fn new(scene: Scene<'_>, kind: TypeId, ask: Ask) -> Plan {
        Plan { kind, ask, conditions: scene.facts.conditions.clone() }
    }

    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn what(&self) -> What {
        match self.ask {
            Ask::Create { .. } => What::Create,
            Ask::Update { .. } => What::Update,
            Ask::Patch { .. } => What::Patch,
            Ask::Delete { .. } => What::Delete,
        }
    }

    /// What it would lose a race for.
    pub fn contended(&self) -> String {
        let of = |goal: &Goal| match goal {
            Goal::Id(id) => contended((self.kind, id)),
            Goal::Matching(condition) => condition.text(),
        };
        match &self.ask {
            Ask::Create { condition, .. } => condition.as_ref().map(Condition::text).unwrap_or_default(),
            Ask::Update { goal, .. } | Ask::Patch { goal, .. } | Ask::Delete { goal } => of(goal),
        }
    }

    /// Looks at the condition.
    ///
    /// # Errors
    /// `Kind::Precondition` when it matches too many, `Kind::NotFound` when a patch has nothing to work on.
    pub async fn settle(&self, scene: Scene<'_>) -> Result<Settled> {
        let kind = self.kind;
        let conditions = self.conditions.clone();
        let mut premises = Vec::new();
        let changes = match &self.ask {
            Ask::Create { resource, condition } => {
                if let Some(condition) = condition
                    && let Some(found) = condition.one_or_none(scene, &mut premises).await?
                {
                    return Ok(Settled::Existing(found));
                }
                let grant = authorize::<Create>(scene.caller, kind)?;
                vec![Change::Create { grant, resource: resource.clone().into(), id: scene.app.world.uuid() }]
            }
            Ask::Update { resource, goal } => {
                let Put { id, fresh } = goal.update(scene, resource.id(), &mut premises).await?;
                let grant = authorize::<Update>(scene.caller, kind)?;
                vec![Change::Update { grant, resource: resource.clone().into(), id, conditions, fresh }]
            }
            Ask::Patch { patch: operations, goal } => {
                let id = goal.patch(scene, &mut premises).await?;
                let (grant, reads) = patch::grants(scene, kind)?;
                vec![Change::Patch { grant, reads, kind, id, patch: operations.clone(), conditions }]
            }
            Ask::Delete { goal } => {
                let change = |id| {
                    let grant = authorize::<Delete>(scene.caller, kind)?;
                    Ok(Change::Delete { grant, kind, id, conditions: conditions.clone() })
                };
                let ids = goal.delete(scene, &mut premises, &conditions).await?;
                ids.into_iter().map(change).collect::<Result<_>>()?
            }
        };
        Ok(Settled::Changes(changes, premises))
    }
}

/// What writes to one resource lose a race for.
pub(super) fn contended((kind, id): (TypeId, &str)) -> String {
    format!("{}/{id}", definitions().type_name(kind))
}

/// Where an update goes.
pub(in crate::interaction) struct Put {
    pub id: String,
    /// A condition matched nothing: it must be a creation.
    pub fresh: bool,
}

/// Looking at the condition notes in `premises` what the write then rests on.
impl Goal {
    /// http.html#cond-update. `own` is the id in the resource.
    ///
    /// # Errors
    /// `Kind::Invalid` when the resource carries another id than the match; `Kind::Precondition` for several matches.
    pub async fn update(&self, scene: Scene<'_>, own: Option<&str>, premises: &mut Vec<Premise>) -> Result<Put> {
        let condition = match self {
            Goal::Id(id) => return Ok(Put { id: id.clone(), fresh: false }),
            Goal::Matching(condition) => condition,
        };
        let condition = condition.settled(scene, premises).await?;
        match (condition.one(scene).await?, own) {
            (Some(found), Some(own)) if found.version.id != own => {
                let text = "The condition matches a resource with another id than the one that was sent.";
                Err(Error::invalid(text))
            }
            (Some(found), _) => Ok(Put { id: found.version.id, fresh: false }),
            (None, Some(own)) => Ok(Put { id: own.to_owned(), fresh: true }),
            (None, None) => Ok(Put { id: scene.app.world.uuid(), fresh: true }),
        }
    }

    /// The resource to be patched.
    ///
    /// # Errors
    /// `Kind::NotFound` when the condition matches nothing; `Kind::Precondition` for several matches.
    pub async fn patch(&self, scene: Scene<'_>, premises: &mut Vec<Premise>) -> Result<String> {
        match self {
            Goal::Id(id) => Ok(id.clone()),
            Goal::Matching(condition) => {
                let condition = condition.settled(scene, premises).await?;
                let found = condition.one(scene).await?;
                let none = || Error::new(Kind::NotFound, "The condition matches no resource.");
                found.map(|found| found.version.id).ok_or_else(none)
            }
        }
    }

    /// The resources to be deleted.
    ///
    /// # Errors
    /// `Kind::Precondition` for more matches than the settings allow, and for none where If-Match wants one.
    pub async fn delete(
        &self,
        scene: Scene<'_>,
        premises: &mut Vec<Premise>,
        conditions: &Conditions,
    ) -> Result<Vec<String>> {
        match self {
            Goal::Id(id) => Ok(vec![id.clone()]),
            Goal::Matching(condition) => {
                let condition = condition.settled(scene, premises).await?;
                let found = condition.all(scene, scene.app.config.conditional_delete_max.size()).await?;
                if found.is_empty() {
                    stage::check_conditions(conditions, None)?;
                }
                Ok(found.into_iter().map(|found| found.version.id).collect())
            }
        }
    }
}
