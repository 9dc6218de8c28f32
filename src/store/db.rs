//! A thin layer over the two databases, so that every SQL text is written once, with `$1`, and runs on both. The only
//! file that builds statements from strings: they are made of fixed fragments, and every value is bound.
//! Must not know what is stored.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Row as _};

use super::packed::PackedRow;
use crate::error::{Error, Kind, Result};

/// Which database, and how to connect to it.
#[derive(Clone)]
pub enum Db {
    Sqlite(SqliteConnectOptions),
    Postgres(PgConnectOptions),
}

/// One connection. Whoever holds it alone decides its transactions.
pub enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reads whose best plan depends on the values.
    Search,
    /// Reads by key: the plan is always the same.
    Lookup,
    /// Writes, all of them by key.
    Keyed,
}

/// A bound value.
#[derive(Clone)]
pub enum Param {
    Int(i64),
    OptInt(Option<i64>),
    Bytes(Vec<u8>),
    OptBytes(Option<Vec<u8>>),
    Text(String),
    /// An array on PostgreSQL; on SQLite a blob of big-endian numbers.
    Ints(Vec<i64>),
    /// For `column in (list)` (see [`Db::list`]): an array on PostgreSQL, JSON on SQLite.
    List(Vec<i64>),
}

/// One row of an answer.
pub enum Row {
    Sqlite(SqliteRow),
    /// Of SQLite, one of many that came as one value.
    Packed(PackedRow),
    Postgres(PgRow),
}

/// A statement failed.
pub enum Fault {
    /// Deadlock or serialization failure: the same work may succeed when done again.
    Retry(sqlx::Error),
    /// The connection is gone or never came about.
    Lost(sqlx::Error),
    /// A row is not of the shape the schema gives it.
    Shape(sqlx::Error),
    /// Not the database's: what was to be written could not be sealed.
    Sealing(Error),
    Other(sqlx::Error),
}

/// SQLite drops a memory map (and its page cache) whenever another connection has committed, and every read here
/// comes with a commit: mapping again costs more than reading.
const MMAP_BYTES: &str = "0";
/// Pages that a SQLite connection keeps, in KiB (a negative `cache_size`): it bounds what each may hold.
const PAGE_CACHE: &str = "-2048";
/// The same for the one writer, whose pages nobody else's commits take away: the indices it writes to stay in memory.
const WRITER_PAGE_CACHE: &str = "-32768";
const STATEMENTS_CACHED: usize = 256;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds after which PostgreSQL gives up on one statement.
const STATEMENT_TIMEOUT_MS: &str = "60000";
/// PostgreSQL 15, as `server_version_num` says it.
const POSTGRES_MIN: i64 = 150_000;

impl Db {
    /// `sqlite:PATH` or `postgres://...`.
    ///
    /// # Errors
    /// `Kind::Invalid` when the URL is neither.
    pub fn parse(url: &str) -> Result<Db> {
        let wrong = |e: sqlx::Error| Error::invalid("The database URL cannot be read.").caused_by(e);
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(wrong)?;
            return Ok(Db::Postgres(
                options
                    .application_name("phial")
                    .statement_cache_capacity(STATEMENTS_CACHED)
                    .options([
                        ("plan_cache_mode", "force_custom_plan"),
                        ("synchronous_commit", "on"),
                        ("statement_timeout", STATEMENT_TIMEOUT_MS),
                        ("jit", "off"),
                    ])
                    .disable_statement_logging(),
            ));
        }
        if !url.starts_with("sqlite:") {
            return Err(Error::invalid("The database URL must start with sqlite: or postgres:."));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(wrong)?;
        Ok(Db::Sqlite(
            options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(false)
                .statement_cache_capacity(STATEMENTS_CACHED)
                .row_buffer_size(1024)
                .pragma("secure_delete", "ON")
                .pragma("temp_store", "MEMORY")
                .pragma("mmap_size", MMAP_BYTES)
                .pragma("cache_size", PAGE_CACHE)
                .pragma("trusted_schema", "OFF")
                .disable_statement_logging(),
        ))
    }

    /// Whether it is a file that is not there: connecting would make it.
    pub fn is_absent(&self) -> bool {
        matches!(self, Db::Sqlite(options) if !options.get_filename().exists())
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self, Db::Postgres(_))
    }

    /// The file of a SQLite database that has one.
    pub fn file(&self) -> Option<std::path::PathBuf> {
        let Db::Sqlite(options) = self else { return None };
        let file = options.get_filename();
        // One in memory is named by something that is no file.
        file.is_file().then(|| file.to_path_buf())
    }

    /// `column in (a [`Param::List`] bound as placeholder number `at`)`: one statement text for every length.
    pub fn list(&self, column: &str, at: usize) -> String {
        list(self.is_postgres(), column, at)
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Conn, Fault> {
        Ok(match self {
            Db::Sqlite(options) => Conn::Sqlite(options.connect().await.map_err(Fault::of)?),
            Db::Postgres(options) => Conn::Postgres(options.connect().await.map_err(Fault::of)?),
        })
    }

    /// A new connection for one kind of work.
    pub async fn connect_for(&self, work: Use) -> Result<Conn, Fault> {
        match (self, work) {
            (Db::Sqlite(options), Use::Search | Use::Lookup) => {
                let options = options.clone().pragma("query_only", "ON");
                Ok(Conn::Sqlite(options.connect().await.map_err(Fault::of)?))
            }
            (Db::Sqlite(options), Use::Keyed) => {
                let options = options.clone().pragma("cache_size", WRITER_PAGE_CACHE);
                Ok(Conn::Sqlite(options.connect().await.map_err(Fault::of)?))
            }
            (Db::Postgres(_), Use::Search) => self.connect().await,
            (Db::Postgres(options), Use::Keyed | Use::Lookup) => {
                // Planned once, and never as a scan of the whole table, however empty it was at that time.
                let settings = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];
                let options = options.clone().options(settings);
                Ok(Conn::Postgres(options.connect().await.map_err(Fault::of)?))
            }
        }
    }
}

fn list(postgres: bool, column: &str, at: usize) -> String {
    match postgres {
        false => format!("{column} in (select value from json_each(${at}))"),
        true => format!("{column} = any(${at})"),
    }
}

impl Conn {
    /// As [`Db::list`].
    pub fn list(&self, column: &str, at: usize) -> String {
        list(matches!(self, Conn::Postgres(_)), column, at)
    }

    /// All rows of a query.
    pub async fn rows(&mut self, sql: &str, params: Vec<Param>) -> Result<Vec<Row>, Fault> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Conn::Sqlite(conn) => {
                let rows = sqlx::query_with(sql, sqlite_arguments(params)?).fetch_all(conn).await.map_err(Fault::of)?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Conn::Postgres(conn) => {
                let rows =
                    sqlx::query_with(sql, postgres_arguments(params)?).fetch_all(conn).await.map_err(Fault::of)?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs a statement; gives the number of rows it touched.
    pub async fn run(&mut self, sql: &str, params: Vec<Param>) -> Result<u64, Fault> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Conn::Sqlite(conn) => {
                let done = sqlx::query_with(sql, sqlite_arguments(params)?).execute(conn).await.map_err(Fault::of)?;
                Ok(done.rows_affected())
            }
            Conn::Postgres(conn) => {
                let done = sqlx::query_with(sql, postgres_arguments(params)?).execute(conn).await.map_err(Fault::of)?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Starts a transaction that will write.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        let sql = match self {
            Conn::Sqlite(_) => "begin immediate",
            Conn::Postgres(_) => "begin",
        };
        self.run(sql, Vec::new()).await.map(drop)
    }

    pub async fn commit(&mut self) -> Result<(), Fault> {
        self.run("commit", Vec::new()).await.map(drop)
    }

    pub async fn rollback(&mut self) -> Result<(), Fault> {
        self.run("rollback", Vec::new()).await.map(drop)
    }

    /// Gives the pages back that SQLite keeps in memory.
    pub async fn forget_pages(&mut self) -> Result<(), Fault> {
        match self {
            Conn::Sqlite(_) => self.run("pragma shrink_memory", Vec::new()).await.map(drop),
            Conn::Postgres(_) => Ok(()),
        }
    }

    /// Refuses a PostgreSQL that is too old.
    pub async fn check_version(&mut self) -> Result<()> {
        if matches!(self, Conn::Sqlite(_)) {
            return Ok(());
        }
        let rows = self.rows("select current_setting('server_version_num')::bigint", Vec::new()).await?;
        match rows.first().map(|row| row.int(0)).transpose()? {
            Some(version) if version >= POSTGRES_MIN => Ok(()),
            _ => Err(Error::new(Kind::Unavailable, "PostgreSQL 15 or newer is needed.")),
        }
    }

    pub async fn close(self) {
        // Whatever had to be durable was committed before; a connection that fails to say goodbye changes nothing.
        let closed = match self {
            Conn::Sqlite(conn) => conn.close().await,
            Conn::Postgres(conn) => conn.close().await,
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "closing a database connection");
        }
    }
}

fn sqlite_arguments(params: Vec<Param>) -> Result<SqliteArguments, Fault> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(params.len(), 0);
    for param in params {
        match param {
            Param::Int(n) => arguments.add(n),
            Param::OptInt(n) => arguments.add(n),
            Param::OptBytes(bytes) => arguments.add(bytes),
            Param::Bytes(bytes) => arguments.add(bytes),
            Param::Text(text) => arguments.add(text),
            Param::Ints(list) => arguments.add(big_endian(&list)),
            Param::List(list) => arguments.add(json_list(&list)),
        }
        .map_err(|e| Fault::Other(sqlx::Error::Encode(e)))?;
    }
    Ok(arguments)
}

/// Numbers as SQLite keeps a list of them.
pub fn big_endian(list: &[i64]) -> Vec<u8> {
    list.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn json_list(list: &[i64]) -> String {
    let numbers: Vec<String> = list.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(","))
}

fn postgres_arguments(params: Vec<Param>) -> Result<PgArguments, Fault> {
    let mut arguments = PgArguments::default();
    arguments.reserve(params.len(), 0);
    for param in params {
        match param {
            Param::Int(n) => arguments.add(n),
            Param::OptInt(n) => arguments.add(n),
            Param::OptBytes(bytes) => arguments.add(bytes),
            Param::Bytes(bytes) => arguments.add(bytes),
            Param::Text(text) => arguments.add(text),
            Param::Ints(list) | Param::List(list) => arguments.add(list),
        }
        .map_err(|e| Fault::Other(sqlx::Error::Encode(e)))?;
    }
    Ok(arguments)
}

/// Reads one column of whichever row it is.
macro_rules! column {
    ($self:expr, $at:expr, $as:ty) => {
        match $self {
            Row::Sqlite(row) => row.try_get::<$as, _>($at).map_err(Fault::Shape),
            Row::Packed(row) => row.field::<$as>($at).ok_or_else(|| shape("a field is of another shape")),
            Row::Postgres(row) => row.try_get::<$as, _>($at).map_err(Fault::Shape),
        }
    };
}

impl Row {
    pub fn int(&self, at: usize) -> Result<i64, Fault> {
        column!(self, at, i64)
    }

    pub fn opt_int(&self, at: usize) -> Result<Option<i64>, Fault> {
        column!(self, at, Option<i64>)
    }

    pub fn bytes(&self, at: usize) -> Result<&[u8], Fault> {
        column!(self, at, &[u8])
    }

    pub fn opt_bytes(&self, at: usize) -> Result<Option<&[u8]>, Fault> {
        column!(self, at, Option<&[u8]>)
    }

    pub fn text(&self, at: usize) -> Result<&str, Fault> {
        column!(self, at, &str)
    }

    pub fn opt_text(&self, at: usize) -> Result<Option<&str>, Fault> {
        column!(self, at, Option<&str>)
    }

    /// What was bound as [`Param::Ints`].
    pub fn ints(&self, at: usize) -> Result<Vec<i64>, Fault> {
        match self {
            Row::Postgres(row) => row.try_get(at).map_err(Fault::Shape),
            Row::Sqlite(_) | Row::Packed(_) => {
                let (words, rest) = self.bytes(at)?.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(shape("a list of numbers is cut off"));
                }
                Ok(words.iter().map(|word| i64::from_be_bytes(*word)).collect())
            }
        }
    }

    /// The same as big-endian bytes, one after the other.
    pub fn int_bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, Fault> {
        match self {
            Row::Sqlite(_) | Row::Packed(_) => self.bytes(at).map(Cow::Borrowed),
            Row::Postgres(_) => Ok(Cow::Owned(big_endian(&self.ints(at)?))),
        }
    }

    /// A number that the schema keeps in 32 bits.
    pub fn small(&self, at: usize) -> Result<u32, Fault> {
        u32::try_from(self.int(at)?).map_err(|_| shape("a number is out of its range"))
    }

    /// Bytes of a fixed length.
    pub fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Fault> {
        <[u8; N]>::try_from(self.bytes(at)?).map_err(|_| shape("a column has the wrong length"))
    }
}

pub(super) fn shape(what: &'static str) -> Fault {
    Fault::Shape(sqlx::Error::Protocol(what.into()))
}

impl Fault {
    pub fn of(error: sqlx::Error) -> Fault {
        match &error {
            sqlx::Error::Database(e) => match e.code().as_deref() {
                // PostgreSQL: serialization failure, deadlock. SQLite: busy, locked.
                Some("40001" | "40P01" | "5" | "6") => Fault::Retry(error),
                // Class 57: shut down by the operator, crash, not yet accepting connections.
                Some("57P01" | "57P02" | "57P03") => Fault::Lost(error),
                _ => Fault::Other(error),
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
                Fault::Lost(error)
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Fault::Shape(error),
            _ => Fault::Other(error),
        }
    }

    /// Whether the connection can be used again.
    pub fn spares_connection(&self) -> bool {
        matches!(self, Fault::Shape(_) | Fault::Sealing(_))
    }

    /// SQLite: one value would have become larger than a value may be.
    pub fn is_too_big(&self) -> bool {
        matches!(self, Fault::Other(sqlx::Error::Database(e)) if e.code().as_deref() == Some("18"))
    }

    pub fn is_lost(&self) -> bool {
        matches!(self, Fault::Lost(_))
    }

    /// Whether the same work may succeed when tried again.
    pub fn may_retry(&self) -> bool {
        matches!(self, Fault::Retry(_))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Lost(e) => Error::new(Kind::Unavailable, "The database does not answer.").caused_by(e),
            Fault::Retry(e) => {
                Error::new(Kind::Unavailable, "The database was busy with the same rows; try again.").caused_by(e)
            }
            Fault::Shape(e) => Error::tampered("column").caused_by(e),
            Fault::Sealing(e) => e,
            Fault::Other(e) => Error::internal(e),
        }
    }
}

/// `($1,$2),($3,$4)`: the placeholders of `rows` rows of `columns` values, after `offset` others.
pub fn placeholders(rows: usize, columns: usize, offset: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            if column > 0 {
                text.push(',');
            }
            text.push('$');
            text.push_str(&(offset + row * columns + column + 1).to_string());
        }
        text.push(')');
    }
    text
}

/// `$3,$4,$5`: a list of single placeholders.
pub fn placeholder_list(count: usize, offset: usize) -> String {
    (1..=count).map(|n| format!("${}", n + offset)).collect::<Vec<_>>().join(",")
}

/// Cuts a list into chunks whose sizes come from a small set, so that few different statements exist and stay cached.
pub fn chunk_sizes(mut len: usize, max: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut size = max;
    while len > 0 {
        while size > len {
            size = (size / 4).max(1);
        }
        sizes.push(size);
        len -= size;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_with_few_sizes() {
        for len in 0..700 {
            let sizes = chunk_sizes(len, 64);
            assert_eq!(sizes.iter().sum::<usize>(), len);
            assert!(sizes.iter().all(|size| [1, 4, 16, 64].contains(size)));
        }
        assert_eq!(placeholders(2, 2, 1), "($2,$3),($4,$5)");
        assert_eq!(placeholder_list(2, 3), "$4,$5");
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["mysql://x", "", "sqlite", "http://x"] {
            assert_eq!(Db::parse(url).err().map(|e| e.kind), Some(Kind::Invalid), "{url}");
        }
    }

    #[tokio::test]
    async fn values_come_back_as_bound() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = Db::parse(&format!("sqlite:{}/x.db", folder.path().display())).expect("a url");
        let mut conn = db.connect().await.ok().expect("opens");
        let sql = "select $1, $2, $3, $4, $5, $6 is null";
        let params = vec![
            Param::Int(i64::MIN),
            Param::OptInt(None),
            Param::Bytes(vec![0, 255]),
            Param::Text("é".into()),
            Param::Ints(vec![-1, i64::MAX]),
            Param::OptBytes(None),
        ];
        let rows = conn.rows(sql, params).await.ok().expect("answers");
        let row = &rows[0];
        assert_eq!(row.int(0).ok(), Some(i64::MIN));
        assert_eq!(row.opt_int(1).ok(), Some(None));
        assert_eq!(row.bytes(2).ok(), Some(&[0u8, 255][..]));
        assert_eq!(row.text(3).ok(), Some("é"));
        assert_eq!(row.ints(4).ok(), Some(vec![-1, i64::MAX]));
        assert_eq!(row.int(5).ok(), Some(1));
        assert!(matches!(row.int(3), Err(Fault::Shape(_))));
        for (pragma, value) in [("synchronous", 2), ("secure_delete", 1), ("temp_store", 2), ("cache_size", -2048)] {
            let rows = conn.rows(&format!("pragma {pragma}"), Vec::new()).await.ok().expect("answers");
            assert_eq!(rows[0].int(0).ok(), Some(value), "{pragma}");
        }
    }
}
