//! history-instance (http.html#history): every version, newest first, deletions included.

use super::search::full_url;
use super::{
    Answer, Bundle, BundleKind, Content, Done, Entry, Pairs, Response, Scene, Shape, VersionOf, form, is_audit,
};
use crate::access::{Grant, Read, authorize};
use crate::audit::{Released, What};
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::store::HistoryPage;

/// What the query of a history asks for.
struct Page {
    count: usize,
    /// Versions below this one.
    before: Option<u32>,
    shape: Shape,
    applied: Pairs,
}

pub(super) async fn instance(scene: Scene<'_>, kind: TypeId, id: &str, query: &Pairs) -> Result<Answer> {
    let grant = authorize::<Read>(scene.caller, kind)?;
    let page = Page::parse(scene, kind, query)?;
    let (entries, total, next) = match is_audit(kind) {
        true => (audit_event(scene, &grant, id, &page).await?, 1, None),
        false => {
            let found = scene.app.store.history(&grant, id, page.count, page.before).await?;
            let (total, next) = (found.total, found.next);
            if total == 0 {
                return Err(Error::not_found());
            }
            (disclose(scene, kind, found, &page.shape).await?, total, next)
        }
    };
    let links = links(scene, kind, id, &page, next);
    let total = Some(total);
    Ok(Answer::bundle(Bundle {
        id: scene.app.world.uuid(),
        kind: BundleKind::History,
        at: scene.app.world.now(),
        total,
        links,
        entries,
    }))
}

impl Page {
    fn parse(scene: Scene<'_>, kind: TypeId, query: &Pairs) -> Result<Page> {
        let config = &scene.app.config;
        let mut page = Page { count: config.page_size.size(), before: None, shape: Shape::Full, applied: Vec::new() };
        let mut rest = Pairs::new();
        for (name, value) in query {
            let number = value.parse::<u32>().ok();
            match (name.as_str(), number) {
                ("_count", Some(n)) if n > 0 => page.count = config.page_size_max.size().min(n as usize),
                ("_before", Some(n)) => page.before = Some(n),
                ("_count" | "_before", _) => {
                    return Err(Error::invalid(format!("The parameter {name} must be a whole number above 0.")));
                }
                _ => {
                    rest.push((name.clone(), value.clone()));
                    continue;
                }
            }
            if name == "_count" {
                page.applied.push((name.clone(), page.count.to_string()));
            }
        }
        page.shape = Shape::from_pairs(Some(kind), &rest, scene.facts.prefer.lenient)?;
        if page.shape != Shape::Full {
            page.applied.extend(rest.into_iter().filter(|(name, _)| name == "_summary" || name == "_elements"));
        }
        Ok(page)
    }
}

fn links(scene: Scene<'_>, kind: TypeId, id: &str, page: &Page, next: Option<u32>) -> Vec<(&'static str, String)> {
    let base = format!("{}/_history", full_url(scene, kind, id));
    let address = |before: Option<u32>| {
        let format = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone()));
        let before = before.map(|before| ("_before".to_owned(), before.to_string()));
        let pairs: Pairs = page.applied.iter().cloned().chain(before).chain(format).collect();
        if pairs.is_empty() { base.clone() } else { format!("{base}?{}", form::encode(&pairs)) }
    };
    let mut links = vec![("self", address(page.before))];
    if let Some(next) = next {
        links.push(("next", address(Some(next))));
    }
    links
}

/// An AuditEvent never changes: its history is its one version.
async fn audit_event(scene: Scene<'_>, grant: &Grant<Read>, id: &str, page: &Page) -> Result<Vec<Entry>> {
    let event = scene.event(What::HistoryInstance, Some(grant.kind()));
    let released = scene.app.trail.read(event, grant, id).await?.ok_or_else(Error::not_found)?;
    let shown = page.before.is_none_or(|before| before > 1);
    Ok(shown.then(|| entry(scene, released, &page.shape)).into_iter().collect())
}

async fn disclose(scene: Scene<'_>, kind: TypeId, found: HistoryPage, shape: &Shape) -> Result<Vec<Entry>> {
    let event = scene.event(What::HistoryInstance, Some(kind));
    // A page past the last version is on record all the same.
    let released = scene.app.trail.disclose(event, found.versions).await?;
    Ok(released.into_iter().map(|released| entry(scene, released, shape)).collect())
}

fn entry(scene: Scene<'_>, released: Released, shape: &Shape) -> Entry {
    let deleted = released.is_deleted();
    let address = format!("{}/{}", definitions().type_name(released.kind()), released.id());
    let (method, done) = match (deleted, released.version()) {
        (true, _) => ("DELETE", Done::NoContent),
        (false, 1) => ("PUT", Done::Created),
        (false, _) => ("PUT", Done::Ok),
    };
    Entry {
        full_url: Some(full_url(scene, released.kind(), released.id())),
        request: Some((method, address)),
        response: Some(Response::Done { done, version: Some(VersionOf::read(&released)) }),
        content: (!deleted).then(|| Content::Released(released, shape.clone())),
        ..Entry::default()
    }
}
