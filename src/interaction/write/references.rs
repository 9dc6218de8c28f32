//! Whether what a write refers to is there, and whether what it deletes is still referred to: looked at when all of the
//! write lies in its transaction, and held to until the commit (`docs/adr/0015-references.md`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stage::Staged;
use crate::access::{Rows, referable};
use crate::app::config::References;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::literal;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::{Scene, is_audit};
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
    let absent = absent(scene, &mut scene.app.store.begin(), wanted, Look::Now).await?;
    Ok(refers.iter().filter_map(|refers| issue(refers, &absent)).collect())
}

/// When what a write refers to is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::interaction) enum Look {
    /// By the writer alone, where the caller may refer to whatever there is. It says only that something is missing: the
    /// next try finds out what.
    AtCommit,
    Now,
}

/// Looks for everything that the resources of a transaction refer to, and for what refers to those it deletes.
///
/// # Errors
/// Those of the database; what is wrong with the references is told by resource.
pub(in crate::interaction) async fn faults<'a>(
    scene: Scene<'_>,
    tx: &mut Tx,
    staged: impl Iterator<Item = &'a Staged> + Clone,
    look: Look,
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
    // What is refused anyway is told with everything that is.
    let refused = staged.clone().flat_map(|staged| &staged.refers).any(|refers| refers.to.is_none());
    let absent = absent(scene, tx, wanted, if refused { Look::Now } else { look }).await?;
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
    look: Look,
) -> Result<HashMap<TypeId, HashSet<Wanted>>> {
    let store = &scene.app.store;
    let mut absent: HashMap<TypeId, HashSet<Wanted>> = HashMap::new();
    let (mut among, mut asked) = (HashMap::new(), Vec::new());
    for (kind, wanted) in &wanted {
        among.insert(*kind, referable(scene.caller, *kind)?);
        for (id, version) in wanted {
            match tx.fate(*kind, id) {
                // What it deletes itself, or has in an earlier version.
                Some(_) => drop(absent.entry(*kind).or_default().insert((id.clone(), *version))),
                None => asked.push((*kind, id.as_str(), *version)),
            }
        }
    }
    // All or none: who is told of one is told of the others too.
    let open = among.values().all(|rows| matches!(rows, Rows::All)) && absent.is_empty();
    if look == Look::AtCommit && open && asked.iter().all(|(kind, id, _)| store.may_be(*kind, id)) {
        asked.drain(..).for_each(|(kind, id, version)| tx.refers_to(kind, id, version));
    }
    for ((kind, id, version), gone) in asked.iter().zip(store.absent(&among, &asked).await?) {
        match gone {
            true => drop(absent.entry(*kind).or_default().insert(((*id).to_owned(), *version))),
            false => tx.refers_to(*kind, id, *version),
        }
    }
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
