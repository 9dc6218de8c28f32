//! `_text` and `_content`: the bodies of the candidates that everything else lets through are opened inside the store to
//! decide about them alone, like the older versions that a row filter has to judge (nothing of them leaves it). Only
//! sections of the grant are opened, so that nothing hidden can be guessed word by word.

use std::collections::HashSet;
use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{Shown, add_rows};
use crate::access::{Grant, Grants, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::json;
use crate::mapping::sections;
use crate::search::query::{Criterion, Wanted};
use crate::search::words::Words;
use crate::search::{Matcher, View};
use crate::store::sealed::Spot;
use crate::store::{Store, cores};
use crate::vault::{Keys, Rid};

/// Bodies that one search may look into.
const BODIES_MAX: usize = 1_000;
/// Bodies that are held at once.
const CHUNK: usize = 64;

impl Store {
    /// Puts the logical ids of what holds the words in the place of the criteria that ask for them.
    ///
    /// # Errors
    /// `Kind::TooCostly` when the other criteria leave more than 1,000 candidates.
    pub(super) async fn words(
        &self,
        grants: &Grants,
        grant: &Grant<Search>,
        criteria: &mut Vec<Criterion>,
    ) -> Result<()> {
        let asked: Vec<Vec<Words>> = criteria.iter().filter_map(asked).collect();
        if asked.is_empty() {
            return Ok(());
        }
        criteria.retain(|criterion| self::asked(criterion).is_none());
        let mut others = criteria.clone();
        add_rows(&mut others, grant);
        self.resolve(grants, &mut others).await?;
        let matcher = Matcher::new(others.clone())?;
        let judge: Judge<Rid> = Arc::new(|rid, _, _: &View<'_>| Ok(rid));
        let mut rids = Vec::new();
        let mut scan = Scan::open(self, grant, others, Rid(0), false).await?;
        while let Some(found) = scan.next(&judge).await? {
            rids.extend(found);
            if rids.len() > BODIES_MAX {
                let text = format!(
                    "'_text' and '_content' are looked for in at most {BODIES_MAX} resources. Narrow the search: add a \
                     patient, a code, a name or a date."
                );
                return Err(Error::new(Kind::TooCostly, text));
            }
        }
        let asked = Arc::new(asked);
        let mut ids = HashSet::new();
        for chunk in rids.chunks(CHUNK) {
            let shown = self.with_keys(grant, &matcher, chunk).await?;
            let asked = asked.clone();
            ids.extend(cores::run(move || holding(shown, &asked)).await?);
        }
        criteria.push(Criterion::IdIn(ids));
        Ok(())
    }
}

/// The words that a criterion asks for: one of them must hold.
fn asked(criterion: &Criterion) -> Option<Vec<Words>> {
    let Criterion::Param { any_of, .. } = criterion else { return None };
    let words = any_of.iter().map(|wanted| match wanted {
        Wanted::Words(words) => Some(words.clone()),
        _ => None,
    });
    words.collect::<Option<Vec<_>>>().filter(|words| !words.is_empty())
}

fn holding(shown: Vec<(Shown, Arc<Keys>)>, asked: &[Vec<Words>]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for (one, keys) in shown {
        let sealed = one.sealed;
        let spot = Spot { rid: sealed.rid, kind: sealed.header.kind, version: sealed.header.version };
        let opened = spot.open_sections(&keys, &sealed.bytes, |section| sealed.sections.allows(section))?;
        let node = json::parse(&sections::join(opened.sections, opened.left_out)?)?;
        if asked.iter().all(|any_of| any_of.iter().any(|words| words.hold(&node))) {
            ids.push(sealed.header.id);
        }
    }
    Ok(ids)
}
