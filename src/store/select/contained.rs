//! `_contained`: resources that lie within others are in no index. The bodies of a bounded number of containers, those
//! that the caller may see, are opened inside the store to decide about what lies in them, under the sections of the
//! container's grant; nothing of them leaves it here.

use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{Shown, Store, add_rows};
use crate::access::{Grant, Grants, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{Resource, TypeId, definitions};
use crate::mapping::sections;
use crate::search::query::{Criterion, pending};
use crate::search::{Customs, Matcher, Query, View, capsule, values};
use crate::store::cores;
use crate::store::sealed::Spot;
use crate::vault::{Keys, Rid};

/// Containers that one search may look into.
const BODIES_MAX: usize = 1_000;
/// Bodies that are held at once.
const CHUNK: usize = 64;

/// A type of container: the grant for it, and what a container must satisfy beside its rows.
pub type Within = (Grant<Search>, Vec<Criterion>);

/// A container in which something matches.
pub struct Container {
    pub kind: TypeId,
    pub rid: Rid,
    pub version: u32,
    /// Ids of what matches in it, in its order.
    pub ids: Vec<String>,
}

/// What is looked for in a container.
struct Inner {
    kind: &'static str,
    matcher: Matcher,
    customs: Arc<Customs>,
    base: String,
}

impl Store {
    /// The containers that hold a resource which the query matches: by type in the order given, then by row. `inside_only`
    /// leaves out those that the query matches themselves.
    ///
    /// # Errors
    /// `Kind::TooCostly` when more than 1,000 resources (or `candidates_max`) could be containers; as [`Store::select`].
    pub async fn contained(
        &self,
        grants: &Grants,
        query: &Query,
        within: &[Within],
        inside_only: bool,
    ) -> Result<Vec<Container>> {
        let mut criteria = query.criteria.clone();
        self.resolve(grants, &mut criteria).await?;
        let kind = definitions().type_name(query.kind);
        let (customs, base) = (self.customs(), self.inner.base.clone());
        let inner = Arc::new(Inner { kind, matcher: Matcher::new(criteria.clone())?, customs, base });
        let themselves = Criterion::NoneOf(vec![criteria]);
        let mut left = BODIES_MAX.min(self.inner.candidates_max);
        let mut found = Vec::new();
        for (grant, of) in within {
            let mut criteria = of.clone();
            if inside_only && grant.kind() == query.kind {
                criteria.push(themselves.clone());
            }
            add_rows(&mut criteria, grant);
            // A row filter with a chain of its own would need inner searches: it lets nothing through here.
            if pending(&criteria).is_some() {
                continue;
            }
            let rids = self.containers(grant, &criteria, &mut left).await?;
            let matcher = Matcher::new(criteria)?;
            for chunk in rids.chunks(CHUNK) {
                let mut shown = self.with_keys(grant, &matcher, chunk).await?;
                shown.sort_unstable_by_key(|(one, _)| one.sealed.rid);
                let inner = inner.clone();
                found.extend(cores::run(move || holding(shown, &inner)).await?);
            }
        }
        self.in_epoch(query.epoch).await?;
        Ok(found)
    }

    async fn containers(&self, grant: &Grant<Search>, criteria: &[Criterion], left: &mut usize) -> Result<Vec<Rid>> {
        let judge: Judge<Rid> = Arc::new(|rid, _, _: &View<'_>| Ok(rid));
        let mut rids = Vec::new();
        let mut scan = Scan::open(self, grant, criteria.to_vec(), Rid(0), false).await?;
        while let Some(found) = scan.next(&judge).await? {
            rids.extend(found);
            if rids.len() > *left {
                let text = format!(
                    "Contained resources are looked for in at most {BODIES_MAX} resources. Search within a compartment, \
                     such as Patient/[id]/[type]?_contained=true."
                );
                return Err(Error::new(Kind::TooCostly, text));
            }
        }
        *left -= rids.len();
        rids.sort_unstable();
        Ok(rids)
    }
}

fn holding(shown: Vec<(Shown, Arc<Keys>)>, inner: &Inner) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    for (one, keys) in shown {
        let sealed = one.sealed;
        let (rid, kind, version) = (sealed.rid, sealed.header.kind, sealed.header.version);
        let spot = Spot { rid, kind, version };
        let opened = spot.open_sections(&keys, &sealed.bytes, |section| sealed.sections.allows(section))?;
        let node = json::parse(&sections::join(opened.sections, opened.left_out)?)?;
        let mut ids = Vec::new();
        for resource in node.get("contained").and_then(Node::as_array).into_iter().flatten() {
            ids.extend(inner.hit(resource, sealed.header.last_updated)?);
        }
        if !ids.is_empty() {
            found.push(Container { kind, rid, version, ids });
        }
    }
    Ok(found)
}

impl Inner {
    /// The id of a contained resource that is of the type and satisfies everything.
    fn hit(&self, node: &Node, at: crate::world::Instant) -> Result<Option<String>> {
        let id = node.get("id").and_then(Node::as_str).filter(|_| node["resourceType"] == self.kind);
        let Some(id) = id else { return Ok(None) };
        let resource = Resource::stored(node.clone())?;
        // Containers are checked as a whole when they are written; a value that cannot be read is none.
        let Ok(mut values) = values::values(&resource, 1, at, &self.base) else { return Ok(None) };
        values.set_custom(&resource, &self.customs, &self.base);
        let bytes = zeroize::Zeroizing::new(capsule::encode(&values));
        Ok(self.matcher.matches(&View::new(&bytes)?)?.then(|| id.to_owned()))
    }
}
