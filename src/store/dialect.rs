//! The whole difference between the two databases as far as records are concerned: PostgreSQL keeps the blind terms
//! of a row in an array with a GIN index and plans by statistics; SQLite has a posting table and is told where to start.

use super::apply::{Chunks, padded};
use super::db::{Conn, Db, Fault, Param, big_endian, placeholder_list, placeholders};

/// SQLite: `{}` are (term, rid) pairs.
pub const POSTINGS_INSERT: &str = "insert into posting (term, rid) values {} on conflict do nothing";
pub const POSTINGS_DELETE: &str = "delete from posting where (term, rid) in (values {})";

/// A segment with the terms that wait for the index; both statements of SQLite are one text, so that they cost one
/// exchange with its thread.
macro_rules! sqlite_audit_insert {
    () => {
        "insert into audit (month, instance, lane, seq, prev, commitment, sealed) values ($1, $2, $3, $4, $5, $6, $7) \
         returning n; \
         insert into audit_pending (n, instance, lane, terms) values (last_insert_rowid(), $2, $3, $8)"
    };
}
const POSTGRES_AUDIT_INSERT: &str = "with given as (insert into audit (month, instance, lane, seq, prev, commitment, \
     sealed) values ($1, $2, $3, $4, $5, $6, $7) returning n), waits as (insert into audit_pending (n, instance, lane, \
     terms) select n, $2, $3, $8 from given) select n from given";

/// Inserts a segment inside an open transaction; gives its number.
pub fn audit_insert(conn: &Conn) -> &'static str {
    match conn {
        Conn::Sqlite(_) => sqlite_audit_insert!(),
        Conn::Postgres(_) => POSTGRES_AUDIT_INSERT,
    }
}

/// The same as a transaction of its own. On SQLite one that fails stays open: the connection is to be closed.
pub fn audit_commit(conn: &Conn) -> &'static str {
    match conn {
        Conn::Sqlite(_) => concat!("begin immediate; ", sqlite_audit_insert!(), "; commit"),
        Conn::Postgres(_) => POSTGRES_AUDIT_INSERT,
    }
}

/// Rows of one statement.
const AUDIT_TERMS_MAX: usize = 256;

/// Puts (term, segment) pairs into the index of the trail, and takes segments off those that wait, as one transaction.
pub async fn index_audit(conn: &mut Conn, terms: &[(i64, i64)], done: &[i64]) -> Result<(), Fault> {
    conn.begin().await?;
    match conn {
        Conn::Sqlite(_) => {
            for chunk in Chunks::of(&padded(terms.to_vec(), AUDIT_TERMS_MAX), AUDIT_TERMS_MAX) {
                let values = placeholders(chunk.len(), 2, 0);
                let sql = format!("insert into audit_term (term, n) values {values} on conflict do nothing");
                let params = chunk.iter().flat_map(|(term, n)| [Param::Int(*term), Param::Int(*n)]).collect();
                conn.run(&sql, params).await?;
            }
        }
        Conn::Postgres(_) => {
            let sql = "insert into audit_term (term, n) select * from unnest($1::bigint[], $2::bigint[]) \
                       on conflict do nothing";
            let (terms, segments) = terms.iter().copied().unzip();
            conn.run(sql, vec![Param::List(terms), Param::List(segments)]).await?;
        }
    }
    if !done.is_empty() {
        let sql = format!("delete from audit_pending where {}", conn.list("n", 1));
        conn.run(&sql, vec![Param::List(done.to_vec())]).await?;
    }
    conn.commit().await
}

/// What narrows the rows of one type; everything in it must hold.
#[derive(Clone, Default, Hash)]
pub struct Narrowing {
    /// One of these blind id tokens.
    pub ids: Option<Vec<[u8; 16]>>,
    /// Under one of these surrogates, or with one of these terms.
    pub compartment: Option<(Vec<i64>, Vec<i64>)>,
    /// At least one term of every list.
    pub terms: Vec<Vec<i64>>,
    /// Rows without a year always stay.
    pub years: Option<(i16, i16)>,
}

/// A statement under construction; every value is bound.
pub struct Statement {
    pub sql: String,
    pub params: Vec<Param>,
}

impl Statement {
    /// The number of the placeholder of a value that is bound now.
    pub fn bind(&mut self, value: Param) -> usize {
        self.params.push(value);
        self.params.len()
    }

    pub fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }
}

/// SQLite: rows by their entries in the index of types, which holds the versions too.
const COVERED: &str = "record r indexed by record_type";

impl Narrowing {
    /// Whether anything but the type and the year narrows.
    pub fn is_selective(&self) -> bool {
        self.ids.is_some() || self.compartment.is_some() || !self.terms.is_empty()
    }

    /// `select COLUMNS from record r where ...`, open for further conditions. The first term list is where SQLite
    /// starts when nothing better narrows: put the shortest first.
    pub fn statement(&self, db: &Db, columns: &str, rtype: u16) -> Statement {
        self.over("record r", db, columns, rtype)
    }

    /// The same for row ids and versions alone. SQLite finds both in an index where one set of rows narrows: rows lie far
    /// apart, and its pages are read again after every commit.
    pub fn named(&self, db: &Db, rtype: u16) -> Statement {
        let one = self.ids.is_none() && self.terms.len() + usize::from(self.compartment.is_some()) == 1;
        let table = if one && !db.is_postgres() { COVERED } else { "record r" };
        self.over(table, db, "r.rid, r.ver", rtype)
    }

    fn over(&self, table: &str, db: &Db, columns: &str, rtype: u16) -> Statement {
        let mut statement = Statement { sql: format!("select {columns} from {table}"), params: Vec::new() };
        let rtype = statement.bind(Param::Int(rtype.into()));
        statement.push(" where r.deleted = 0");
        if db.is_postgres() {
            statement.push(&format!(" and r.rtype = ${rtype}"));
            self.postgres(&mut statement, db);
        } else {
            self.sqlite(&mut statement, db, rtype, table == COVERED);
        }
        if let Some((from, to)) = self.years {
            let from = statement.bind(Param::Int(from.into()));
            let to = statement.bind(Param::Int(to.into()));
            statement.push(&format!(" and (r.yr is null or r.yr between ${from} and ${to})"));
        }
        statement
    }

    fn push_ids(&self, statement: &mut Statement) {
        let Some(ids) = &self.ids else { return };
        let list = placeholder_list(ids.len(), statement.params.len());
        statement.push(&format!(" and r.id_token in ({list})"));
        statement.params.extend(ids.iter().map(|token| Param::Bytes(token.to_vec())));
    }

    fn postgres(&self, statement: &mut Statement, db: &Db) {
        self.push_ids(statement);
        if let Some((pks, terms)) = &self.compartment {
            let pks = statement.bind(Param::List(pks.clone()));
            let any = db.list("r.pk", pks);
            if terms.is_empty() {
                statement.push(&format!(" and {any}"));
            } else {
                let terms = statement.bind(Param::List(terms.clone()));
                statement.push(&format!(" and ({any} or r.terms && ${terms})"));
            }
        }
        for list in &self.terms {
            // One term: containment has the better estimate.
            let operator = if list.len() == 1 { "@>" } else { "&&" };
            let list = statement.bind(Param::List(list.clone()));
            statement.push(&format!(" and r.terms {operator} ${list}"));
        }
    }

    /// `+column` keeps SQLite from starting with that column's index.
    fn sqlite(&self, statement: &mut Statement, db: &Db, rtype: usize, covered: bool) {
        let mut driven = self.ids.is_some();
        statement.push(&match self.is_selective() && !driven && !covered {
            true => format!(" and +r.rtype = ${rtype}"),
            false => format!(" and r.rtype = ${rtype}"),
        });
        self.push_ids(statement);
        if let Some((pks, terms)) = &self.compartment {
            let pks = statement.bind(Param::List(pks.clone()));
            if driven {
                let has = has_term(db, statement, terms);
                statement.push(&format!(" and ({} or {has})", db.list("r.pk", pks)));
            } else {
                let terms = statement.bind(Param::List(terms.clone()));
                let term = db.list("term", terms);
                let own = format!("q.rtype = ${rtype} and q.deleted = 0 and {}", db.list("q.pk", pks));
                statement.push(&format!(
                    " and r.rid in (select q.rid from record q where {own} union select rid from posting where {term})"
                ));
            }
            driven = true;
        }
        for list in &self.terms {
            if driven {
                let has = has_term(db, statement, list);
                statement.push(&format!(" and {has}"));
            } else {
                let at = statement.bind(Param::List(list.clone()));
                statement.push(&format!(" and r.rid in (select rid from posting where {})", db.list("term", at)));
            }
            driven = true;
        }
    }
}

/// Terms that are looked for in the row itself.
const IN_ROW_MAX: usize = 64;

/// SQLite: whether a row has one of these terms. A few are looked for among those that the row lists: that is a tenth of
/// the cost of as many looks into the index. (Bytes that happen to be alike across two terms let through a row more, which
/// its capsule then decides.)
fn has_term(db: &Db, statement: &mut Statement, terms: &[i64]) -> String {
    if terms.is_empty() || terms.len() > IN_ROW_MAX {
        let at = statement.bind(Param::List(terms.to_vec()));
        return format!("exists (select 1 from posting p where p.rid = r.rid and {})", db.list("p.term", at));
    }
    let looks: Vec<String> = padded(terms.to_vec(), IN_ROW_MAX)
        .into_iter()
        .map(|term| format!("instr(r.terms, ${})", statement.bind(Param::Bytes(big_endian(&[term])))))
        .collect();
    format!("({})", looks.join(" or "))
}

/// A query that stops after `limit` rows in any order. SQLite plans a statement anew whenever a bound limit is bound
/// again: it stands in the text where few limits occur, and behind a plus (`limit +$3`) elsewhere. PostgreSQL must not
/// choose a plan because of the limit: the candidates come from a materialized set (a backward key scan was 18,000 times
/// slower).
pub fn first_rows(db: &Db, mut statement: Statement, limit: usize) -> Statement {
    statement.sql = match db.is_postgres() {
        true => format!("with c as materialized ({}) select * from c limit {limit}", statement.sql),
        false => format!("{} limit {limit}", statement.sql),
    };
    statement
}

/// Type and row of what has one of the terms `$2` or lies under one of the surrogates `$3`, without those of type `$1`.
pub fn referrers(postgres: bool, most: usize) -> String {
    let rows = "from record r where r.deleted = 0 and r.rtype <> $1 and";
    match postgres {
        // Not to be planned by the limit: see [`first_rows`].
        true => format!(
            "with c as materialized (select r.rtype, r.rid {rows} r.terms && $2), \
             d as materialized (select r.rtype, r.rid {rows} r.pk = any($3) limit {most}) \
             select rtype, rid from c union all select rtype, rid from d limit {most}"
        ),
        false => format!(
            "select r.rtype, r.rid {rows} r.rid in (select rid from posting where term in \
             (select value from json_each($2))) union all select r.rtype, r.rid {rows} r.pk in \
             (select value from json_each($3)) limit {most}"
        ),
    }
}

/// SQLite: how long a term list is, counted no further than `most`. None where the planner knows by itself.
pub fn posting_count(db: &Db, terms: &[i64], most: usize) -> Option<Statement> {
    if db.is_postgres() {
        return None;
    }
    let sql = format!("select count(*) from (select 1 from posting where {} limit {most})", db.list("term", 1));
    Some(Statement { sql, params: vec![Param::List(terms.to_vec())] })
}
