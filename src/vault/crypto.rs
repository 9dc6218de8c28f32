//! The primitives, each behind one function that says what it guarantees: HKDF-SHA-256, AES-256-GCM with random
//! nonces, XAES-256-GCM (C2SP) for keys that seal very many messages. Knows nothing of formats or places.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{cmac, hkdf};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::world;

pub(super) const TAG: usize = 16;
pub(super) const GCM_NONCE: usize = NONCE_LEN;
pub(super) const XAES_NONCE: usize = 24;

/// 256 secret bits, wiped when dropped.
pub(super) type Key256 = Zeroizing<[u8; 32]>;

pub(super) fn random_key() -> Key256 {
    let mut key = Zeroizing::new([0u8; 32]);
    world::secret(&mut *key);
    key
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand (RFC 5869) of a key that is itself uniformly random, so that no extraction is needed. Each part of
/// `info` is preceded by its length: no two lists of parts give the same key.
pub(super) fn derive(key: &[u8; 32], info: &[&[u8]], out: &mut [u8]) {
    const PARTS: usize = 8;
    assert!(info.len() <= PARTS, "a derivation names at most {PARTS} parts");
    let mut lengths = [[0u8; 1]; PARTS];
    let mut pieces: [&[u8]; 2 * PARTS + 1] = [b""; 2 * PARTS + 1];
    pieces[0] = b"phial/v1";
    for (length, part) in lengths.iter_mut().zip(info) {
        *length = [u8::try_from(part.len()).expect("a part of a derivation is a short label")];
    }
    for (n, part) in info.iter().enumerate() {
        pieces[1 + 2 * n] = &lengths[n];
        pieces[2 + 2 * n] = part;
    }
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)
        .expand(&pieces[..=2 * info.len()], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 8160 bytes");
}

pub(super) fn derive_key(key: &[u8; 32], info: &[&[u8]]) -> Key256 {
    let mut out = Zeroizing::new([0u8; 32]);
    derive(key, info, &mut *out);
    out
}

/// AES-256-GCM with its key schedule done.
pub(super) struct Gcm(LessSafeKey);

impl Gcm {
    pub(super) fn new(key: &[u8; 32]) -> Gcm {
        Gcm(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes")))
    }

    /// Appends the ciphertext of `plain` and the tag to `out`.
    pub(super) fn seal(&self, nonce: &[u8; GCM_NONCE], aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::seal(plain, out);
        }
        let start = out.len();
        out.resize(start + plain.len() + TAG, 0);
        let (text, tag) = out[start..].split_at_mut(plain.len());
        self.0
            .seal_out_of_place_scatter(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), plain, text, &[], tag)
            .map_err(Error::internal)
    }

    /// Opens `sealed` (ciphertext and tag); None when it does not verify.
    pub(super) fn open(&self, nonce: &[u8; GCM_NONCE], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::open(sealed);
        }
        let (text, tag) = sealed.split_at(sealed.len().checked_sub(TAG)?);
        let mut plain = Zeroizing::new(vec![0u8; text.len()]);
        self.0
            .open_separate_gather(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text, tag, &mut plain)
            .ok()?;
        Some(plain)
    }
}

/// XAES-256-GCM (c2sp.org/XAES-256-GCM): a 192-bit nonce may be random for 2^80 messages under one key. The subkey of
/// a message is a counter KDF (SP 800-108) with CMAC-AES-256 over the first half of the nonce.
pub(super) struct Xaes(cmac::Key);

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Xaes {
        Xaes(cmac::Key::new(cmac::AES_256, key).expect("an AES-256 key has 32 bytes"))
    }

    fn message_key(&self, nonce: &[u8; XAES_NONCE]) -> Result<(Gcm, [u8; GCM_NONCE])> {
        let mut key = Zeroizing::new([0u8; 32]);
        for (counter, half) in (1u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = [0u8; 16];
            block[1] = counter;
            block[2] = b'X';
            block[4..].copy_from_slice(&nonce[..12]);
            cmac::sign_to_buffer(&self.0, &block, half).map_err(Error::internal)?;
        }
        let mut rest = [0u8; GCM_NONCE];
        rest.copy_from_slice(&nonce[12..]);
        Ok((Gcm::new(&key), rest))
    }

    /// Appends the ciphertext of `plain` and the tag to `out`.
    pub(super) fn seal(&self, nonce: &[u8; XAES_NONCE], aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::seal(plain, out);
        }
        let (gcm, nonce) = self.message_key(nonce)?;
        gcm.seal(&nonce, aad, plain, out)
    }

    /// Opens `sealed` (ciphertext and tag); None when it does not verify.
    pub(super) fn open(&self, nonce: &[u8; XAES_NONCE], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return super::bench::open(sealed);
        }
        let (gcm, nonce) = self.message_key(nonce).ok()?;
        gcm.open(&nonce, aad, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::hex;

    fn xaes_seal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Xaes::new(key).seal(nonce, aad, plain, &mut out).unwrap();
        assert_eq!(**Xaes::new(key).open(nonce, aad, &out).unwrap(), *plain);
        out
    }

    #[test]
    fn xaes_gives_the_published_vectors() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        assert_eq!(
            hex(&xaes_seal(&[1; 32], nonce, b"", b"XAES-256-GCM")),
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
        );
        assert_eq!(
            hex(&xaes_seal(&[3; 32], nonce, b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM")),
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"
        );
    }

    #[test]
    fn xaes_gives_the_published_accumulated_vector() {
        let (mut input, mut output) = (Shake128::new(), Shake128::new());
        for _ in 0..10_000 {
            let key: [u8; 32] = input.take(32).try_into().unwrap();
            let nonce: [u8; 24] = input.take(24).try_into().unwrap();
            let length = usize::from(input.take(1)[0]);
            let plain = input.take(length);
            let length = usize::from(input.take(1)[0]);
            let aad = input.take(length);
            output.absorb(&xaes_seal(&key, &nonce, &aad, &plain));
        }
        assert_eq!(hex(&output.take(32)), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    }

    #[test]
    fn hkdf_expand_is_that_of_rfc_5869() {
        // HMAC(prk, info || 0x01) by RFC 5869, computed independently with another implementation.
        let prk: Vec<u8> = (0..32u8).collect();
        let mut out = [0u8; 32];
        derive(prk.as_slice().try_into().unwrap(), &[b"wrap-dek"], &mut out);
        assert_eq!(hex(&out), "4d34402d1fa6490841dcb8945e9c8511f74c49ec288e1bf86a39a1ddd182f646");
    }

    /// SHAKE-128, for the test vectors alone (FIPS 202).
    struct Shake128 {
        state: [u64; 25],
        at: usize,
        squeezing: bool,
    }

    impl Shake128 {
        const RATE: usize = 168;

        fn new() -> Self {
            Shake128 { state: [0; 25], at: 0, squeezing: false }
        }

        fn absorb(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.state[self.at / 8] ^= u64::from(*byte) << (8 * (self.at % 8));
                self.at += 1;
                if self.at == Self::RATE {
                    self.permute();
                }
            }
        }

        fn take(&mut self, count: usize) -> Vec<u8> {
            if !self.squeezing {
                self.state[self.at / 8] ^= 0x1f << (8 * (self.at % 8));
                self.state[(Self::RATE - 1) / 8] ^= 0x80 << 56;
                self.permute();
                self.squeezing = true;
            }
            let mut out = Vec::with_capacity(count);
            for _ in 0..count {
                if self.at == Self::RATE {
                    self.permute();
                }
                out.push((self.state[self.at / 8] >> (8 * (self.at % 8))) as u8);
                self.at += 1;
            }
            out
        }

        fn permute(&mut self) {
            self.at = 0;
            let s = &mut self.state;
            let mut lfsr = 1u8;
            for _ in 0..24 {
                let c: [u64; 5] = std::array::from_fn(|x| s[x] ^ s[x + 5] ^ s[x + 10] ^ s[x + 15] ^ s[x + 20]);
                for (n, lane) in s.iter_mut().enumerate() {
                    *lane ^= c[(n % 5 + 4) % 5] ^ c[(n % 5 + 1) % 5].rotate_left(1);
                }
                let (mut x, mut y, mut carried) = (1, 0, s[1]);
                for t in 0..24u32 {
                    (x, y) = (y, (2 * x + 3 * y) % 5);
                    carried = std::mem::replace(&mut s[x + 5 * y], carried.rotate_left((t + 1) * (t + 2) / 2 % 64));
                }
                for row in s.chunks_exact_mut(5) {
                    let old: [u64; 5] = std::array::from_fn(|n| row[n]);
                    for (n, lane) in row.iter_mut().enumerate() {
                        *lane = old[n] ^ (!old[(n + 1) % 5] & old[(n + 2) % 5]);
                    }
                }
                for j in 0..7 {
                    if lfsr & 1 == 1 {
                        s[0] ^= 1 << ((1 << j) - 1);
                    }
                    lfsr = (lfsr << 1) ^ (if lfsr & 0x80 == 0 { 0 } else { 0x71 });
                }
            }
        }
    }

    #[test]
    fn shake_stream_starts_as_published() {
        assert_eq!(hex(&Shake128::new().take(16)), "7f9c2ba4e88f827d616045507605853e");
    }
}
