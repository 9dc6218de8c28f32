//! Clock, ids and randomness: the only module that reads them, so that a test can hold the clock still.

#[cfg(feature = "bench-switches")]
pub mod bench;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// FHIR `instant` in UTC with milliseconds: `2026-01-31T08:15:30.123Z`.
    pub fn to_fhir(self) -> String {
        let stamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{stamp:.3}")
    }

    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus_ms(self, ms: i64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }
}

/// The outside world as the server sees it.
pub struct World {
    /// i64::MIN: the system clock; otherwise a clock that a test holds.
    held_ms: AtomicI64,
    /// 0: real randomness; otherwise the state of a deterministic sequence for tests.
    seeded: AtomicU64,
}

impl World {
    pub fn real() -> Self {
        World { held_ms: AtomicI64::new(i64::MIN), seeded: AtomicU64::new(0) }
    }

    /// For tests: the clock stands at `now` and ids follow from `seed` (never use for keys).
    pub fn held(now: Instant, seed: u64) -> Self {
        World { held_ms: AtomicI64::new(now.0), seeded: AtomicU64::new(seed | 1) }
    }

    /// For tests: moves a held clock.
    pub fn set_now(&self, now: Instant) {
        self.held_ms.store(now.0, Ordering::SeqCst);
    }

    pub fn now(&self) -> Instant {
        match self.held_ms.load(Ordering::SeqCst) {
            i64::MIN => Instant(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)),
            ms => Instant(ms),
        }
    }

    /// Fills `out` for identifiers; in a held world the bytes are deterministic.
    pub fn fill(&self, out: &mut [u8]) {
        if self.seeded.load(Ordering::SeqCst) == 0 {
            return secret(out);
        }
        for chunk in out.chunks_mut(8) {
            // SplitMix64: good enough for distinct test ids.
            let mut z = self.seeded.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    /// A random positive 63-bit number, never 0: surrogates that tell nothing of order.
    pub fn surrogate(&self) -> i64 {
        let mut bytes = [0u8; 8];
        loop {
            self.fill(&mut bytes);
            let n = i64::from_le_bytes(bytes) & i64::MAX;
            if n != 0 {
                return n;
            }
        }
    }

    /// A random (version 4) UUID in lower case: the form of every id the server gives.
    pub fn uuid(&self) -> String {
        let mut b = [0u8; 16];
        self.fill(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex = hex(&b);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// The folder that a file lies in.
pub fn folder_of(file: &std::path::Path) -> &std::path::Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Fills `out` with secret random bytes (keys, nonces, secrets): always the real generator.
///
/// # Panics
/// When the operating system has no randomness to give: nothing may be sealed then.
pub fn secret(out: &mut [u8]) {
    rand::fill(out).expect("the operating system gives randomness");
}

/// Measures how long something takes; for figures and logs only, never for decisions.
#[derive(Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    pub fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}
