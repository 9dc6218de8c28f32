//! history-instance (http.html#history): every version, newest first, deletions included.

use super::search::full_url;
use super::{Answer, Bundle, BundleKind, Content, Done, Entry, Pairs, Response, Scene, Shape, VersionOf, form, read};
use crate::access::{Read, authorize};
use crate::audit::{Released, What};
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::store::{HistoryPage, Sealed};
use crate::world::Instant;

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
    let page = Page::parse(scene, query)?;
    let found = scene.app.store.history(&grant, id, page.count, page.before).await?;
    if found.total == 0 {
        return Err(Error::not_found());
    }
    let links = links(scene, kind, id, &page, found.next);
    let total = Some(found.total);
    let entries = disclose(scene, kind, found, &page.shape).await?;
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
    fn parse(scene: Scene<'_>, query: &Pairs) -> Result<Page> {
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
        page.shape = Shape::from_pairs(&rest, scene.facts.prefer.lenient)?;
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

/// One version on its way into the page.
struct Line {
    kind: TypeId,
    id: String,
    version: u32,
    at: Instant,
    deleted: bool,
}

async fn disclose(scene: Scene<'_>, kind: TypeId, found: HistoryPage, shape: &Shape) -> Result<Vec<Entry>> {
    let lines: Vec<Line> = found.versions.iter().map(line).collect();
    let mut event = scene.event(What::HistoryInstance, Some(kind));
    let (gone, live): (Vec<Sealed>, Vec<Sealed>) = found.versions.into_iter().partition(|sealed| sealed.deleted);
    event.touched = gone.iter().map(|sealed| read::touched(sealed, What::HistoryInstance)).collect();
    let released = match live.is_empty() {
        true => scene.app.trail.record(event).await.map(|_| Vec::new())?,
        false => scene.app.trail.disclose(event, live).await?,
    };
    let mut released = released.into_iter();
    lines.into_iter().map(|line| entry(scene, line, &mut released, shape)).collect()
}

fn line(sealed: &Sealed) -> Line {
    let header = sealed.header();
    Line {
        kind: header.kind,
        id: header.id.clone(),
        version: header.version,
        at: header.last_updated,
        deleted: sealed.deleted,
    }
}

fn entry(scene: Scene<'_>, line: Line, released: &mut impl Iterator<Item = Released>, shape: &Shape) -> Result<Entry> {
    let content = match line.deleted {
        true => None,
        false => Some(released.next().ok_or_else(|| Error::internal("a disclosure gave too little"))?),
    };
    let address = format!("{}/{}", definitions().type_name(line.kind), line.id);
    let method = if line.deleted { "DELETE" } else { "PUT" };
    let done = if line.deleted {
        Done::NoContent
    } else if line.version == 1 {
        Done::Created
    } else {
        Done::Ok
    };
    Ok(Entry {
        full_url: Some(full_url(scene, line.kind, &line.id)),
        content: content.map(|released| Content::Released(released, shape.clone())),
        request: Some((method, address)),
        response: Some(Response::Done {
            done,
            version: Some(VersionOf {
                kind: line.kind,
                id: line.id,
                version: line.version,
                at: line.at,
                written: false,
            }),
        }),
        ..Entry::default()
    })
}
