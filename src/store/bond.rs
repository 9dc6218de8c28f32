//! Which keys a database belongs to. With those of another installation, or with new ones in the place of a key database
//! that is not there, everything would seem to be absent, and what is written would be lost to the right keys: so the
//! database holds a mark that only its own keys open, and nothing is made where something must be restored.

use super::compartment::Surrogates;
use super::db::{Conn, Db, Fault, Param};
use crate::error::{Error, Kind, Result};
use crate::vault::{SystemKey, Vault};

const SPACE: &str = "keys";
/// The name of the mark is no secret, and may not follow from a key: it is looked for with whatever keys there are.
const TOKEN: &[u8; 16] = b"phial-key-bond-1";

/// Whether a server was ever started on this database. Makes nothing.
///
/// # Errors
/// `Kind::Unavailable` when it does not answer.
pub async fn is_used(url: &str) -> Result<bool> {
    any(url, "audit_instance").await
}

/// Whether this key database was ever given keys. Makes nothing.
///
/// # Errors
/// `Kind::Unavailable` when it does not answer.
pub async fn has_keys(url: &str) -> Result<bool> {
    any(url, "system_key").await
}

async fn any(url: &str, table: &str) -> Result<bool> {
    let db = Db::parse(url)?;
    if db.is_absent() {
        return Ok(false);
    }
    let mut conn = db.connect().await?;
    let found = any_row(&mut conn, table).await;
    conn.close().await;
    Ok(found?)
}

async fn any_row(conn: &mut Conn, table: &str) -> Result<bool, Fault> {
    let there = match conn {
        Conn::Sqlite(_) => "select 1 from sqlite_master where type = 'table' and name = $1",
        Conn::Postgres(_) => "select 1 from pg_class where oid = to_regclass($1)",
    };
    if conn.rows(there, vec![Param::Text(table.to_owned())]).await?.is_empty() {
        return Ok(false);
    }
    Ok(!conn.rows(&format!("select 1 from {table} limit 1"), Vec::new()).await?.is_empty())
}

/// Holds the database against the vault; the first server of a new one leaves the mark.
///
/// # Errors
/// `Kind::Unavailable` when it was sealed with other keys.
pub async fn check(conn: &mut Conn, vault: &Vault) -> Result<()> {
    let aad = [SPACE.as_bytes(), TOKEN].concat();
    let name = || vec![Param::Text(SPACE.to_owned()), Param::Bytes(TOKEN.to_vec())];
    let marks = conn.rows("select sealed from kv where space = $1 and token = $2", name()).await?;
    if let Some(mark) = marks.first() {
        return belongs(vault.open_system(SystemKey::Secret, &aad, mark.bytes(0)?).await);
    }
    // One of before there were marks, or whose mark was taken away.
    for row in conn.rows("select token, sealed from compartment limit 1", Vec::new()).await? {
        belongs(Surrogates::open(&row.array(0)?, row.bytes(1)?, vault).await)?;
    }
    let mut values = name();
    values.push(Param::Bytes(vault.seal_system(SystemKey::Secret, &aad, b"1").await?));
    let sql = "insert into kv (space, token, sealed) values ($1, $2, $3) on conflict do nothing";
    conn.run(sql, values).await?;
    Ok(())
}

fn belongs<T>(opened: Result<T>) -> Result<()> {
    match opened {
        Err(error) if error.kind == Kind::Tampered => {
            let text = "The database was sealed with other keys than those of this key database: do the settings \
                        database_url, key_database_url and keyring belong together? Nothing was written.";
            Err(Error::new(Kind::Unavailable, text).caused_by(error))
        }
        other => other.map(drop),
    }
}
