//! A segment: the audit entries of one commit, sealed as one text under the audit key of their month. Many entries
//! share one seal, one row and one link of the chain, so that putting an access on record costs little. Must not know
//! what an entry says.
//!
//! ```text
//! salt [32] | count u32 | count x ( terms u32 | term i64 ... | length u32 | canonical bytes )      big-endian
//! leaf(i)    = SHA-256(0x00 || HMAC-SHA-256(salt, i u32) || canonical bytes of entry i)
//! commitment = SHA-256(0x02 || "phial-segment-1" || month i32 || count u32 || leaf(0) || leaf(1) ...)
//! ```
//! The commitment is what the chain is made of. Each entry has a salt of its own, so one entry can be shown to an
//! outsider, with the leaves of the others, without showing these.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::AuditRow;
use super::entries::AuditStored;
use crate::error::{Error, Result};
use crate::vault::{SystemKey, Vault};
use crate::world;

/// Entries of one segment at most: whoever reads one entry opens them all.
pub const ENTRIES_MAX: usize = 64;
/// Bytes of the entries of one segment at most, unless one entry alone is larger.
pub const BYTES_MAX: usize = 1 << 20;
const SALT_BYTES: usize = 32;

/// Where a segment lies: what its sealed text is bound to.
#[derive(Clone, Copy)]
pub struct SegmentPlace {
    /// Months since year 0.
    pub month: i32,
    pub instance: i64,
    pub lane: u32,
    /// Number in the chain of the lane.
    pub seq: u64,
}

impl SegmentPlace {
    /// Whether the other comes right after this one in the same chain.
    pub fn precedes(&self, other: &SegmentPlace) -> bool {
        (self.instance, self.lane, self.seq.checked_add(1)) == (other.instance, other.lane, Some(other.seq))
    }
}

/// One entry of an opened segment. PHI: no Debug.
pub struct AuditEntry {
    /// Place in the segment, from 0.
    pub index: u32,
    /// Its blind terms, sorted.
    pub terms: Vec<i64>,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Seals entries of one month for their place; gives the sealed text and its commitment.
///
/// # Errors
/// When the audit key of the month cannot be had.
pub async fn seal(vault: &Vault, place: SegmentPlace, rows: &[&AuditRow]) -> Result<(Vec<u8>, [u8; 32])> {
    let size: usize = rows.iter().map(|row| row.entry.len() + row.terms.len() * 8 + 8).sum();
    let mut text = Zeroizing::new(vec![0u8; SALT_BYTES]);
    text.reserve_exact(size + 4);
    world::secret(&mut text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &text[..SALT_BYTES]);
    let mut commitment = Commitment::start(place.month, number(rows.len())?);
    text.extend_from_slice(&number(rows.len())?.to_be_bytes());
    for (index, row) in rows.iter().enumerate() {
        text.extend_from_slice(&number(row.terms.len())?.to_be_bytes());
        for term in &row.terms {
            text.extend_from_slice(&term.to_be_bytes());
        }
        text.extend_from_slice(&number(row.entry.len())?.to_be_bytes());
        text.extend_from_slice(&row.entry);
        commitment.add(&key, number(index)?, &row.entry);
    }
    let sealed = vault.seal_system(SystemKey::Audit { month: place.month }, &aad(place), &text).await?;
    Ok((sealed, commitment.finish()))
}

/// Opens a segment and holds it against its place and its commitment.
///
/// # Errors
/// `Kind::Tampered` when it is not what was recorded there.
pub async fn open(vault: &Vault, row: &AuditStored) -> Result<Vec<AuditEntry>> {
    let text = vault.open_system(SystemKey::Audit { month: row.place.month }, &aad(row.place), &row.sealed).await?;
    let tampered = || Error::tampered("audit entry");
    let (salt, rest) = text.split_at_checked(SALT_BYTES).ok_or_else(tampered)?;
    let mut rest = Reader(rest);
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let count = rest.u32().ok_or_else(tampered)?;
    let mut commitment = Commitment::start(row.place.month, count);
    let mut entries = Vec::new();
    for index in 0..count {
        let (terms, bytes) = rest.entry().ok_or_else(tampered)?;
        commitment.add(&key, index, bytes);
        entries.push(AuditEntry { index, terms, bytes: Zeroizing::new(bytes.to_vec()) });
    }
    (rest.0.is_empty() && commitment.finish() == row.commitment).then_some(entries).ok_or_else(tampered)
}

fn number(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(Error::internal)
}

fn aad(place: SegmentPlace) -> Vec<u8> {
    let SegmentPlace { month, instance, lane, seq } = place;
    [&b"phial-segment-1"[..], &month.to_be_bytes(), &instance.to_be_bytes(), &lane.to_be_bytes(), &seq.to_be_bytes()]
        .concat()
}

struct Commitment(Context);

impl Commitment {
    fn start(month: i32, count: u32) -> Commitment {
        let mut whole = Context::new(&SHA256);
        whole.update(&[2]);
        whole.update(b"phial-segment-1");
        whole.update(&month.to_be_bytes());
        whole.update(&count.to_be_bytes());
        Commitment(whole)
    }

    fn add(&mut self, key: &hmac::Key, index: u32, entry: &[u8]) {
        let mut leaf = Context::new(&SHA256);
        leaf.update(&[0]);
        leaf.update(hmac::sign(key, &index.to_be_bytes()).as_ref());
        leaf.update(entry);
        self.0.update(leaf.finish().as_ref());
    }

    fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn entry(&mut self) -> Option<(Vec<i64>, &'a [u8])> {
        let terms = usize::try_from(self.u32()?).ok()?.checked_mul(8)?;
        let (terms, _) = self.take(terms)?.as_chunks::<8>();
        let length = usize::try_from(self.u32()?).ok()?;
        Some((terms.iter().map(|term| i64::from_be_bytes(*term)).collect(), self.take(length)?))
    }
}
