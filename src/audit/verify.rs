//! Verification of the whole trail against itself and against what is stored: every chain gapless and linked, every
//! segment what was committed to, every stored version the one its entry speaks of. Runs beside a live server.
//!
//! What it cannot show without an anchor outside the database: that the last entries of a chain were cut off and
//! wrote nothing. Cut-off writes show, because their versions then have no entry.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::stored::Entry;
use super::trail::Trail;
use crate::error::{Kind, Result};
use crate::store::{AuditStored, chain_hash};
use crate::vault::Rid;
use crate::world::hex;

/// Rows fetched at once.
const CHUNK: usize = 500;
/// Faults of one kind that are named; the others are counted.
pub const NAMED_MAX: usize = 20;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// A number of a chain is missing: entries were deleted with their segment.
    Gap,
    /// An entry does not carry the hash of the one before: entries were altered or swapped.
    Link,
    /// An entry does not open, or is not what its commitment says.
    Entry,
    /// A chain of a server that never registered.
    Stranger,
    /// A stored version is not the one that was written.
    Version,
    /// A version that was written is gone.
    Lost,
    /// A stored version that no entry speaks of.
    Unrecorded,
    /// Terms of an entry are missing in the index: searches would not find it.
    Hidden,
    /// A resource stands at an older version than the last that was written.
    RolledBack,
}

/// One fault and its place; nothing in it is PHI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub flaw: Flaw,
    /// Chain and number in it, or row id and version.
    pub place: String,
}

/// The outcome of a verification.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub entries: u64,
    pub chains: u64,
    pub versions: u64,
    pub resources: u64,
    /// The first faults of each kind, in the order found.
    pub faults: Vec<Fault>,
    /// All faults by kind.
    pub counts: HashMap<Flaw, u64>,
}

/// What the entries say was written.
#[derive(Default)]
struct Said {
    /// Written versions that the first look at the store did not show: (row, version) and hash.
    unseen: Vec<((i64, u32), String)>,
    /// The last version of each row.
    newest: HashMap<i64, u32>,
}

impl Flaw {
    fn text(self) -> &'static str {
        match self {
            Flaw::Gap => "missing entries",
            Flaw::Link => "entry does not follow the one before",
            Flaw::Entry => "entry is not what was recorded",
            Flaw::Stranger => "chain of an unregistered server",
            Flaw::Version => "stored version is not the one written",
            Flaw::Lost => "written version is gone",
            Flaw::Unrecorded => "stored version without an entry",
            Flaw::Hidden => "entries that searches would not find",
            Flaw::RolledBack => "resource stands at an older version than was written",
        }
    }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, flaw: Flaw, place: impl Into<String>) {
        let count = self.counts.entry(flaw).or_default();
        *count += 1;
        if *count <= NAMED_MAX as u64 {
            self.faults.push(Fault { flaw, place: place.into() });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { entries, chains, versions, resources, .. } = self;
        writeln!(f, "{entries} entries in {chains} chains; {versions} versions of {resources} resources")?;
        if self.is_clean() {
            return write!(f, "everything verifies");
        }
        for Fault { flaw, place } in &self.faults {
            writeln!(f, "{}: {place}", flaw.text())?;
        }
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort();
        let counts: Vec<String> = counts.iter().map(|(flaw, count)| format!("{}: {count}", flaw.text())).collect();
        write!(f, "FAULTS: {}", counts.join("; "))
    }
}

/// Verifies everything. Holds one hash per stored version in memory.
///
/// # Errors
/// Only when the store cannot be read; faults are in the report.
pub async fn verify(trail: &Trail) -> Result<Report> {
    let mut report = Report::default();
    // Versions first: whatever is stored now has its entry by the time the chains are walked.
    let mut stored = versions(trail, &mut report).await?;
    let said = chains(trail, &mut stored, &mut report).await?;
    // The end of a chain that was cut off leaves no gap in it.
    for n in trail.store.audit_dangling(CHUNK).await? {
        report.add(Flaw::Gap, format!("segment {n}, to which terms still lead"));
    }
    let mut unrecorded: Vec<_> = stored.into_keys().collect();
    unrecorded.sort_unstable();
    for (rid, version) in unrecorded {
        report.add(Flaw::Unrecorded, row_place(rid, version));
    }
    // Written while we were reading, or gone: look again.
    for ((rid, version), hash) in &said.unseen {
        let before = (Rid(*rid), version.saturating_sub(1));
        match trail.store.version_hashes(Some(before), 1).await?.first() {
            Some((found, at, now)) if found.0 == *rid && at == version => {
                if hex(now) != *hash {
                    report.add(Flaw::Version, row_place(*rid, *version));
                }
            }
            _ => report.add(Flaw::Lost, row_place(*rid, *version)),
        }
    }
    current(trail, &said.newest, &mut report).await?;
    Ok(report)
}

fn row_place(rid: i64, version: u32) -> String {
    format!("row {rid}, version {version}")
}

fn segment_place(row: &AuditStored) -> String {
    format!("chain {}/{}, number {}", row.place.instance, row.place.lane, row.place.seq)
}

async fn versions(trail: &Trail, report: &mut Report) -> Result<HashMap<(i64, u32), String>> {
    let mut stored = HashMap::new();
    let mut after = None;
    loop {
        let rows = trail.store.version_hashes(after, CHUNK).await?;
        let Some((rid, version, _)) = rows.last() else { return Ok(stored) };
        after = Some((*rid, *version));
        report.versions += rows.len() as u64;
        stored.extend(rows.iter().map(|(rid, version, hash)| ((rid.0, *version), hex(hash))));
    }
}

/// Walks every chain. Takes out of `stored` what an entry speaks of.
async fn chains(trail: &Trail, stored: &mut HashMap<(i64, u32), String>, report: &mut Report) -> Result<Said> {
    let registered: BTreeSet<i64> = trail.store.audit_instances().await?.into_iter().map(|(id, _)| id).collect();
    let mut said = Said::default();
    // Chain, next number, hash of the entry before.
    let mut chain: Option<((i64, u32), u64, [u8; 32])> = None;
    let mut after = None;
    loop {
        let rows = trail.store.audit_walk(after, CHUNK).await?;
        for row in &rows {
            after = Some((row.place.instance, row.place.lane, row.place.seq));
            let of = (row.place.instance, row.place.lane);
            let (expected, prev) = match chain {
                Some((same, expected, prev)) if same == of => (expected, prev),
                _ => {
                    report.chains += 1;
                    if !registered.contains(&row.place.instance) {
                        report.add(Flaw::Stranger, segment_place(row));
                    }
                    (0, [0u8; 32])
                }
            };
            if row.place.seq != expected {
                report.add(Flaw::Gap, format!("before {}: from number {expected}", segment_place(row)));
            } else if row.prev != prev {
                report.add(Flaw::Link, segment_place(row));
            }
            let hash = chain_hash(row.place.instance, row.place.lane, row.place.seq, &row.prev, &row.commitment);
            chain = Some((of, row.place.seq.saturating_add(1), hash));
            segment(trail, row, stored, &mut said, report).await?;
        }
        if rows.len() < CHUNK {
            return Ok(said);
        }
        tokio::task::yield_now().await;
    }
}

/// Opens one segment and holds what its entries say was written against what is stored.
async fn segment(
    trail: &Trail,
    row: &AuditStored,
    stored: &mut HashMap<(i64, u32), String>,
    said: &mut Said,
    report: &mut Report,
) -> Result<()> {
    let opened = match trail.store.audit_open(row).await {
        Ok(opened) => opened,
        Err(error) if error.kind == Kind::Tampered => {
            report.add(Flaw::Entry, segment_place(row));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut terms = Vec::new();
    for one in opened {
        report.entries += 1;
        let Ok(entry) = Entry::read(row.place, one.index, &one.bytes) else {
            report.add(Flaw::Entry, format!("{}, entry {}", segment_place(row), one.index));
            continue;
        };
        terms.extend(one.terms);
        for written in entry.written {
            let place = (written.0, written.1);
            let newest = said.newest.entry(place.0).or_default();
            *newest = (*newest).max(place.1);
            match stored.remove(&place) {
                Some(hash) if hash == written.2 => {}
                Some(_) => report.add(Flaw::Version, row_place(place.0, place.1)),
                None => said.unseen.push((place, written.2)),
            }
        }
    }
    terms.sort_unstable();
    terms.dedup();
    if trail.store.audit_indexed(row.n, &terms).await? < terms.len() {
        report.add(Flaw::Hidden, segment_place(row));
    }
    Ok(())
}

/// Every resource must stand at the last version that was written, or at one written since.
async fn current(trail: &Trail, newest: &HashMap<i64, u32>, report: &mut Report) -> Result<()> {
    let mut standing = HashMap::new();
    let mut after = None;
    loop {
        let rows = trail.store.current_versions(after, CHUNK).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(*last);
        report.resources += rows.len() as u64;
        standing.extend(rows.iter().map(|(rid, version)| (rid.0, *version)));
    }
    let mut behind: Vec<_> = newest
        .iter()
        .filter(|(rid, version)| standing.get(rid).is_none_or(|stands| stands < version))
        .map(|(rid, version)| (*rid, *version))
        .collect();
    behind.sort_unstable();
    for (rid, version) in behind {
        report.add(Flaw::RolledBack, row_place(rid, version));
    }
    Ok(())
}
