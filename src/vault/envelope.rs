//! The envelope: the bytes in which anything sealed lies in a database (design 2.2).
//!
//! ```text
//! 0   u8   version = 1
//! 1   u8   alg      1 = AES-256-GCM, 96-bit random nonce   2 = XAES-256-GCM, 192-bit random nonce
//! 2   u8   flags    bit 0 zstd, bits 1-3 dictionary (0: none), bit 4 padded; the others are 0
//! 3   u16  key version (data key) or epoch (system key)
//! 5   u64  key id: the surrogate, or the number of a system key
//! 13  nonce (12 or 24) | ciphertext | tag 16
//! ```
//! Numbers are big-endian. What is encrypted is `u32 length | content | zeros`, padded so that lengths tell little.

use std::cell::RefCell;

use zeroize::Zeroizing;

use super::crypto::{GCM_NONCE, Gcm, TAG, XAES_NONCE, Xaes};
use super::{Place, Purpose};
use crate::error::{Error, Kind, Result};
use crate::world;

pub(super) const HEADER: usize = 13;
/// The most one envelope holds, in bytes before compression (64 MiB).
pub const PLAIN_MAX: usize = 64 << 20;

const VERSION: u8 = 1;
const ALG_GCM: u8 = 1;
const ALG_XAES: u8 = 2;
const ZSTD: u8 = 1;
const PADDED: u8 = 1 << 4;
const LENGTH: usize = 4;
/// Scheme and owner of everything sealed: the first two fields of every AAD. One process serves one tenant.
const SCHEME: &[u8] = b"fhir-seal/v1";
pub(super) const TENANT: &[u8] = b"default";

/// What the first 13 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    alg: u8,
    flags: u8,
    pub(super) key_version: u16,
    pub(super) key_id: u64,
}

impl Header {
    pub(super) fn read(sealed: &[u8]) -> Option<Header> {
        let head: &[u8; HEADER] = sealed.first_chunk()?;
        let (alg, flags) = (head[1], head[2]);
        // Any bit that this version does not know is refused: a later format must not be half understood.
        if head[0] != VERSION || !matches!(alg, ALG_GCM | ALG_XAES) || flags & !(ZSTD | PADDED) != 0 {
            return None;
        }
        Some(Header {
            alg,
            flags,
            key_version: u16::from_be_bytes([head[3], head[4]]),
            key_id: u64::from_be_bytes(head[5..].try_into().ok()?),
        })
    }

    fn write(self) -> [u8; HEADER] {
        let mut head = [VERSION, self.alg, self.flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        head[3..5].copy_from_slice(&self.key_version.to_be_bytes());
        head[5..].copy_from_slice(&self.key_id.to_be_bytes());
        head
    }
}

/// Additional authenticated data: every field preceded by its length, so that no two lists of fields are the same bytes.
struct Aad(Vec<u8>);

impl Aad {
    fn new(fields: &[&[u8]]) -> Aad {
        let mut bytes = Vec::with_capacity(128);
        for field in [SCHEME, TENANT].iter().chain(fields) {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes()[4..]);
            bytes.extend_from_slice(field);
        }
        Aad(bytes)
    }
}

fn place_aad(place: &Place, header: &[u8]) -> Aad {
    Aad::new(&[
        &[place.purpose as u8],
        &place.rtype.to_be_bytes(),
        &place.rid.0.to_be_bytes(),
        &place.version.to_be_bytes(),
        &[place.section],
        header,
    ])
}

pub(super) fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Body => "body",
        Purpose::Capsule => "capsule",
        Purpose::Blob => "blob",
        Purpose::Domain => "domain",
    }
}

/// Seals under a data key, bound to its place.
pub(super) fn seal_at(key: &Gcm, key_version: u16, key_id: u64, place: &Place, plain: &[u8]) -> Result<Vec<u8>> {
    let (flags, content) = pack(Effort::Content, plain)?;
    let header = Header { alg: ALG_GCM, flags, key_version, key_id }.write();
    let mut nonce = [0u8; GCM_NONCE];
    world::secret(&mut nonce);
    let mut out = Vec::with_capacity(HEADER + GCM_NONCE + content.len() + TAG);
    out.extend_from_slice(&header);
    out.extend_from_slice(&nonce);
    key.seal(&nonce, &place_aad(place, &header).0, &content, &mut out)?;
    Ok(out)
}

/// Opens what [`seal_at`] made for the same place; None when it does not verify.
pub(super) fn open_at(key: &Gcm, header: Header, place: &Place, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if header.alg != ALG_GCM {
        return None;
    }
    let (head, rest) = sealed.split_at_checked(HEADER)?;
    let (nonce, text) = rest.split_first_chunk::<GCM_NONCE>()?;
    unpack(header.flags, key.open(nonce, &place_aad(place, head).0, text)?)
}

/// Seals under a system key, bound to the key's name and to what the caller says of the place.
pub(super) fn seal_system(
    key: &Xaes,
    key_version: u16,
    key_id: u64,
    name: &str,
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>> {
    let (flags, content) = pack(Effort::System, plain)?;
    let header = Header { alg: ALG_XAES, flags, key_version, key_id }.write();
    let mut nonce = [0u8; XAES_NONCE];
    world::secret(&mut nonce);
    let mut out = Vec::with_capacity(HEADER + XAES_NONCE + content.len() + TAG);
    out.extend_from_slice(&header);
    out.extend_from_slice(&nonce);
    key.seal(&nonce, &Aad::new(&[name.as_bytes(), aad, &header]).0, &content, &mut out)?;
    Ok(out)
}

/// Opens what [`seal_system`] made; None when it does not verify.
pub(super) fn open_system(
    key: &Xaes,
    key_version: u16,
    key_id: u64,
    name: &str,
    aad: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let header = Header::read(sealed)?;
    if header.alg != ALG_XAES || header.key_version != key_version || header.key_id != key_id {
        return None;
    }
    let (head, rest) = sealed.split_at_checked(HEADER)?;
    let (nonce, text) = rest.split_first_chunk::<XAES_NONCE>()?;
    unpack(header.flags, key.open(nonce, &Aad::new(&[name.as_bytes(), aad, head]).0, text)?)
}

/// Length to which `length` bytes are padded: a multiple of 64 up to 2 KiB, then Padmé (at most 12 % more, and only
/// O(log log n) bits of the length remain visible).
fn padded(length: usize) -> usize {
    if length <= 2048 {
        return length.next_multiple_of(64).max(64);
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1usize << (exponent - kept)) - 1;
    (length + mask) & !mask
}

/// How hard to compress.
#[derive(Clone, Copy)]
enum Effort {
    /// Level 3 gives what level 1 does not on 2 KB of JSON, and costs little more with a reused context.
    Content,
    /// Entries that are much alike: level 1 makes them as small, and its tables are reset in a third of the time.
    System,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Effort::Content => 3,
            Effort::System => 1,
        }
    }
}

thread_local! {
    /// One of each effort.
    static COMPRESSORS: [RefCell<Option<zstd::bulk::Compressor<'static>>>; 2] =
        const { [RefCell::new(None), RefCell::new(None)] };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Writes the zstd frame of `plain` into `out`; None when it does not fit, that is: does not help.
fn compress(effort: Effort, plain: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
    COMPRESSORS.with(|slots| {
        let slot = &mut *slots[effort as usize].borrow_mut();
        let compressor = match slot {
            Some(ready) => ready,
            None => slot.insert(zstd::bulk::Compressor::new(effort.level()).map_err(Error::internal)?),
        };
        Ok(compressor.compress_to_buffer(plain, out).ok())
    })
}

fn decompress(frame: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let size = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
    let size = usize::try_from(size).ok().filter(|size| *size <= PLAIN_MAX)?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(ready) => ready,
            None => slot.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        let mut plain = Zeroizing::new(Vec::with_capacity(size));
        let written = decompressor.decompress_to_buffer(frame, &mut *plain).ok()?;
        (written == size).then_some(plain)
    })
}

/// Compresses where that saves a padding step, and pads. Gives the flags and what is to be encrypted.
fn pack(effort: Effort, plain: &[u8]) -> Result<(u8, Zeroizing<Vec<u8>>)> {
    if plain.len() > PLAIN_MAX {
        return Err(Error::new(Kind::TooLarge, format!("One sealed part may hold at most {PLAIN_MAX} bytes.")));
    }
    let as_is = padded(LENGTH + plain.len());
    let mut buffer = Zeroizing::new(vec![0u8; as_is]);
    // Not even an empty frame would save a step below this.
    if as_is > 64
        && let Some(size) = compress(effort, plain, &mut buffer[LENGTH..LENGTH + plain.len()])?
    {
        let target = padded(LENGTH + size);
        if target < as_is {
            buffer[..LENGTH].copy_from_slice(&(size as u32).to_be_bytes());
            buffer[LENGTH + size..].fill(0);
            buffer.truncate(target);
            return Ok((ZSTD | PADDED, buffer));
        }
    }
    buffer[..LENGTH].copy_from_slice(&(plain.len() as u32).to_be_bytes());
    buffer[LENGTH..LENGTH + plain.len()].copy_from_slice(plain);
    buffer[LENGTH + plain.len()..].fill(0);
    Ok((PADDED, buffer))
}

/// Undoes [`pack`]; None when it is not something `pack` makes.
fn unpack(flags: u8, mut content: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    if flags & PADDED == 0 {
        return None;
    }
    let length = u32::from_be_bytes(*content.first_chunk::<LENGTH>()?) as usize;
    let end = LENGTH.checked_add(length).filter(|end| *end <= content.len())?;
    if flags & ZSTD != 0 {
        return decompress(&content[LENGTH..end]);
    }
    content.copy_within(LENGTH..end, 0);
    content.truncate(length);
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_is_64_then_padme() {
        let pairs = [
            (0, 64),
            (1, 64),
            (64, 64),
            (65, 128),
            (2048, 2048),
            (2049, 2176),
            (9_000, 9_216),
            (65_537, 67_584),
            (1_000_000, 1_015_808),
        ];
        for (length, expected) in pairs {
            assert_eq!(padded(length), expected, "{length}");
        }
    }

    #[test]
    fn headers_of_other_versions_are_refused() {
        let good = Header { alg: ALG_GCM, flags: ZSTD | PADDED, key_version: 7, key_id: u64::MAX - 1 };
        let bytes = good.write();
        assert_eq!(bytes, [1, 1, 17, 0, 7, 255, 255, 255, 255, 255, 255, 255, 254]);
        assert_eq!(Header::read(&bytes), Some(good));
        for (place, value) in [(0, 0), (0, 2), (1, 0), (1, 3), (2, 0b10), (2, 0b10_0000)] {
            let mut other = bytes;
            other[place] = value;
            assert_eq!(Header::read(&other), None, "byte {place} = {value}");
        }
        assert_eq!(Header::read(&bytes[..12]), None);
    }

    #[test]
    fn a_frame_that_claims_more_than_the_limit_is_not_opened() {
        // A legal zstd frame header with an 8-byte content size of 2^40.
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0xE0];
        frame.extend_from_slice(&(1u64 << 40).to_le_bytes());
        frame.extend_from_slice(&[1, 0, 0]);
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).ok().flatten(), Some(1 << 40));
        assert!(decompress(&frame).is_none());
    }

    #[test]
    fn what_does_not_shrink_is_kept_as_it_is() {
        let mut noise = vec![0u8; 1000];
        world::secret(&mut noise);
        let (flags, content) = pack(Effort::Content, &noise).unwrap();
        assert_eq!((flags, content.len()), (PADDED, 1024));
        let (flags, content) = pack(Effort::System, &[b' '; 1000]).unwrap();
        assert_eq!((flags, content.len()), (ZSTD | PADDED, 64));
    }

    #[test]
    fn too_large_is_said() {
        let error = pack(Effort::Content, &vec![0; PLAIN_MAX + 1]).err().map(|e| e.kind);
        assert_eq!(error, Some(Kind::TooLarge));
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(plain in proptest::collection::vec(0u8..4, 0..6000)) {
            let (flags, content) = pack(Effort::Content, &plain).unwrap();
            prop_assert_eq!(padded(content.len()), content.len());
            prop_assert_eq!(&**unpack(flags, content).unwrap(), &plain[..]);
        }

        #[test]
        fn unpack_of_anything_does_not_panic(flags in 0u8..32, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(flags, Zeroizing::new(bytes));
        }
    }
}
