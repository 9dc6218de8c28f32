//! References between the entries of a transaction, and conditional references (`Patient?identifier=...`): these are
//! resolved as after all writes, so against what is stored and against the other entries.

use std::collections::HashMap;

use super::step::{Step, foreseen};
use super::{Faults, at};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, Addresses};
use crate::fhir::json::Node;
use crate::fhir::reference::{self, Reference};
use crate::fhir::sent::Held;
use crate::fhir::{Resource, TypeId, definitions};
use crate::interaction::Scene;
use crate::interaction::conditional::Condition;
use crate::interaction::write::stage;
use crate::store::Premise;

/// Stored matches of a conditional reference that are looked at: entries of the bundle may replace some of them.
const MATCHES_MAX: usize = 20;

/// A conditional reference: the first entry that has it, the type and the query.
type Wanted = (usize, TypeId, String);

/// What the references of a transaction are to, known before any of them is rewritten: so one resource after the other
/// can be opened and written, however many there are.
pub(super) struct Links {
    full_urls: Vec<Option<String>>,
    addresses: Addresses,
    /// By conditional reference.
    found: HashMap<String, String>,
}

impl Links {
    /// Looks for what conditional references are to.
    ///
    /// # Errors
    /// `Kind::Precondition` where one does not match exactly one resource: all of them, each with the place of its entry.
    pub(super) async fn resolve(
        scene: Scene<'_>,
        steps: &[Option<Step>],
        (full_urls, addresses): (Vec<Option<String>>, Addresses),
        premises: &mut Vec<Premise>,
        faults: &mut Faults,
    ) -> Result<Links> {
        let mut links = Links { full_urls, addresses, found: HashMap::new() };
        let mut wanted: Vec<(String, Wanted)> = links.wanted(scene, steps)?.into_iter().collect();
        wanted.sort_unstable_by_key(|(_, (n, ..))| *n);
        let mut found = HashMap::with_capacity(wanted.len());
        for (text, (n, kind, query)) in wanted {
            let id = links.matched(scene, steps, (kind, &query), premises).await;
            if let Some(id) = faults.take(id.map_err(|error| error.at(at(n, "resource"))), n)? {
                found.insert(text, format!("{}/{id}", definitions().type_name(kind)));
            }
        }
        links.found = found;
        Ok(links)
    }

    /// The conditional references of all entries.
    fn wanted(&self, scene: Scene<'_>, steps: &[Option<Step>]) -> Result<HashMap<String, Wanted>> {
        let base = &scene.app.config.base_url;
        let mut wanted: HashMap<String, Wanted> = HashMap::new();
        for (n, step) in steps.iter().enumerate() {
            let Some((.., body)) = step.as_ref().and_then(Step::written) else { continue };
            if !may_ask(body.text()) {
                continue;
            }
            let (mut node, _) = self.rewritten(body.tree()?.into_owned(), n);
            bundle::references(&mut node, |text| {
                if text.contains('?')
                    && let Reference::Conditional { kind, query } = reference::parse(text, base)
                {
                    wanted.entry(text.clone()).or_insert((n, kind, query));
                }
            });
        }
        Ok(wanted)
    }

    /// The resource of an entry with its references rewritten; what stands against it beside, so that it can be told
    /// with everything else.
    fn rewritten(&self, mut node: Node, n: usize) -> (Node, Option<Error>) {
        let full_url = self.full_urls.get(n).and_then(Option::as_deref);
        let ambiguous = self.addresses.rewrite(&mut node, full_url).err();
        if !self.found.is_empty() {
            bundle::references(&mut node, |text| {
                if let Some(address) = self.found.get(text.as_str()) {
                    text.clone_from(address);
                }
            });
        }
        (node, ambiguous.map(|error| error.at(at(n, "resource"))))
    }

    /// The resource of an entry as it will be written.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of each fault, a reference that has no one target among them.
    pub(super) fn checked(&self, kind: TypeId, body: Held, n: usize) -> Result<Resource> {
        let (node, ambiguous) = self.rewritten(body.into_tree()?, n);
        match (stage::checked_at(kind, node, &at(n, "resource")), ambiguous) {
            (checked, None) => checked,
            (Ok(_), Some(error)) => Err(error),
            (Err(other), Some(mut error)) => {
                error.issues.extend(other.issues);
                Err(error)
            }
        }
    }

    /// The id of the one resource that satisfies a conditional reference once the transaction is done. The transaction
    /// rests on what was looked at.
    async fn matched(
        &self,
        scene: Scene<'_>,
        steps: &[Option<Step>],
        (kind, query): (TypeId, &str),
        premises: &mut Vec<Premise>,
    ) -> Result<String> {
        let condition = Condition::parse(scene, kind, query)?;
        decidable(&condition, steps, kind)?;
        let mut looked = Vec::new();
        let condition = condition.settled(scene, &mut looked).await?;
        premises.extend(looked.into_iter().map(Premise::looks_only));
        let mut ids: Vec<String> = Vec::new();
        for found in condition.all(scene, MATCHES_MAX).await? {
            let replaced = steps.iter().flatten().any(|step| step.replaces(kind, &found.version.id));
            if !replaced {
                ids.push(found.version.id);
            }
        }
        for (n, step) in steps.iter().enumerate() {
            let Some((of, id, body)) = step.as_ref().and_then(Step::written) else { continue };
            if of != kind {
                continue;
            }
            let (node, _) = self.rewritten(body.tree()?.into_owned(), n);
            let Some(resource) = foreseen(scene, id, node) else { continue };
            if condition.holds(scene, &resource)? {
                ids.push(id.to_owned());
            }
        }
        match (ids.pop(), ids.is_empty()) {
            (Some(id), true) => Ok(id),
            (None, _) => Err(Error::new(Kind::Precondition, "A conditional reference matches no resource.")),
            _ => Err(Error::new(Kind::Precondition, "A conditional reference matches more than one resource.")),
        }
    }
}

/// Whether a text may hold a conditional reference: few do, and only those need be opened to look.
fn may_ask(text: &[u8]) -> bool {
    let escaped = || text.windows(ESCAPED.len()).any(|part| part.eq_ignore_ascii_case(ESCAPED));
    text.contains(&b'?') || text.contains(&b'\\') && escaped()
}

/// A question mark as JSON may spell it.
const ESCAPED: &[u8] = br"\u003f";

/// Refuses what cannot be known before the transaction is done: what a patch makes of a resource, and what chains, `_has`
/// and sets of codes find among the transaction's own entries.
fn decidable(condition: &Condition, steps: &[Option<Step>], kind: TypeId) -> Result<()> {
    let steps = || steps.iter().flatten();
    let name = definitions().type_name(kind);
    if steps().any(|step| matches!(step, Step::Patch { kind: of, .. } if *of == kind)) {
        let text =
            format!("A {name} is patched by the same transaction, so a reference by a query to {name} is not sure.");
        return Err(Error::unsupported(format!("{text} Send the patch on its own.")));
    }
    let looked = condition.looks_at().into_iter().find(|of| steps().any(|step| step.changes_type(*of)));
    match looked {
        Some(of) => {
            let of = definitions().type_name(of);
            Err(Error::unsupported(format!(
                "The query of a reference goes by {of} resources (a chain, _has or a set of codes), which the same \
                 transaction writes. Refer by fullUrl, or send them before."
            )))
        }
        None => Ok(()),
    }
}
