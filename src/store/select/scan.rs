//! Walking the candidates of one search: the database narrows, capsules are opened and decided away from the request
//! threads, and what matches comes back chunk by chunk in the order of row ids (random and fixed: a stable order).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::access::{Grant, Rows, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::search::query::Criterion;
use crate::search::{Matcher, Narrow, View, terms};
use crate::store::compartment::Home;
use crate::store::db::{Param, Row};
use crate::store::dialect::{self, Narrowing, Statement};
use crate::store::sealed::{Mark, Spot};
use crate::store::{Store, cores};
use crate::vault::{Keys, Pk, Plain, Rid, Vault, Which};

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
    /// What is opened is kept for other searches, and what others opened is used. Not while the site has search
    /// parameters of its own: they change capsules without a new version.
    keeps: bool,
    /// The vault's mark of what it gave; None before it was asked.
    mark: Option<u64>,
}

enum Source {
    /// Few enough to have been fetched at once.
    Fetched(Vec<Candidate>),
    /// All of them, in order, yet to be fetched from the back where their capsules are not at hand.
    Listed(Vec<Named>),
    /// Every row of the type, in order, after this one.
    Walk(Rid),
    Exhausted,
}

/// Row and version.
type Named = [i64; 2];

struct Candidate {
    rid: Rid,
    ver: u32,
    capsule: Capsule,
}

enum Capsule {
    /// In a row of [`COLUMNS`], under a surrogate.
    Sealed(Row, Pk),
    /// Opened by an earlier search.
    Opened(Plain),
}

/// Candidates fetched in one go with their capsules before it is known whether there are more: few where others may have
/// opened them, and as many as are worth it where each is opened anyway.
const PROBE: usize = 32;
const PROBE_AFRESH: usize = 512;
const CHUNK_FIRST: usize = 128;
const CHUNK_MAX: usize = 1024;
/// Fewer than this are opened and decided where they are, and so many decided that are open.
const INLINE_MAX: usize = 32;
const INLINE_OPEN_MAX: usize = 512;
const COUNTED_MAX: usize = 5_000;

impl<'a> Scan<'a> {
    /// Starts. `criteria` must be resolved and hold the row filter of the grant already. `whole`: everything will be
    /// looked at, so a set over the limit is refused at once. A row filter decides about access, which nothing that was
    /// kept may do.
    ///
    /// # Errors
    /// `Kind::TooCostly` when there are more candidates than may be looked at.
    pub async fn open(
        store: &'a Store,
        grant: &Grant<Search>,
        criteria: Vec<Criterion>,
        after: Rid,
        whole: bool,
    ) -> Result<Scan<'a>> {
        let keeps = store.customs().all.is_empty() && matches!(grant.rows(), Rows::All);
        Scan::start(store, grant.kind(), criteria, (after, whole), keeps).await
    }

    /// As [`Scan::open`], of everything; every capsule is opened anew: what decides about access, or is answered from
    /// capsules alone, notices what was altered.
    pub async fn afresh(store: &'a Store, grant: &Grant<Search>, criteria: Vec<Criterion>) -> Result<Scan<'a>> {
        Scan::start(store, grant.kind(), criteria, (Rid(0), true), false).await
    }

    async fn start(
        store: &'a Store,
        kind: TypeId,
        criteria: Vec<Criterion>,
        (after, whole): (Rid, bool),
        keeps: bool,
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
            keeps,
            mark: None,
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
        let sealed: Vec<Pk> = rows.iter().filter_map(Candidate::sealed_by).collect();
        let inline = sealed.len() <= INLINE_MAX && rows.len() <= INLINE_OPEN_MAX;
        let keys = match sealed.is_empty() {
            true => Vec::new(),
            false => self.store.inner.vault.keys(&sealed).await?,
        };
        let chunk =
            Chunk { rows, keys, kind: self.kind, keeps: self.mark.map(|mark| (self.store.inner.vault.clone(), mark)) };
        let (matcher, judge) = (self.matcher.clone(), judge.clone());
        if inline {
            return chunk.decide(&matcher, &judge).map(Some);
        }
        let whole = self.chunk == CHUNK_MAX;
        let decided = cores::run(move || chunk.decide(&matcher, &judge));
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

    /// Fetches the candidates if they are few, and otherwise lists them.
    async fn probe(&mut self, whole: bool) -> Result<Source> {
        let inner = &self.store.inner;
        let db = &inner.db;
        let mut hasher = DefaultHasher::new();
        (self.kind, &self.narrowing).hash(&mut hasher);
        let of = hasher.finish();
        let probe = if self.keeps { PROBE } else { PROBE_AFRESH };
        if !self.keeps || !inner.broad.contains_key(&of) {
            let statement = self.narrowing.statement(db, COLUMNS, self.kind.0);
            let rows = self.rows(dialect::first_rows(db, statement, probe + 1), COLUMN_COUNT).await?;
            if rows.len() <= probe {
                let mut found = rows.into_iter().map(Candidate::read).collect::<Result<Vec<_>>>()?;
                self.candidates = Some(found.len());
                found.retain(|candidate| candidate.rid > self.after);
                found.sort_unstable_by_key(|candidate| candidate.rid);
                return Ok(Source::Fetched(found));
            }
            inner.broad.insert(of, ());
        }
        // One more than may be looked at, to know.
        let most = inner.candidates_max + 1;
        let mut statement = self.narrowing.named(db, self.kind.0);
        if !whole && self.after.0 > 0 {
            let after = statement.bind(Param::Int(self.after.0));
            statement.push(&format!(" and r.rid > ${after}"));
        }
        let Statement { sql, params } = dialect::first_rows(db, statement, most);
        let mut named: Vec<Named> = inner.readers.numbers(&sql, params).await?;
        if named.len() >= most {
            // A page in the order of row ids needs the smallest ones, not any.
            return if whole { Err(too_costly(most - 1)) } else { Ok(self.unlisted()) };
        }
        self.candidates = (whole || self.after.0 == 0).then_some(named.len());
        named.retain(|[rid, ..]| *rid > self.after.0);
        named.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Source::Listed(named))
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
            Source::Listed(mut named) => {
                let next = named.split_off(named.len().saturating_sub(self.chunk));
                let found = self.capsules(next).await?;
                if !named.is_empty() {
                    self.source = Source::Listed(named);
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

    /// The capsules of these rows: those that were opened lately as they are, the others fetched.
    async fn capsules(&mut self, named: Vec<Named>) -> Result<Vec<Candidate>> {
        let mut found = Vec::with_capacity(named.len());
        let mut missing = Vec::new();
        if self.keeps {
            // No version is 0: what is no version is fetched, and shows there.
            let which = |[rid, ver]: Named| (self.kind.0, Rid(rid), u32::try_from(ver).unwrap_or(0));
            let which: Vec<Which> = named.into_iter().map(which).collect();
            let (opened, mark) = self.store.inner.vault.opened(which.iter().copied()).await?;
            self.mark = Some(mark);
            for ((_, rid, ver), opened) in which.into_iter().zip(opened) {
                match opened {
                    Some(plain) => found.push(Candidate { rid, ver, capsule: Capsule::Opened(plain) }),
                    None => missing.push(rid.0),
                }
            }
        } else {
            missing.extend(named.into_iter().map(|[rid, _]| rid));
        }
        if !missing.is_empty() {
            let sql = format!(
                "select {COLUMNS} from record r where r.deleted = 0 and +r.rtype = $1 and {}",
                self.store.inner.db.list("r.rid", 2)
            );
            let params = vec![Param::Int(self.kind.0.into()), Param::List(missing)];
            for row in self.rows(Statement { sql, params }, COLUMN_COUNT).await? {
                found.push(Candidate::read(row)?);
            }
        }
        found.sort_unstable_by_key(|candidate| candidate.rid);
        Ok(found)
    }

    async fn rows(&self, statement: Statement, columns: usize) -> Result<Vec<Row>> {
        self.store.inner.readers.many(&statement.sql, columns, statement.params).await
    }
}

const COLUMNS: &str = "r.rid, r.pk, r.ver, r.capsule, r.yr, r.terms";
const COLUMN_COUNT: usize = 6;

impl Candidate {
    fn read(row: Row) -> Result<Candidate> {
        let (rid, pk, ver) = (Rid(row.int(0)?), Pk(row.int(1)?), row.small(2)?);
        Ok(Candidate { rid, ver, capsule: Capsule::Sealed(row, pk) })
    }

    /// Whose keys open it; None where it is open.
    fn sealed_by(&self) -> Option<Pk> {
        match self.capsule {
            Capsule::Sealed(_, pk) => Some(pk),
            Capsule::Opened(_) => None,
        }
    }

    fn open(&self, row: &Row, kind: TypeId, keys: &Keys) -> Result<Plain> {
        let spot = Spot { rid: self.rid, kind, version: self.ver };
        let mark = Mark::of_bytes(row.opt_int(4)?, &row.int_bytes(5)?);
        spot.open_capsule(keys, row.bytes(3)?, mark).map(Arc::new)
    }
}

/// Candidates to be decided.
struct Chunk {
    rows: Vec<Candidate>,
    /// Of those that are sealed, in their order.
    keys: Vec<Option<Arc<Keys>>>,
    kind: TypeId,
    /// Where what is opened is kept, and with what mark.
    keeps: Option<(Vault, u64)>,
}

impl Chunk {
    /// Opens every capsule, lets the matcher decide and takes what is wanted of each match.
    fn decide<T>(self, matcher: &Matcher, judge: &Judge<T>) -> Result<Vec<T>> {
        let (mut taken, mut opened) = (Vec::new(), Vec::new());
        let mut keys = self.keys.into_iter();
        for candidate in self.rows {
            let plain = match &candidate.capsule {
                Capsule::Opened(plain) => plain.clone(),
                Capsule::Sealed(row, _) => {
                    // A destroyed key: erased, so not there.
                    let Some(keys) = keys.next().flatten() else { continue };
                    let plain = candidate.open(row, self.kind, &keys)?;
                    opened.push(((self.kind.0, candidate.rid, candidate.ver), plain.clone()));
                    plain
                }
            };
            let view = View::new(&plain)?;
            if matcher.matches(&view)? {
                taken.push(judge(candidate.rid, candidate.ver, &view)?);
            }
        }
        metrics::counter!("phial_capsules_opened_total").increment(opened.len() as u64);
        if let Some((vault, mark)) = self.keeps {
            vault.keep_opened(opened.into_iter(), mark);
        }
        Ok(taken)
    }
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
