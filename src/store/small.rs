//! Small durable changes beside records: counters, compartments, keyed values of other rooms. They ride in the same
//! group commits as everything else.

use super::apply::{CONSENT_EPOCH, Chunks, DOMAIN_TABLES, NEXT_CONSENT_EPOCH, padded};
use super::db::{Conn, Fault, Param, placeholder_list, placeholders};
use super::dialect;
use crate::vault::Pk;
use crate::world::Instant;

/// One small change.
pub enum Small {
    /// The next number of a counter.
    Count(&'static str),
    /// Inserts those compartments that are absent; answers with what stands for all of them.
    Compartments(Vec<Sealed16>),
    KvPut {
        space: &'static str,
        token: Vec<u8>,
        sealed: Vec<u8>,
        life: Life,
    },
    /// Changes a value if it is still the one that was read.
    KvSwap {
        space: &'static str,
        token: Vec<u8>,
        old: Vec<u8>,
        sealed: Vec<u8>,
        expires: Option<Instant>,
    },
    /// Inserts unless it is there and has not expired.
    KvInsertNew {
        space: &'static str,
        token: Vec<u8>,
        sealed: Vec<u8>,
        life: Life,
        now: Instant,
    },
    KvDelete {
        space: &'static str,
        token: Vec<u8>,
    },
    /// Deletes everything of an owner in a space.
    KvDeleteOwned {
        space: &'static str,
        owner: Vec<u8>,
    },
    KvExpire {
        now: Instant,
    },
    /// Empties some rows of a surrogate whose key is destroyed; answers with how many. None: there are no more.
    Forget {
        pk: Pk,
    },
}

/// How long a value stands, and whose it is.
#[derive(Clone, Default)]
pub struct Life {
    /// None: for good.
    pub expires: Option<Instant>,
    /// Blind token of the owner, by which all that is theirs is found.
    pub owner: Option<Vec<u8>>,
}

/// A blind token and something sealed.
pub type Sealed16 = ([u8; 16], Vec<u8>);

/// What a small change gave.
pub enum SmallAnswer {
    Number(u64),
    Standing(Vec<Sealed16>),
    /// Rows touched.
    Touched(u64),
}

const ROWS_MAX: usize = 64;
const POSTINGS_MAX: usize = 256;
/// Rows emptied in one transaction.
const FORGET_MAX: i64 = 256;

impl Small {
    /// Runs inside the open transaction.
    pub async fn run(&self, conn: &mut Conn) -> Result<SmallAnswer, Fault> {
        match self {
            Small::Count(name) => count(conn, name).await,
            Small::Compartments(rows) => compartments(conn, rows).await,
            Small::KvPut { space, token, sealed, life } => {
                let sql = "insert into kv (space, token, sealed, expires, owner) values ($1, $2, $3, $4, $5) \
                           on conflict (space, token) do update set sealed = excluded.sealed, \
                           expires = excluded.expires, owner = excluded.owner";
                let params = vec![
                    text(space),
                    Param::Bytes(token.clone()),
                    Param::Bytes(sealed.clone()),
                    Param::OptInt(life.expires.map(|at| at.0)),
                    Param::OptBytes(life.owner.clone()),
                ];
                Ok(SmallAnswer::Touched(conn.run(sql, params).await?))
            }
            Small::KvSwap { space, token, old, sealed, expires } => {
                let sql = "update kv set sealed = $4, expires = $5 where space = $1 and token = $2 and sealed = $3";
                let params = vec![
                    text(space),
                    Param::Bytes(token.clone()),
                    Param::Bytes(old.clone()),
                    Param::Bytes(sealed.clone()),
                    Param::OptInt(expires.map(|at| at.0)),
                ];
                Ok(SmallAnswer::Touched(conn.run(sql, params).await?))
            }
            Small::KvInsertNew { space, token, sealed, life, now } => {
                let sql = "insert into kv (space, token, sealed, expires, owner) values ($1, $2, $3, $4, $5) \
                           on conflict (space, token) do update set sealed = excluded.sealed, \
                           expires = excluded.expires, owner = excluded.owner where kv.expires < $6";
                let params = vec![
                    text(space),
                    Param::Bytes(token.clone()),
                    Param::Bytes(sealed.clone()),
                    Param::OptInt(life.expires.map(|at| at.0)),
                    Param::OptBytes(life.owner.clone()),
                    Param::Int(now.0),
                ];
                Ok(SmallAnswer::Touched(conn.run(sql, params).await?))
            }
            Small::KvDeleteOwned { space, owner } => {
                let sql = "delete from kv where space = $1 and owner = $2";
                Ok(SmallAnswer::Touched(conn.run(sql, vec![text(space), Param::Bytes(owner.clone())]).await?))
            }
            Small::KvDelete { space, token } => {
                let sql = "delete from kv where space = $1 and token = $2";
                let params = vec![text(space), Param::Bytes(token.clone())];
                Ok(SmallAnswer::Touched(conn.run(sql, params).await?))
            }
            Small::KvExpire { now } => {
                let sql = "delete from kv where expires is not null and expires < $1";
                Ok(SmallAnswer::Touched(conn.run(sql, vec![Param::Int(now.0)]).await?))
            }
            Small::Forget { pk } => forget(conn, *pk).await,
        }
    }
}

/// The row stays where it is, with its id and its versions, which are on record; it is found by nothing any more.
async fn forget(conn: &mut Conn, pk: Pk) -> Result<SmallAnswer, Fault> {
    let sql = "select rid, terms from record where pk = $1 and deleted = 0 order by rid limit $2";
    let rows = conn.rows(sql, vec![Param::Int(pk.0), Param::Int(FORGET_MAX)]).await?;
    let mut rids = Vec::with_capacity(rows.len());
    let mut postings = Vec::new();
    for row in &rows {
        let rid = row.int(0)?;
        postings.extend(row.ints(1)?.into_iter().map(|term| (term, rid)));
        rids.push(rid);
    }
    if matches!(conn, Conn::Sqlite(_)) {
        for chunk in Chunks::of(&padded(postings, POSTINGS_MAX), POSTINGS_MAX) {
            let params = chunk.iter().flat_map(|(term, rid)| [Param::Int(*term), Param::Int(*rid)]).collect();
            conn.run(&dialect::POSTINGS_DELETE.replace("{}", &placeholders(chunk.len(), 2, 0)), params).await?;
        }
    }
    for chunk in Chunks::of(&rids, ROWS_MAX) {
        let named = chunk.iter().map(|rid| Param::Int(*rid));
        let list = placeholder_list(chunk.len(), 0);
        for table in DOMAIN_TABLES.into_iter().chain(["claim"]) {
            conn.run(&format!("delete from {table} where rid in ({list})"), named.clone().collect()).await?;
        }
        let list = placeholder_list(chunk.len(), 2);
        let sql = format!("update record set deleted = 1, yr = null, capsule = $1, terms = $2 where rid in ({list})");
        let empty = [Param::Bytes(Vec::new()), Param::Ints(Vec::new())];
        conn.run(&sql, empty.into_iter().chain(named).collect()).await?;
    }
    if !rids.is_empty() {
        conn.run(NEXT_CONSENT_EPOCH, vec![text(CONSENT_EPOCH)]).await?;
    }
    Ok(SmallAnswer::Touched(rids.len() as u64))
}

fn text(of: &str) -> Param {
    Param::Text(of.to_owned())
}

async fn count(conn: &mut Conn, name: &str) -> Result<SmallAnswer, Fault> {
    let sql = "insert into counter (name, n) values ($1, 1) on conflict (name) do update set n = counter.n + 1 \
               returning n";
    let rows = conn.rows(sql, vec![text(name)]).await?;
    let row = rows.first().ok_or_else(|| Fault::Shape(sqlx::Error::RowNotFound))?;
    Ok(SmallAnswer::Number(row.int(0)?.cast_unsigned()))
}

async fn compartments(conn: &mut Conn, rows: &[Sealed16]) -> Result<SmallAnswer, Fault> {
    // One order for everybody, so that two writers never wait for each other in a circle.
    let mut sorted: Vec<&Sealed16> = rows.iter().collect();
    sorted.sort_unstable();
    let mut standing = Vec::with_capacity(rows.len());
    for chunk in Chunks::of(&sorted, ROWS_MAX) {
        let sql = format!(
            "insert into compartment (token, sealed) values {} on conflict do nothing",
            placeholders(chunk.len(), 2, 0)
        );
        let params =
            chunk.iter().flat_map(|(token, sealed)| [Param::Bytes(token.to_vec()), Param::Bytes(sealed.clone())]);
        conn.run(&sql, params.collect()).await?;
        let tokens = chunk.iter().map(|(token, _)| Param::Bytes(token.to_vec())).collect();
        for row in conn.rows(&select_compartments(chunk.len()), tokens).await? {
            standing.push((row.array(0)?, row.bytes(1)?.to_vec()));
        }
    }
    Ok(SmallAnswer::Standing(standing))
}

/// The query for so many tokens.
pub fn select_compartments(count: usize) -> String {
    format!("select token, sealed from compartment where token in ({})", placeholder_list(count, 0))
}
