//! What a conditional write rests on: the rows that could satisfy its condition, as they were before it was looked at.
//! The writer compares them again inside its transaction, under a lock of the type, so that of two writes that rest on
//! the same nothing only one is kept. See `docs/adr/0013-premises.md`.

use super::Store;
use super::apply::Refusal;
use super::compartment::Home;
use super::db::{Conn, Fault, Param, Row};
use super::dialect::{self, Narrowing, Statement};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::search::Query;
use crate::search::narrow::{self, Narrow};
use crate::search::query::{Criterion, pending};

/// Rows that could satisfy one condition: they are counted inside the writer's transaction.
const CANDIDATES_MAX: usize = 10_000;

/// Namespace of the advisory locks of types on PostgreSQL, in the upper half of the key.
pub(super) const LOCKS: i64 = 0x5048_4941 << 32;

/// The rows that could satisfy a condition, and what they were.
#[derive(Clone)]
pub struct Premise {
    kind: TypeId,
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

impl Store {
    /// Notes what a condition rests on. To be called before the condition is searched for.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many rows could satisfy it, with advice.
    pub async fn premise(&self, query: &Query) -> Result<Premise> {
        let nothing = Premise { kind: query.kind, statement: None, seen: [0; 4] };
        // Chains and `_has` leave more rows over than could match, never fewer.
        let own = query.criteria.iter().filter(|criterion| pending(std::slice::from_ref(criterion)).is_none());
        let own: Vec<Criterion> = own.cloned().collect();
        let narrow = narrow::narrow(query.kind, &own, &self.inner.vault)?;
        if narrow.never {
            return Ok(nothing);
        }
        let narrowing = self.narrowing_of(query.kind, narrow).await?;
        let db = &self.inner.db;
        let rows = dialect::first_rows(db, narrowing.statement(db, "r.rid, r.ver", query.kind.0), CANDIDATES_MAX + 1);
        let Statement { sql, params } = rows;
        let sql = format!(
            "select count(*), cast(coalesce(sum(c.ver), 0) as bigint), \
             cast(coalesce(sum(c.rid % 1000000007), 0) as bigint), \
             cast(coalesce(sum(c.rid % 1000003 * (c.ver % 1000)), 0) as bigint) from ({sql}) as c"
        );
        let seen = read(&self.inner.readers.rows(&sql, params.clone()).await?)?;
        if seen[0] > CANDIDATES_MAX as i64 {
            let name = definitions().type_name(query.kind);
            let text = format!(
                "More than {CANDIDATES_MAX} {name} resources could satisfy the condition. Name an identifier, or \
                 another value that few have."
            );
            return Err(Error::new(Kind::TooCostly, text));
        }
        Ok(Premise { kind: query.kind, statement: Some((sql, params)), seen })
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
            let home = |id: String| Home::Patient(id).token(&self.inner.vault);
            let tokens: Vec<[u8; 16]> = patients.ids.into_iter().filter_map(home).collect();
            // Made where absent: rows of a patient who is new must not escape.
            let found = self.compartments_or_new(&tokens).await?;
            let pks: Vec<i64> = found.values().map(|surrogates| surrogates.of(kind).0).collect();
            narrowing.compartment =
                Some((pks, patients.terms)).filter(|(pks, terms)| !pks.is_empty() || !terms.is_empty());
        }
        narrowing.terms.retain(|list| !list.is_empty());
        Ok(narrowing)
    }
}

impl Premise {
    /// The number of its type: writes that rest on conditions of one type meet in one lane.
    pub fn kind(&self) -> u16 {
        self.kind.0
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
