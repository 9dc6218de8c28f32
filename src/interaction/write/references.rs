//! Whether what a write refers to is there, and whether what it deletes is still referred to: looked at when all of the
//! write lies in its transaction, and held to until the commit (`docs/adr/0015-references.md`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stage::Staged;
use crate::access::referable;
use crate::app::config::References;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::literal;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::{Facts, Scene, is_audit};
use crate::store::{Fate, REFERRERS_MAX, Referrers, Tx};

/// What stands against one resource of a transaction.
pub(in crate::interaction) type Fault = (TypeId, String, Error);

/// A resource and the version that is referred to: 0 where none is named.
type Wanted = (String, u32);

/// A version that no resource can have.
const NEVER: u32 = u32::MAX;

/// Refuses what the definitions alone refuse, whatever the setting.
///
/// # Errors
/// `Kind::Invalid` with the place of each reference.
pub(super) fn defined(scene: Scene<'_>, resource: &Resource) -> Result<()> {
    let issues = undefined(scene, resource);
    if issues.is_empty() { Ok(()) } else { Err(Error::with_issues(Kind::Invalid, issues)) }
}

/// The references that the definitions alone refuse.
pub(in crate::interaction) fn undefined(scene: Scene<'_>, resource: &Resource) -> Vec<Issue> {
    literal::faults(resource.node(), &scene.app.config.base_url)
}

/// One literal reference of a resource that is written.
pub(super) struct Refers {
    /// None: by a query.
    to: Option<(TypeId, Wanted)>,
    place: String,
}

/// What a resource refers to here, to be looked for when all of the write is staged; nothing where nobody looks.
pub(super) fn of(scene: Scene<'_>, resource: &Resource) -> Vec<Refers> {
    let mut found = Vec::new();
    // An AuditEvent may be about what is gone.
    if scene.app.config.references == References::Allow || is_audit(resource.kind()) {
        return found;
    }
    literal::visit(resource.node(), &mut |literal| {
        let to = match reference::parse(literal.text, &scene.app.config.base_url) {
            // Those of the trail are not among the resources.
            Reference::Local { kind, id, version } if !is_audit(kind) => {
                Some((kind, (id, numbered(version.as_deref()))))
            }
            Reference::Conditional { .. } => None,
            _ => return,
        };
        found.push(Refers { to, place: literal.place() });
    });
    found
}

/// What a resource refers to that is not there, for who does not say what is to become of it. It may refer to itself.
///
/// # Errors
/// Those of the database.
pub(in crate::interaction) async fn lost(scene: Scene<'_>, resource: &Resource) -> Result<Vec<Issue>> {
    let refers = of(scene, resource);
    let mut wanted: BTreeMap<TypeId, HashSet<Wanted>> = BTreeMap::new();
    for (kind, (id, version)) in refers.iter().filter_map(|refers| refers.to.as_ref()) {
        if (*kind, Some(id.as_str())) != (resource.kind(), resource.id()) {
            wanted.entry(*kind).or_default().insert((id.clone(), *version));
        }
    }
    let facts = Facts { trial: true, ..scene.facts.clone() };
    let absent = absent(Scene { facts: &facts, ..scene }, &mut scene.app.store.begin(), wanted).await?;
    Ok(refers.iter().filter_map(|refers| issue(refers, &absent)).collect())
}

/// Looks for everything that the resources of a transaction refer to, and for what refers to those it deletes.
///
/// # Errors
/// Those of the database; what is wrong with the references is told by resource.
pub(in crate::interaction) async fn faults<'a>(
    scene: Scene<'_>,
    tx: &mut Tx,
    staged: impl Iterator<Item = &'a Staged> + Clone,
) -> Result<Vec<Fault>> {
    if scene.app.config.references == References::Allow {
        return Ok(Vec::new());
    }
    let mut wanted: BTreeMap<TypeId, HashSet<Wanted>> = BTreeMap::new();
    for (kind, (id, version)) in
        staged.clone().flat_map(|staged| &staged.refers).filter_map(|refers| refers.to.as_ref())
    {
        if tx.fate(*kind, id).is_none_or(|fate| !stands(fate, *version)) {
            wanted.entry(*kind).or_default().insert((id.clone(), *version));
        }
    }
    let absent = absent(scene, tx, wanted).await?;
    let mut faults = Vec::new();
    for staged in staged {
        let issues: Vec<Issue> = staged.refers.iter().filter_map(|refers| issue(refers, &absent)).collect();
        if let Some(version) = staged.version.as_ref().filter(|_| !issues.is_empty()) {
            faults.push((version.kind, version.id.clone(), Error::with_issues(Kind::BusinessRule, issues)));
        }
    }
    for (kind, id) in tx.deleted() {
        let referrers = tx.orphans(scene.caller, kind, &id).await?;
        if referrers.count > 0 {
            let issue = Issue::error("business-rule", told(&referrers));
            faults.push((kind, id, Error::with_issues(Kind::Conflict, vec![issue])));
        }
    }
    Ok(faults)
}

fn numbered(version: Option<&str>) -> u32 {
    version.map_or(0, |version| version.parse().unwrap_or(NEVER))
}

fn stands(fate: Fate, version: u32) -> bool {
    matches!(fate, Fate::Stands(standing) if version <= standing)
}

/// Which of these are not there for this caller; the transaction is held to the others.
async fn absent(
    scene: Scene<'_>,
    tx: &mut Tx,
    wanted: BTreeMap<TypeId, HashSet<Wanted>>,
) -> Result<HashMap<TypeId, HashSet<Wanted>>> {
    let mut absent: HashMap<TypeId, HashSet<Wanted>> = HashMap::new();
    for (kind, wanted) in wanted {
        let rows = referable(scene.caller, kind)?;
        // What it deletes itself, or has in an earlier version.
        let (own, others): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|(id, _)| tx.fate(kind, id).is_some());
        let asked: Vec<(&str, u32)> = others.iter().map(|(id, version)| (id.as_str(), *version)).collect();
        let gone = scene.app.store.absent(&rows, kind, &asked, !scene.facts.trial).await?;
        absent.entry(kind).or_default().extend(own);
        for (wanted, gone) in others.into_iter().zip(gone) {
            match gone {
                true => drop(absent.entry(kind).or_default().insert(wanted)),
                false => tx.refers_to(kind, &wanted.0, wanted.1),
            }
        }
    }
    absent.retain(|_, of| !of.is_empty());
    Ok(absent)
}

/// What is told of a reference that leads nowhere. The text is the same for what is not there, what was deleted and what
/// the caller may not see.
fn issue(refers: &Refers, absent: &HashMap<TypeId, HashSet<Wanted>>) -> Option<Issue> {
    let text = match &refers.to {
        Some((kind, wanted)) => {
            absent.get(kind).filter(|of| of.contains(wanted))?;
            let version = if wanted.1 == 0 { "" } else { " in this version" };
            let name = definitions().type_name(*kind);
            format!("There is no {name}/{}{version} that this reference could be to.", wanted.0)
        }
        None => "A reference by a query is looked up in transactions only; here it leads nowhere.".to_owned(),
    };
    Some(Issue::error("not-found", text).at(refers.place.clone()))
}

/// Who refers to it, as far as the caller may know.
fn told(referrers: &Referrers) -> String {
    let seen: Vec<String> = referrers.seen.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let more = if referrers.count >= REFERRERS_MAX { "at least " } else { "" };
    let known = referrers.seen.values().sum::<usize>();
    match seen.is_empty() {
        true => "Other resources refer to it, so it cannot be deleted.".to_owned(),
        false if known == referrers.count => {
            format!("It cannot be deleted: {more}{known} other resources refer to it ({}).", seen.join(", "))
        }
        false => {
            let seen = seen.join(", ");
            format!(
                "It cannot be deleted: other resources refer to it, among them {more}{known} that you may see ({seen})."
            )
        }
    }
}
