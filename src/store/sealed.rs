//! How one version lies in the database: its sealed sections in one frame, and the small sealed head beside them that
//! history and deletions are read from. Opens a body only against the [`Receipt`] of a durable audit entry.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::db::big_endian;
use super::{Receipt, Sealed};
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::mapping::{Section, sections};
use crate::search::values::{Header, Values};
use crate::search::{View, capsule};
use crate::vault::{Keys, Place, Purpose, Rid, Vault};

/// Where a version's parts are sealed.
#[derive(Clone, Copy)]
pub struct Spot {
    pub rid: Rid,
    pub kind: TypeId,
    pub version: u32,
}

/// A digest of what stands in clear for searches to go by: year and blind terms. It is sealed into the capsule, so that
/// a row whose year or terms were altered does not open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark([u8; 16]);

impl Mark {
    pub fn of(yr: Option<i64>, terms: &[i64]) -> Mark {
        Mark::of_bytes(yr, &big_endian(terms))
    }

    /// The same of terms as big-endian bytes.
    pub fn of_bytes(yr: Option<i64>, terms: &[u8]) -> Mark {
        let mut hash = Context::new(&SHA256);
        hash.update(b"phial-index-1");
        hash.update(&[u8::from(yr.is_some())]);
        hash.update(&yr.unwrap_or_default().to_be_bytes());
        hash.update(terms);
        let mut mark = [0; 16];
        mark.copy_from_slice(&hash.finish().as_ref()[..16]);
        Mark(mark)
    }
}

impl Spot {
    fn place(self, purpose: Purpose, section: u8) -> Place {
        Place { purpose, rtype: self.kind.0, rid: self.rid, version: self.version, section }
    }

    fn capsule(self) -> Place {
        self.place(Purpose::Capsule, 0)
    }

    /// Seals a capsule together with the mark of what its row is searched by.
    pub fn seal_capsule(self, keys: &Keys, values: &Values, mark: Mark) -> Result<Vec<u8>> {
        let mut plain = Zeroizing::new(capsule::encode(values));
        plain.reserve_exact(mark.0.len());
        plain.extend_from_slice(&mark.0);
        keys.seal(&self.capsule(), &plain)
    }

    /// Opens a capsule, if its row is still searched by what it was sealed with.
    ///
    /// # Errors
    /// `Kind::Tampered` when it does not verify at this place, or the year or the terms of the row were altered.
    pub fn open_capsule(self, keys: &Keys, sealed: &[u8], mark: Mark) -> Result<Zeroizing<Vec<u8>>> {
        let mut plain = keys.open(&self.capsule(), sealed)?;
        let end = plain.len().checked_sub(mark.0.len()).ok_or_else(|| Error::tampered("search capsule"))?;
        verify_slices_are_equal(&plain[end..], &mark.0).map_err(|_| Error::tampered("year or terms"))?;
        plain.truncate(end);
        Ok(plain)
    }

    /// A section of the row of a domain table (its place in the list of tables): one resource may have rows in several.
    fn domain(self, table: usize, section: Section) -> Place {
        self.place(Purpose::Domain, (table as u8 + 1) << 3 | section as u8)
    }

    /// Seals the row of a domain table, each section on its own.
    pub fn seal_domain(self, keys: &Keys, table: usize, parts: &[(Section, Zeroizing<Vec<u8>>)]) -> Result<Vec<u8>> {
        seal_frame(keys, parts, |section| self.domain(table, section))
    }

    /// The head shares the subkey family of bodies; sections count from 1, so 0 is free for it.
    fn head(self) -> Place {
        self.place(Purpose::Body, 0)
    }

    /// Seals a head: a flag for deletions, then the header as a capsule without values.
    pub fn seal_head(self, keys: &Keys, header: &Header, deleted: bool) -> Result<Vec<u8>> {
        let values = Values { header: header.clone(), params: Default::default(), links: Vec::new() };
        let mut plain = Zeroizing::new(vec![u8::from(deleted)]);
        plain.extend_from_slice(&Zeroizing::new(capsule::encode(&values)));
        keys.seal(&self.head(), &plain)
    }

    /// Header, and whether the version is a deletion.
    pub fn open_head(self, keys: &Keys, sealed: &[u8]) -> Result<(Header, bool)> {
        let plain = keys.open(&self.head(), sealed)?;
        let (deleted, rest) = plain.split_first().ok_or_else(|| Error::tampered("version head"))?;
        let header = View::new(rest)?.header()?;
        self.check(&header)?;
        Ok((header, *deleted != 0))
    }

    /// The header must say what the row says.
    pub fn check(self, header: &Header) -> Result<()> {
        if header.kind == self.kind && header.version == self.version {
            Ok(())
        } else {
            Err(Error::tampered("version header"))
        }
    }

    /// Seals every section of a body.
    pub fn seal_sections(self, keys: &Keys, sections: &[(Section, Zeroizing<Vec<u8>>)]) -> Result<Vec<u8>> {
        seal_frame(keys, sections, |section| self.place(Purpose::Body, section as u8))
    }

    /// Opens the sections that `wanted` allows; says whether others were left closed.
    pub fn open_sections(self, keys: &Keys, frame: &[u8], wanted: impl Fn(Section) -> bool) -> Result<Opened> {
        open_frame(keys, frame, wanted, |section| self.place(Purpose::Body, section as u8))
    }

    /// The row of a domain table. So far it is read to see whether it is as it was written.
    pub fn open_domain(self, keys: &Keys, table: usize, frame: &[u8]) -> Result<Opened> {
        open_frame(keys, frame, |_| true, |section| self.domain(table, section))
    }
}

/// Opens a frame: every section that is wanted, at its place.
fn open_frame(
    keys: &Keys,
    frame: &[u8],
    wanted: impl Fn(Section) -> bool,
    place: impl Fn(Section) -> Place,
) -> Result<Opened> {
    let tampered = || Error::tampered("sections");
    let (count, mut rest) = frame.split_first().ok_or_else(tampered)?;
    let mut seen = 0u16;
    let mut promised = None;
    let mut opened = Opened { sections: Vec::new(), left_out: false };
    for _ in 0..*count {
        let (number, tail) = rest.split_first().ok_or_else(tampered)?;
        let (length, tail) = tail.split_first_chunk::<4>().ok_or_else(tampered)?;
        let (sealed, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(tampered)?;
        rest = tail;
        let section = Section::from_number(*number).ok_or_else(tampered)?;
        seen |= 1 << *number;
        if !wanted(section) {
            opened.left_out = true;
            continue;
        }
        let plain = keys.open(&place(section), sealed)?;
        let (all, content) = plain.split_first_chunk::<2>().ok_or_else(tampered)?;
        if promised.is_some_and(|promised| promised != *all) {
            return Err(tampered());
        }
        promised = Some(*all);
        opened.sections.push((section, Zeroizing::new(content.to_vec())));
    }
    let complete = promised.is_none_or(|promised| u16::from_be_bytes(promised) == seen);
    if !rest.is_empty() || !complete || seen.count_ones() != u32::from(*count) {
        return Err(tampered());
    }
    Ok(opened)
}

/// Seals every section and puts them into one frame: a count, then section number, length and envelope of each.
/// Each section's plaintext starts with the set of all sections, so that none can be taken away unseen.
fn seal_frame(
    keys: &Keys,
    sections: &[(Section, Zeroizing<Vec<u8>>)],
    place: impl Fn(Section) -> Place,
) -> Result<Vec<u8>> {
    let all = sections.iter().fold(0u16, |all, (section, _)| all | 1 << *section as u16);
    let mut frame = vec![sections.len() as u8];
    for (section, content) in sections {
        let mut plain = Zeroizing::new(Vec::with_capacity(content.len() + 2));
        plain.extend_from_slice(&all.to_be_bytes());
        plain.extend_from_slice(content);
        let sealed = keys.seal(&place(*section), &plain)?;
        let length = u32::try_from(sealed.len()).map_err(|_| Error::new(Kind::TooLarge, "Too large to store."))?;
        frame.push(*section as u8);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&sealed);
    }
    Ok(frame)
}

/// Opened sections, in the order they were split.
pub struct Opened {
    pub sections: Vec<(Section, Zeroizing<Vec<u8>>)>,
    pub left_out: bool,
}

impl Receipt {
    /// Whether the audit entry names this version.
    fn covers(&self, rid: Rid, version: u32) -> bool {
        self.covers.contains(&(rid, version))
    }

    /// When the entry says it happened.
    pub fn at(&self) -> crate::world::Instant {
        self.at
    }
}

impl Sealed {
    pub fn kind(&self) -> TypeId {
        self.header.kind
    }

    pub fn rid(&self) -> Rid {
        self.rid
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether this version is a deletion (it has no content then).
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Opens the content as JSON bytes (sections put together; without those the grant does not allow, and then tagged SUBSETTED).
    ///
    /// # Errors
    /// `Kind::Audit` when the receipt does not cover this version; `Kind::Tampered` when it does not verify;
    /// `Kind::Gone` when it is a deletion or its key was destroyed.
    pub(crate) async fn open(&self, receipt: &Receipt, vault: &Vault) -> Result<Zeroizing<Vec<u8>>> {
        if !receipt.covers(self.rid, self.header.version) {
            return Err(Error::new(Kind::Audit, "The audit entry does not name this version; nothing is released."));
        }
        if self.deleted {
            return Err(Error::new(Kind::Gone, "The resource was deleted."));
        }
        let keys = match vault.cached_keys(self.pk) {
            Some(keys) => Some(keys),
            None => vault.keys(&[self.pk]).await?.pop().flatten(),
        };
        let keys: Arc<Keys> = keys.ok_or_else(|| Error::new(Kind::Gone, "The resource was erased."))?;
        let spot = Spot { rid: self.rid, kind: self.header.kind, version: self.header.version };
        let opened = spot.open_sections(&keys, &self.bytes, |section| self.sections.allows(section))?;
        sections::join(opened.sections, opened.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Pk;
    use crate::vault::memory;

    fn spot(rid: i64, version: u32) -> Spot {
        Spot { rid: Rid(rid), kind: TypeId(3), version }
    }

    fn part(section: Section, text: &str) -> (Section, Zeroizing<Vec<u8>>) {
        (section, Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn sections_open_alone_and_no_change_goes_unseen() {
        let vault = memory::vault();
        let keys = vault.keys_or_new(&[Pk(1)]).await.expect("keys").remove(0);
        let parts = [part(Section::Identity, "{\"a\":1}"), part(Section::Contact, "{\"b\":2}")];
        let frame = spot(1, 1).seal_sections(&keys, &parts).expect("seals");
        let all = spot(1, 1).open_sections(&keys, &frame, |_| true).expect("opens");
        assert!(all.sections == parts && !all.left_out);
        let one = spot(1, 1).open_sections(&keys, &frame, |section| section == Section::Contact).expect("opens");
        assert!(one.sections == parts[1..] && one.left_out);

        // Moved to another row or version, cut at any place, any bit flipped, a section taken away.
        let opens = |spot: Spot, frame: &[u8]| spot.open_sections(&keys, frame, |_| true).is_ok();
        assert!(!opens(spot(2, 1), &frame) && !opens(spot(1, 2), &frame));
        assert!((0..frame.len()).all(|len| !opens(spot(1, 1), &frame[..len])));
        for at in 0..frame.len() {
            let mut bent = frame.clone();
            bent[at] ^= 0x20;
            assert!(!opens(spot(1, 1), &bent), "byte {at}");
        }
        let first = 6 + u32::from_be_bytes([frame[2], frame[3], frame[4], frame[5]]) as usize;
        let without: Vec<u8> = [&[1], &frame[first..]].concat();
        assert!(!opens(spot(1, 1), &without));
        let twice: Vec<u8> = [&[2], &frame[1..first], &frame[1..first]].concat();
        assert!(!opens(spot(1, 1), &twice));
    }
}
