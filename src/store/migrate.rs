//! The migrations, embedded, applied in order under a lock. See `migrations/README.md`.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, SqlSafeStr as _, SqliteConnection};

use super::db::{Conn, Db, Fault};
use crate::error::{Error, Kind, Result};

/// Which of the two databases a set of migrations is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Data,
    Keys,
}

/// Number, name and text of one migration.
type Step = (i64, &'static str, &'static str);

macro_rules! step {
    ($number:literal, $folder:literal, $name:literal) => {
        ($number, $name, include_str!(concat!("../../migrations/", $folder, "/", $name, ".sql")))
    };
}

const SQLITE: &[Step] = &[
    step!(1, "sqlite", "0001_records"),
    step!(2, "sqlite", "0002_domain"),
    step!(3, "sqlite", "0003_audit"),
    step!(4, "sqlite", "0004_kv"),
    step!(6, "sqlite", "0006_version_log"),
    step!(9, "sqlite", "0009_kv_owner"),
    step!(10, "sqlite", "0010_search_parameter"),
    step!(11, "sqlite", "0011_kv_owner_order"),
    step!(12, "sqlite", "0012_record_versions"),
];
const POSTGRES: &[Step] = &[
    step!(1, "postgres", "0001_records"),
    step!(2, "postgres", "0002_domain"),
    step!(3, "postgres", "0003_audit"),
    step!(4, "postgres", "0004_kv"),
    step!(6, "postgres", "0006_version_log"),
    step!(9, "postgres", "0009_kv_owner"),
    step!(10, "postgres", "0010_search_parameter"),
    step!(11, "postgres", "0011_kv_owner_order"),
    step!(12, "postgres", "0012_record_versions"),
];
// Numbered apart from the data, so that one database given for both is refused.
const KEYS_SQLITE: &[Step] = &[step!(1001, "keys/sqlite", "0001_keys"), step!(1002, "keys/sqlite", "0002_destroyed")];
const KEYS_POSTGRES: &[Step] =
    &[step!(1001, "keys/postgres", "0001_keys"), step!(1002, "keys/postgres", "0002_destroyed")];

fn migrator(steps: &[Step]) -> Migrator {
    let migration = |&(number, name, sql): &Step| {
        let no_transaction = sql.starts_with("-- no-transaction");
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), no_transaction)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

/// How often, and after which pause, a connection is tried while another process makes the same new SQLite file:
/// the change to WAL mode does not wait for a lock as other statements do.
const CONNECTS_MAX: usize = 100;
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// The first connection of a process.
async fn connect(db: &Db) -> Result<Conn, Fault> {
    for _ in 1..CONNECTS_MAX {
        match db.connect().await {
            Err(Fault::Retry(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
            done => return done,
        }
    }
    db.connect().await
}

/// SQLite's migrator takes no lock of its own (PostgreSQL's takes an advisory one): one transaction around all steps
/// holds the write lock, so that of two processes the second finds the work done. No step may be `no-transaction`.
async fn on_sqlite(conn: &mut SqliteConnection, steps: &[Step]) -> Result<(), MigrateError> {
    let mut tx = conn.begin_with("begin immediate").await?;
    migrator(steps).run_direct(None, &mut *tx, false).await?;
    Ok(tx.commit().await?)
}

/// Brings the database to the version of this binary and leaves it alone when it is there already.
///
/// # Errors
/// `Kind::Unavailable` when the database is newer than the binary, was changed by hand, or is the other database.
pub async fn migrate(db: &Db, which: Which) -> Result<()> {
    let mut conn = connect(db).await?;
    conn.check_version().await?;
    let done = match (&mut conn, which) {
        (Conn::Sqlite(conn), Which::Data) => on_sqlite(conn, SQLITE).await,
        (Conn::Sqlite(conn), Which::Keys) => on_sqlite(conn, KEYS_SQLITE).await,
        (Conn::Postgres(conn), Which::Data) => migrator(POSTGRES).run_direct(None, conn, false).await,
        (Conn::Postgres(conn), Which::Keys) => migrator(KEYS_POSTGRES).run_direct(None, conn, false).await,
    };
    conn.close().await;
    done.map_err(|e| {
        Error::new(
            Kind::Unavailable,
            "The database could not be brought to the version of this server: it is newer, was changed by hand, \
             or the same database was given for data and keys.",
        )
        .caused_by(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_have_the_same_files() {
        let names = |steps: &[Step]| steps.iter().map(|(number, name, _)| (*number, *name)).collect::<Vec<_>>();
        assert_eq!(names(SQLITE), names(POSTGRES));
        assert_eq!(names(KEYS_SQLITE), names(KEYS_POSTGRES));
        for (folder, steps) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let files = std::fs::read_dir(path).expect("the folder").count();
            assert_eq!(files, steps.len(), "every file of {folder} is embedded");
        }
    }

    #[tokio::test]
    async fn running_again_changes_nothing_and_one_database_for_both_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = Db::parse(&format!("sqlite:{}/x.db", folder.path().display())).expect("a url");
        migrate(&db, Which::Data).await.expect("migrates");
        migrate(&db, Which::Data).await.expect("again");
        let refused = migrate(&db, Which::Keys).await.expect_err("the same database");
        assert_eq!(refused.kind, Kind::Unavailable);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn several_at_once_make_one_database() {
        for round in 0..5 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let url = format!("sqlite:{}/x.db", folder.path().display());
            let open = || {
                let db = Db::parse(&url).expect("a url");
                tokio::spawn(async move { migrate(&db, Which::Data).await })
            };
            let tasks: Vec<_> = (0..6).map(|_| open()).collect();
            for task in tasks {
                task.await.expect("no panic").unwrap_or_else(|e| panic!("round {round}: {e}"));
            }
        }
    }
}
