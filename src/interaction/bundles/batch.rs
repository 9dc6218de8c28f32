//! batch: every entry on its own, with the outcome and the record it would have as a single request.

use futures_util::stream::{self, StreamExt};

use super::{answered, asked, facts_of, failed, in_entry, without_content};
use crate::audit::What;
use crate::error::{Kind, Result};
use crate::fhir::bundle;
use crate::fhir::sent::Held;
use crate::interaction::{self, About, Answer, Bundle, BundleKind, Entry, Facts, Scene};

/// Entries performed at the same time: their commits then share the database's.
const AT_ONCE: usize = 16;

pub(super) async fn batch(scene: Scene<'_>, entries: Vec<Result<bundle::Entry>>) -> Result<Answer> {
    if entries.is_empty() {
        scene.app.trail.record(scene.event(What::Batch, None)).await?;
    }
    let outcomes = stream::iter(entries.into_iter().enumerate()).map(|(n, entry)| one(scene, n, entry));
    let entries: Vec<Result<Entry>> = outcomes.buffered(AT_ONCE).collect().await;
    Ok(Answer::bundle(Bundle {
        id: scene.app.world.uuid(),
        kind: BundleKind::BatchResponse,
        at: scene.app.world.now(),
        total: None,
        links: Vec::new(),
        entries: entries.into_iter().collect::<Result<_>>()?,
    }))
}

/// # Errors
/// Only when the outcome could not be put on record: then the whole batch gives nothing back.
async fn one(scene: Scene<'_>, n: usize, entry: Result<bundle::Entry>) -> Result<Entry> {
    let about = About { what: What::Batch, kind: None, id: None };
    let who = || Some(scene.caller.who().clone());
    let mut entry = match entry {
        Ok(entry) => entry,
        Err(error) => {
            let error = interaction::refuse(scene.app, who(), scene.facts, about, error).await;
            return outcome(Err(error), n);
        }
    };
    let facts: Facts = facts_of(scene, &entry);
    let answer = match asked(scene, &mut entry, n, Held::into_tree) {
        // A batch holds no batches, so this goes one level deep only.
        Ok(asked) => Box::pin(interaction::perform(scene.app, scene.caller, &facts, asked)).await,
        Err(error) => Err(interaction::refuse(scene.app, who(), &facts, about, error).await),
    };
    let done = outcome(answer, n)?;
    Ok(if entry.method == "HEAD" { without_content(done) } else { done })
}

fn outcome(answer: Result<Answer>, n: usize) -> Result<Entry> {
    match answer {
        Ok(answer) => Ok(answered(answer)),
        Err(error) if error.kind == Kind::Audit => Err(error),
        Err(error) => Ok(failed(in_entry(error, n))),
    }
}
