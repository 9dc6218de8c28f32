//! The journal of one SQLite writer: a file beside the database that takes segments of accesses, one disk flush each,
//! until many of them are moved into the database at once. Sealed and linked before they come here, they lie in it as
//! they will lie in the database. Must not know what an entry says.
//!
//! ```text
//! record = length u32 | SHA-256 of the rest [32] | month i32 | instance i64 | lane u32 | seq u64 | prev [32]
//!          | commitment [32] | count u32 | count x term i64 | sealed text                            big-endian
//! ```
//! Records follow each other from the start of a half of the file, in the order of the chain. While those of one half are
//! moved, others go to the start of the other. What is left of older ones behind them has lower numbers, which the
//! database has by then: it is never taken for new.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::chain::{self, Link};
use super::db::{Conn, Db};
use super::segment::SegmentPlace;
use crate::error::{Error, Kind, Result};
use crate::world::{Stopwatch, folder_of};

/// The file has both halves from the start: writing over what is there needs no flush of the file's own data.
const HALF_BYTES: usize = 2 << 20;
/// Length and hash of a record.
const HEAD_BYTES: usize = 4 + 32;
const NAME: &str = "-trail-";
/// Until the lock is held, so that nobody adopts a journal that is about to be used.
const NEW: &str = "-trail.new-";
/// How long another server may take to move what it holds: it does so four times a second.
const OTHERS_WAIT: Duration = Duration::from_secs(5);
const OTHERS_PAUSE: Duration = Duration::from_millis(20);

/// An open journal. Whoever holds one holds the lock of its file.
pub struct Journal {
    file: Arc<File>,
    path: PathBuf,
    /// Of the half that is written now.
    start: usize,
    end: usize,
}

impl Journal {
    /// An empty one beside the database.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn create(database: PathBuf, instance: i64) -> io::Result<Journal> {
        blocking(move || {
            let path = beside(&database, &named(instance));
            let new = beside(&database, &format!("{NEW}{instance:016x}"));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let made = file.try_lock().map_err(io::Error::from).and_then(|()| {
                file.write_all_at(&vec![0; 2 * HALF_BYTES], 0)?;
                file.sync_all()?;
                std::fs::rename(&new, &path)?;
                File::open(folder_of(&database))?.sync_all()
            });
            match made {
                Ok(()) => Ok(Journal { file: Arc::new(file), path, start: 0, end: 0 }),
                Err(error) => {
                    let _ = std::fs::remove_file(&new);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Makes the links durable, all of them; false when there is no room for them.
    ///
    /// # Errors
    /// Those of the file system: some of the links may be there all the same.
    pub async fn write(&mut self, links: &[Link]) -> io::Result<bool> {
        let mut bytes = Vec::new();
        links.iter().for_each(|link| add_record(link, &mut bytes));
        let (file, at) = (self.file.clone(), (self.start + self.end) as u64);
        let end = self.end + bytes.len();
        if end > HALF_BYTES {
            return Ok(false);
        }
        blocking(move || {
            file.write_all_at(&bytes, at)?;
            file.sync_data()
        })
        .await?;
        self.end = end;
        Ok(true)
    }

    /// Begins this half again: everything in it is durable elsewhere.
    pub fn rewind(&mut self) {
        self.end = 0;
    }

    /// Goes on in the other half: everything in that one is durable elsewhere.
    pub fn turn(&mut self) {
        self.start = HALF_BYTES - self.start;
        self.end = 0;
    }

    /// Everything in it is durable elsewhere, and no more will come.
    pub fn remove(self) {
        // One that stays is looked through at the next start and found to hold nothing new.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Moves into the database what the journals of servers that ended in a crash hold. Whatever is readable is taken as
/// it stands: whether it fits its chain is for the verifier to say.
///
/// # Errors
/// `Kind::Unavailable` when a journal cannot be read, and when the database cannot be written.
pub async fn adopt(db: &Db, conn: &mut Conn) -> Result<()> {
    let Some(database) = db.file() else { return Ok(()) };
    for path in left_behind(&database).map_err(unreadable)? {
        let read = path.clone();
        let Some((links, lock)) = blocking(move || records(&read)).await.map_err(unreadable)? else { continue };
        conn.begin().await?;
        let mut missing = Vec::new();
        for link in links {
            if !link.stands(conn).await? {
                missing.push(link);
            }
        }
        chain::insert(conn, &missing).await?;
        conn.commit().await?;
        if !missing.is_empty() {
            tracing::info!(
                segments = missing.len(),
                "audit entries of a server that crashed were moved into the database"
            );
        }
        std::fs::remove_file(&path).or_else(ignore_missing).map_err(unreadable)?;
        drop(lock);
    }
    Ok(())
}

/// Waits until the database holds what other servers' journals held when this was called; what crashed ones left is
/// moved at once. Their accesses were answered: who asks for the trail is to see them.
///
/// # Errors
/// As [`adopt`]; `Kind::Unavailable` too when a server that lives does not move what it holds.
pub async fn settle_others(db: &Db, instance: i64) -> Result<()> {
    let Some(database) = db.file() else { return Ok(()) };
    let own = beside(&database, &named(instance));
    let others = blocking(move || {
        let mut others = left_behind(&database)?;
        others.retain(|path| *path != own);
        others.iter().map(|path| newest(path)).filter_map(io::Result::transpose).collect::<io::Result<Vec<_>>>()
    });
    let others = others.await.map_err(unreadable)?;
    if others.is_empty() {
        return Ok(());
    }
    let mut conn = db.connect().await?;
    adopt(db, &mut conn).await?;
    let waited = Stopwatch::start();
    for link in others {
        while !link.stands(&mut conn).await? {
            if waited.elapsed() > OTHERS_WAIT {
                return Err(Error::new(
                    Kind::Unavailable,
                    "Another server on this database holds audit entries that it does not move into it; its log says why.",
                ));
            }
            tokio::time::sleep(OTHERS_PAUSE).await;
        }
    }
    conn.close().await;
    Ok(())
}

/// The last link of a journal, whether its server lives or not. Links move in the order of their chain: once it stands
/// in the database, all before it do.
fn newest(path: &Path) -> io::Result<Option<Link>> {
    let links = open(path)?.map(links_of).transpose()?;
    Ok(links.and_then(|mut links| links.pop()))
}

/// What an ended server's journal holds, with its lock; None: its server lives, or somebody else has just done this.
fn records(path: &Path) -> io::Result<Option<(Vec<Link>, File)>> {
    let Some(file) = open(path)? else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some((links_of(&file)?, file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// None: it was removed meanwhile.
fn open(path: &Path) -> io::Result<Option<File>> {
    File::open(path).map(Some).or_else(|error| ignore_missing(error).map(|()| None))
}

/// The links in both halves, in the order of their chain.
fn links_of(file: impl io::Read) -> io::Result<Vec<Link>> {
    let mut bytes = Vec::new();
    file.take(2 * HALF_BYTES as u64).read_to_end(&mut bytes)?;
    let mut links: Vec<Link> = bytes.chunks(HALF_BYTES).flat_map(consecutive).collect();
    links.sort_by_key(|link| link.place.seq);
    Ok(links)
}

/// The records of one half.
fn consecutive(mut half: &[u8]) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    while let Some((link, after)) = parse(half) {
        if links.last().is_some_and(|last| !last.place.precedes(&link.place)) {
            break;
        }
        links.push(link);
        half = after;
    }
    links
}

/// The journals beside a database, those included that were never finished.
fn left_behind(database: &Path) -> io::Result<Vec<PathBuf>> {
    let before = database.file_name().unwrap_or_default().as_encoded_bytes();
    let is_journal = |name: &OsStr| {
        let ending = name.as_encoded_bytes().strip_prefix(before).unwrap_or_default();
        ending.starts_with(NAME.as_bytes()) || ending.starts_with(NEW.as_bytes())
    };
    let files = std::fs::read_dir(folder_of(database))?.collect::<io::Result<Vec<_>>>()?;
    Ok(files.into_iter().filter(|file| is_journal(&file.file_name())).map(|file| file.path()).collect())
}

fn add_record(link: &Link, out: &mut Vec<u8>) {
    let SegmentPlace { month, instance, lane, seq } = link.place;
    let start = out.len();
    out.resize(start + HEAD_BYTES, 0);
    out.extend_from_slice(&month.to_be_bytes());
    out.extend_from_slice(&instance.to_be_bytes());
    out.extend_from_slice(&lane.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&link.prev);
    out.extend_from_slice(&link.commitment);
    out.extend_from_slice(&(link.terms.len() as u32).to_be_bytes());
    link.terms.iter().for_each(|term| out.extend_from_slice(&term.to_be_bytes()));
    out.extend_from_slice(&link.sealed);
    let (head, body) = out[start..].split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
    head[4..].copy_from_slice(digest(&SHA256, body).as_ref());
}

/// The record at the start, and what follows it. None: no whole record is here.
fn parse(bytes: &[u8]) -> Option<(Link, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (body, after) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    if digest(&SHA256, body).as_ref() != hash {
        return None;
    }
    let (month, body) = body.split_first_chunk::<4>()?;
    let (instance, body) = body.split_first_chunk::<8>()?;
    let (lane, body) = body.split_first_chunk::<4>()?;
    let (seq, body) = body.split_first_chunk::<8>()?;
    let (prev, body) = body.split_first_chunk::<32>()?;
    let (commitment, body) = body.split_first_chunk::<32>()?;
    let (count, body) = body.split_first_chunk::<4>()?;
    let (terms, sealed) = body.split_at_checked((u32::from_be_bytes(*count) as usize).checked_mul(8)?)?;
    let place = SegmentPlace {
        month: i32::from_be_bytes(*month),
        instance: i64::from_be_bytes(*instance),
        lane: u32::from_be_bytes(*lane),
        seq: u64::from_be_bytes(*seq),
    };
    let terms = terms.as_chunks::<8>().0.iter().map(|term| i64::from_be_bytes(*term)).collect();
    let link = Link { place, prev: *prev, commitment: *commitment, sealed: sealed.to_vec(), terms };
    Some((link, after))
}

fn named(instance: i64) -> String {
    format!("{NAME}{instance:016x}")
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn unreadable(error: io::Error) -> Error {
    Error::new(Kind::Unavailable, "A journal of audit entries beside the database cannot be read.").caused_by(error)
}

/// Runs on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
