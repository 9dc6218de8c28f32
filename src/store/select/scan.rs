//! Walking the candidates of one search: the database narrows, capsules are opened and decided away from the request
//! threads, and what matches comes back chunk by chunk in the order of row ids (random and fixed: a stable order).

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::search::query::Criterion;
use crate::search::{Matcher, Narrow, View, terms};
use crate::store::compartment::Home;
use crate::store::db::{Param, Row};
use crate::store::dialect::{self, Narrowing, Statement};
use crate::store::sealed::{Mark, Spot};
use crate::store::{Store, cores};
use crate::vault::{Keys, Pk, Rid};

/// What to take from a match: called with its row, version and opened capsule.
pub type Judge<T> = Arc<dyn Fn(Rid, u32, &View<'_>) -> Result<T> + Send + Sync>;

/// A search under way.
pub struct Scan<'a> {
    store: &'a Store,
    kind: TypeId,
    narrowing: Narrowing,
    matcher: Matcher,
    source: Source,
    /// Rows up to here are left out.
    after: Rid,
    /// Candidates looked at so far.
    pub examined: usize,
    /// Candidates there are, where that is known.
    pub candidates: Option<usize>,
    chunk: usize,
    /// Fetched while the chunk before was decided.
    ahead: Option<Vec<Candidate>>,
}

enum Source {
    /// Few enough to have been fetched at once.
    Fetched(Vec<Candidate>),
    /// All row ids, in order, yet to be fetched from the back.
    Listed(Vec<i64>),
    /// Every row of the type, in order, after this one.
    Walk(Rid),
    Exhausted,
}

struct Candidate {
    rid: Rid,
    pk: Pk,
    /// [`COLUMNS`].
    row: Row,
}

/// Candidates fetched in one go with their capsules before it is known whether there are more.
const PROBE: usize = 512;
const CHUNK_FIRST: usize = 128;
const CHUNK_MAX: usize = 1024;
/// Fewer than this are decided where they are.
const INLINE_MAX: usize = 32;
const COUNTED_MAX: usize = 5_000;

impl<'a> Scan<'a> {
    /// Starts. `criteria` must be resolved and hold the row filter of the grant already. `whole`: everything will be
    /// looked at, so a set over the limit is refused at once.
    ///
    /// # Errors
    /// `Kind::TooCostly` when there are more candidates than may be looked at.
    pub async fn open(
        store: &'a Store,
        kind: TypeId,
        criteria: Vec<Criterion>,
        after: Rid,
        whole: bool,
    ) -> Result<Scan<'a>> {
        let narrow = terms::narrow(kind, &criteria, &store.inner.vault)?;
        let matcher = Matcher::new(criteria)?;
        let chunk = if whole { CHUNK_MAX } else { CHUNK_FIRST };
        let (narrowing, source) = (Narrowing::default(), Source::Exhausted);
        let mut scan = Scan {
            store,
            kind,
            narrowing,
            matcher,
            source,
            after,
            examined: 0,
            candidates: Some(0),
            chunk,
            ahead: None,
        };
        let Some(narrowing) = scan.narrowing(narrow).await? else { return Ok(scan) };
        scan.narrowing = narrowing;
        scan.source = if scan.narrowing.is_selective() {
            scan.probe(whole).await?
        } else {
            scan.candidates = None;
            Source::Walk(after)
        };
        Ok(scan)
    }

    /// The next matches, in the order of row ids; None when there are no more.
    ///
    /// # Errors
    /// `Kind::TooCostly` when the limit of candidates is passed; `Kind::Tampered` when a capsule does not verify.
    pub async fn next<T: Send + 'static>(&mut self, judge: &Judge<T>) -> Result<Option<Vec<T>>> {
        let rows = match self.ahead.take() {
            Some(rows) => rows,
            None => self.fetch().await?,
        };
        if rows.is_empty() {
            return Ok(None);
        }
        self.examined += rows.len();
        if self.examined > self.store.inner.candidates_max {
            return Err(too_costly(self.store.inner.candidates_max));
        }
        let pks: Vec<Pk> = rows.iter().map(|row| row.pk).collect();
        let keys = self.store.inner.vault.keys(&pks).await?;
        let (kind, matcher, judge) = (self.kind, self.matcher.clone(), judge.clone());
        if rows.len() <= INLINE_MAX {
            return decide(rows, keys, kind, &matcher, &judge).map(Some);
        }
        let whole = self.chunk == CHUNK_MAX;
        let decided = cores::run(move || decide(rows, keys, kind, &matcher, &judge));
        self.chunk = (self.chunk * 4).min(CHUNK_MAX);
        if !whole {
            return decided.await.map(Some);
        }
        let (decided, ahead) = tokio::try_join!(decided, self.fetch())?;
        self.ahead = Some(ahead);
        Ok(Some(decided))
    }

    /// How many candidates there are in all (counted by the database where it is not known yet).
    pub async fn count(&self) -> Result<u64> {
        if let Some(known) = self.candidates {
            return Ok(known as u64);
        }
        let statement = self.narrowing.statement(&self.store.inner.db, "count(*)", self.kind.0);
        let rows = self.store.inner.readers.rows(&statement.sql, statement.params).await?;
        Ok(rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0).cast_unsigned())
    }

    /// Plaintext narrowing to what the database understands; None: nothing can match.
    async fn narrowing(&self, narrow: Narrow) -> Result<Option<Narrowing>> {
        if narrow.never {
            return Ok(None);
        }
        let store = self.store;
        let mut narrowing = Narrowing { terms: narrow.terms, years: narrow.years, ..Narrowing::default() };
        if let Some(ids) = narrow.ids {
            let mut tokens: Vec<[u8; 16]> = ids.iter().map(|id| store.id_token(self.kind, id)).collect();
            tokens.sort_unstable();
            tokens.dedup();
            narrowing.ids = Some(tokens);
        }
        if let Some(patients) = narrow.patients {
            let homes: Vec<Home> = patients.ids.into_iter().map(Home::Patient).collect();
            let found = store.compartments_of(&homes).await?;
            let pks = found.values().map(|surrogates| surrogates.of(self.kind).0).collect();
            narrowing.compartment = Some((pks, patients.terms));
        }
        let empty = |list: &Vec<i64>| list.is_empty();
        let nobody = |(pks, terms): &(Vec<i64>, Vec<i64>)| pks.is_empty() && terms.is_empty();
        if narrowing.ids.as_ref().is_some_and(Vec::is_empty)
            || narrowing.terms.iter().any(empty)
            || narrowing.compartment.as_ref().is_some_and(nobody)
        {
            return Ok(None);
        }
        self.shortest_first(&mut narrowing).await?;
        Ok(Some(narrowing))
    }

    async fn shortest_first(&self, narrowing: &mut Narrowing) -> Result<()> {
        if narrowing.terms.len() < 2 || narrowing.ids.is_some() || narrowing.compartment.is_some() {
            return Ok(());
        }
        let mut counted = Vec::with_capacity(narrowing.terms.len());
        for list in std::mem::take(&mut narrowing.terms) {
            let rows = match dialect::posting_count(&self.store.inner.db, &list, COUNTED_MAX) {
                Some(statement) => self.store.inner.readers.rows(&statement.sql, statement.params).await?,
                None => Vec::new(),
            };
            counted.push((rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0), list));
        }
        counted.sort_by_key(|(count, _)| *count);
        narrowing.terms = counted.into_iter().map(|(_, list)| list).collect();
        Ok(())
    }

    /// Fetches the candidates if they are few, and otherwise lists their row ids.
    async fn probe(&mut self, whole: bool) -> Result<Source> {
        let db = &self.store.inner.db;
        let statement = self.narrowing.statement(db, COLUMNS, self.kind.0);
        let rows = self.rows(dialect::first_rows(db, statement, PROBE + 1), COLUMN_COUNT).await?;
        if rows.len() <= PROBE {
            let mut found = rows.into_iter().map(Candidate::read).collect::<Result<Vec<_>>>()?;
            self.candidates = Some(found.len());
            found.retain(|candidate| candidate.rid > self.after);
            found.sort_unstable_by_key(|candidate| candidate.rid);
            return Ok(Source::Fetched(found));
        }
        // One more than may be looked at, to know.
        let most = self.store.inner.candidates_max + 1;
        let mut statement = self.narrowing.statement(db, "r.rid", self.kind.0);
        if !whole && self.after.0 > 0 {
            let after = statement.bind(Param::Int(self.after.0));
            statement.push(&format!(" and r.rid > ${after}"));
        }
        let rows = self.rows(dialect::first_rows(db, statement, most), 1).await?;
        let mut rids = rows.iter().map(|row| Ok(row.int(0)?)).collect::<Result<Vec<i64>>>()?;
        if rids.len() >= most {
            // A page in the order of row ids needs the smallest ones, not any.
            return if whole { Err(too_costly(most - 1)) } else { Ok(self.unlisted()) };
        }
        self.candidates = (whole || self.after.0 == 0).then_some(rids.len());
        rids.retain(|rid| *rid > self.after.0);
        rids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Source::Listed(rids))
    }

    /// More candidates than may be listed: walk them in order, as far as the limit goes.
    fn unlisted(&mut self) -> Source {
        self.candidates = None;
        Source::Walk(self.after)
    }

    async fn fetch(&mut self) -> Result<Vec<Candidate>> {
        match std::mem::replace(&mut self.source, Source::Exhausted) {
            Source::Exhausted => Ok(Vec::new()),
            Source::Fetched(rows) => Ok(rows),
            Source::Listed(mut rids) => {
                let next: Vec<i64> = rids.split_off(rids.len().saturating_sub(self.chunk));
                let sql = format!(
                    "select {COLUMNS} from record r where r.deleted = 0 and +r.rtype = $1 and {}",
                    self.store.inner.db.list("r.rid", 2)
                );
                let params = vec![Param::Int(self.kind.0.into()), Param::List(next)];
                let rows = self.rows(Statement { sql, params }, COLUMN_COUNT).await?;
                let mut found = rows.into_iter().map(Candidate::read).collect::<Result<Vec<_>>>()?;
                found.sort_unstable_by_key(|candidate| candidate.rid);
                if !rids.is_empty() {
                    self.source = Source::Listed(rids);
                    if found.is_empty() {
                        // Everything of this chunk was deleted meanwhile: an empty chunk would read as the end.
                        return Box::pin(self.fetch()).await;
                    }
                }
                Ok(found)
            }
            Source::Walk(last) => {
                let mut statement = self.narrowing.statement(&self.store.inner.db, COLUMNS, self.kind.0);
                let after = statement.bind(Param::Int(last.0));
                statement.push(&format!(" and r.rid > ${after} order by r.rid limit {}", self.chunk));
                let rows = self.rows(statement, COLUMN_COUNT).await?;
                let found = rows.into_iter().map(Candidate::read).collect::<Result<Vec<_>>>()?;
                if found.len() == self.chunk
                    && let Some(last) = found.last()
                {
                    self.source = Source::Walk(last.rid);
                }
                Ok(found)
            }
        }
    }

    async fn rows(&self, statement: Statement, columns: usize) -> Result<Vec<Row>> {
        self.store.inner.readers.many(&statement.sql, columns, statement.params).await
    }
}

const COLUMNS: &str = "r.rid, r.pk, r.ver, r.capsule, r.yr, r.terms";
const COLUMN_COUNT: usize = 6;

impl Candidate {
    fn read(row: Row) -> Result<Candidate> {
        Ok(Candidate { rid: Rid(row.int(0)?), pk: Pk(row.int(1)?), row })
    }

    fn version(&self) -> Result<u32> {
        Ok(self.row.small(2)?)
    }

    fn open(&self, kind: TypeId, keys: &Keys) -> Result<Zeroizing<Vec<u8>>> {
        let spot = Spot { rid: self.rid, kind, version: self.version()? };
        let mark = Mark::of_bytes(self.row.opt_int(4)?, &self.row.int_bytes(5)?);
        spot.open_capsule(keys, self.row.bytes(3)?, mark)
    }
}

/// Opens every capsule, lets the matcher decide and takes what is wanted of each match.
fn decide<T>(
    rows: Vec<Candidate>,
    keys: Vec<Option<Arc<Keys>>>,
    kind: TypeId,
    matcher: &Matcher,
    judge: &Judge<T>,
) -> Result<Vec<T>> {
    let mut taken = Vec::new();
    for (row, keys) in rows.into_iter().zip(keys) {
        // A destroyed key: erased, so not there.
        let Some(keys) = keys else { continue };
        let plain = row.open(kind, &keys)?;
        let view = View::new(&plain)?;
        if matcher.matches(&view)? {
            taken.push(judge(row.rid, row.version()?, &view)?);
        }
    }
    metrics::counter!("phial_capsules_opened_total").increment(taken.len() as u64);
    Ok(taken)
}

pub fn too_costly(most: usize) -> Error {
    Error::new(
        Kind::TooCostly,
        format!(
            "The search would have to look at more than {most} resources. Narrow it: add a patient, a code, an \
             identifier, a name or a year, or leave out _sort and _total."
        ),
    )
}
