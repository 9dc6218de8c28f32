//! What a conditional write rests on: the rows that could satisfy its condition, as they were before it was looked at.
//! The writer compares them again inside its transaction, under a lock of the type, so that of two writes that rest on
//! the same nothing only one is kept. See `docs/adr/0013-premises.md`.

use super::Store;
use super::apply::Refusal;
use super::compartment::Home;
use super::db::{Conn, Fault, Param, Row};
use super::dialect::{self, Narrowing, Statement};
use crate::access::Grants;
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::search::Query;
use crate::search::narrow::{self, Narrow};
use crate::search::query::{Criterion, pending, supply};

/// Rows that could satisfy one condition: they are counted inside the writer's transaction.
const CANDIDATES_MAX: usize = 10_000;

/// Namespace of the advisory locks of types on PostgreSQL, in the upper half of the key.
pub(super) const LOCKS: i64 = 0x5048_4941 << 32;

/// The rows that could satisfy a condition, and what they were.
#[derive(Clone)]
pub struct Premise {
    kind: TypeId,
    /// Whether others that rest on conditions of the type are to wait: what is written could decide theirs.
    locks: bool,
    /// None: nothing can ever satisfy it.
    statement: Option<(String, Vec<Param>)>,
    seen: Digest,
}

/// Count and sums over row ids and versions: row ids are random, and a version is never used twice.
type Digest = [i64; 4];

fn read(rows: &[Row]) -> Result<Digest, Fault> {
    let row = rows.first().ok_or_else(|| Fault::Shape(sqlx::Error::RowNotFound))?;
    Ok([row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?])
}

/// Premises of one condition: one for each of its inner searches.
const PREMISES_MAX: usize = 20;

impl Store {
    /// Notes what a condition rests on: the rows that could satisfy it, and those that its chains and `_has` go by. To be
    /// called before the condition is searched for, with its sets of codes in place.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many rows could satisfy it, with advice; the errors of a search.
    pub async fn premises(&self, grants: &Grants, query: &Query) -> Result<Vec<Premise>> {
        let mut criteria = query.criteria.clone();
        let mut all = Vec::new();
        while let Some(inner) = pending(&criteria) {
            if all.len() >= PREMISES_MAX {
                let text = format!("The condition needs more than {PREMISES_MAX} inner searches. Make it narrower.");
                return Err(Error::new(Kind::TooCostly, text));
            }
            let premise = self.premise(inner.kind, std::slice::from_ref(inner.criterion)).await?;
            all.push(premise);
            let ids = self.inner_search(grants, &inner).await?;
            if !supply(&mut criteria, ids) {
                return Err(Error::internal("an inner search had no place for its answer"));
            }
        }
        all.push(Premise { locks: true, ..self.premise(query.kind, &criteria).await? });
        Ok(all)
    }

    /// The same for resolved criteria, for what is only looked at: nobody has to wait for it.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many rows could satisfy them, with advice.
    pub async fn premise(&self, kind: TypeId, criteria: &[Criterion]) -> Result<Premise> {
        let nothing = Premise { kind, locks: false, statement: None, seen: [0; 4] };
        let narrow = narrow::narrow(kind, criteria, &self.inner.vault)?;
        if narrow.never {
            return Ok(nothing);
        }
        let narrowing = self.narrowing_of(kind, narrow).await?;
        let db = &self.inner.db;
        let rows = dialect::first_rows(db, narrowing.statement(db, "r.rid, r.ver", kind.0), CANDIDATES_MAX + 1);
        let Statement { sql, params } = rows;
        let sql = format!(
            "select count(*), cast(coalesce(sum(c.ver), 0) as bigint), \
             cast(coalesce(sum(c.rid % 1000000007), 0) as bigint), \
             cast(coalesce(sum(c.rid % 1000003 * (c.ver % 1000)), 0) as bigint) from ({sql}) as c"
        );
        let seen = read(&self.inner.readers.rows(&sql, params.clone()).await?)?;
        if seen[0] > CANDIDATES_MAX as i64 {
            let name = definitions().type_name(kind);
            let text = format!(
                "More than {CANDIDATES_MAX} {name} resources could satisfy the condition. Name an identifier, or \
                 another value that few have."
            );
            return Err(Error::new(Kind::TooCostly, text));
        }
        Ok(Premise { statement: Some((sql, params)), seen, ..nothing })
    }

    async fn narrowing_of(&self, kind: TypeId, narrow: Narrow) -> Result<Narrowing> {
        let mut narrowing = Narrowing { terms: narrow.terms, years: narrow.years, ..Narrowing::default() };
        if let Some(ids) = narrow.ids {
            let mut tokens: Vec<[u8; 16]> = ids.iter().map(|id| self.id_token(kind, id)).collect();
            tokens.sort_unstable();
            tokens.dedup();
            narrowing.ids = Some(tokens).filter(|tokens| !tokens.is_empty());
        }
        if let Some(patients) = narrow.patients {
            let homes: Vec<Home> = patients.ids.into_iter().map(Home::Patient).collect();
            // Made where absent: rows of a patient who is new must not escape.
            let found = self.compartments_or_new(&homes).await?;
            let pks: Vec<i64> = found.values().map(|surrogates| surrogates.of(kind).0).collect();
            narrowing.compartment =
                Some((pks, patients.terms)).filter(|(pks, terms)| !pks.is_empty() || !terms.is_empty());
        }
        narrowing.terms.retain(|list| !list.is_empty());
        Ok(narrowing)
    }
}

impl Premise {
    /// The number of the type whose lock it takes: such writes of one type meet in one lane.
    pub fn locks(&self) -> Option<u16> {
        self.locks.then_some(self.kind.0)
    }

    /// The same for a condition that decides what is referred to, not what is written.
    pub fn looks_only(self) -> Premise {
        Premise { locks: false, ..self }
    }

    /// Whether there was no row that could satisfy the condition, for any caller.
    pub fn is_empty(&self) -> bool {
        self.seen[0] == 0
    }

    /// Takes the locks of these types, which are held to the end of the transaction. SQLite has one writer.
    pub async fn lock(conn: &mut Conn, mut kinds: Vec<u16>) -> Result<(), Fault> {
        if matches!(conn, Conn::Sqlite(_)) {
            return Ok(());
        }
        // One order for everybody, and before anything else: nobody waits for a lock while others wait for their rows.
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let key = Param::Int(LOCKS | i64::from(kind));
            conn.rows("select pg_advisory_xact_lock($1)", vec![key]).await?;
        }
        Ok(())
    }

    /// Whether the rows are what they were, inside the open transaction.
    pub async fn check(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let Some((sql, params)) = &self.statement else { return Ok(()) };
        let now = read(&conn.rows(sql, params.clone()).await?)?;
        if now == self.seen {
            return Ok(());
        }
        let text = "What the condition of the request matches was changed by another request at the same time.";
        Err(Refusal::Conflict(Error::new(Kind::Conflict, text)))
    }
}
