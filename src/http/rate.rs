//! Allowances that are used up and fill again evenly (GCRA), for however many keys in a fixed amount of memory. Knows no
//! addresses and no HTTP.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};

use crate::world::Instant;

/// An allowance that was used up is whole again after so long.
pub(super) const WINDOW_MS: i64 = 300_000;
const WINDOW_US: i64 = WINDOW_MS * 1000;
/// 65,536 keys of 24 bytes: 1.5 MB.
const SETS: usize = 8192;
const WAYS: usize = 8;

/// What is known of one key.
#[derive(Clone, Copy)]
struct Cell {
    /// 0: empty.
    key: u64,
    /// When the allowance is whole again, in microseconds since 1970; earlier: it is.
    whole_us: i64,
    /// Until then a refusal has been told.
    told_us: i64,
}

const EMPTY: Cell = Cell { key: 0, whole_us: i64::MIN, told_us: i64::MIN };

/// A refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Empty {
    /// When to try again.
    pub wait_ms: i64,
    /// The first one of this key in a window: it goes on record, the others are counted.
    pub first: bool,
}

/// The allowances. A key belongs to one set; when that is full, the key that has used least of its allowance is
/// forgotten. Whoever comes from very many addresses thereby gains nothing but what each address has anyway.
pub(super) struct Rates {
    sets: Vec<Mutex<[Cell; WAYS]>>,
    /// Keyed anew at each start, so that nobody can choose keys that meet in one set.
    hasher: RandomState,
}

impl Rates {
    pub(super) fn new() -> Rates {
        Rates { sets: (0..SETS).map(|_| Mutex::new([EMPTY; WAYS])).collect(), hasher: RandomState::new() }
    }

    /// Uses one of `max` (0: no limit).
    pub(super) fn take(&self, key: &impl Hash, max: u64, now: Instant) -> Result<(), Empty> {
        if max == 0 {
            return Ok(());
        }
        self.with(key, now, |cell, now_us| {
            let after = cell.whole_us.max(now_us) + step_us(max);
            let wait_us = after - now_us - WINDOW_US;
            if wait_us <= 0 {
                cell.whole_us = after;
                return Ok(());
            }
            let first = now_us >= cell.told_us;
            if first {
                cell.told_us = now_us + WINDOW_US;
            }
            Err(Empty { wait_ms: (wait_us + 999) / 1000, first })
        })
    }

    /// Gives back what was taken for something that does not count after all.
    pub(super) fn give_back(&self, key: &impl Hash, max: u64, now: Instant) {
        if max > 0 {
            self.with(key, now, |cell, _| cell.whole_us = cell.whole_us.saturating_sub(step_us(max)));
        }
    }

    fn with<T>(&self, key: &impl Hash, now: Instant, change: impl FnOnce(&mut Cell, i64) -> T) -> T {
        let now_us = now.0.saturating_mul(1000);
        let hash = self.hasher.hash_one(key).max(1);
        // The set by other bits than a cell is told by would not matter: the whole hash is compared.
        let set = &self.sets[usize::try_from(hash % SETS as u64).unwrap_or(0)];
        let mut cells = set.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cells.iter().position(|cell| cell.key == hash).unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|at| cells[*at].whole_us).unwrap_or(0);
            cells[least] = Cell { key: hash, ..EMPTY };
            least
        });
        let cell = &mut cells[at];
        // A clock that was set back must not lock anybody out for longer than a window.
        cell.whole_us = cell.whole_us.min(now_us + WINDOW_US);
        cell.told_us = cell.told_us.min(now_us + WINDOW_US);
        change(cell, now_us)
    }
}

/// The time in which one of `max` comes back.
fn step_us(max: u64) -> i64 {
    (WINDOW_US / i64::try_from(max).unwrap_or(WINDOW_US)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_800_000_000_000);

    #[test]
    fn an_allowance_is_used_up_and_fills_again_evenly() {
        for max in [1, 2, 7, 30, 2000, 300_000] {
            let rates = Rates::new();
            let takes = |now: Instant| (0..=2 * max).take_while(|_| rates.take(&"a", max, now).is_ok()).count() as u64;
            assert_eq!(takes(NOW), max);
            let refused = rates.take(&"a", max, NOW).unwrap_err();
            assert!(refused.wait_ms > 0 && refused.wait_ms <= WINDOW_MS / max as i64 + 1, "{refused:?}");
            assert_eq!(rates.take(&"b", max, NOW), Ok(()), "another key has its own");
            let later = NOW.plus_ms(refused.wait_ms);
            assert!(takes(later) >= 1, "what was said holds: {max}");
            let half = later.plus_ms(WINDOW_MS / 2);
            assert!(takes(half).abs_diff(max / 2) <= 1, "half of it is back after half the time: {max}");
            assert_eq!(takes(half.plus_ms(WINDOW_MS)), max);
        }
        let rates = Rates::new();
        assert!((0..100_000).all(|_| rates.take(&"a", 0, NOW).is_ok()), "0 is no limit");
    }

    #[test]
    fn a_refusal_is_told_once_in_a_window() {
        let rates = Rates::new();
        assert_eq!(rates.take(&1, 1, NOW), Ok(()));
        let told = |now: Instant| rates.take(&1, 1, now).unwrap_err().first;
        assert!(told(NOW));
        assert!(!told(NOW) && !told(NOW.plus_ms(WINDOW_MS - 1)));
        let later = NOW.plus_ms(WINDOW_MS);
        assert_eq!(rates.take(&1, 1, later), Ok(()));
        assert!(told(later) && !told(later));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let rates = Rates::new();
        for _ in 0..1000 {
            assert_eq!(rates.take(&1, 2, NOW), Ok(()));
            rates.give_back(&1, 2, NOW);
        }
        assert!(rates.take(&1, 2, NOW).is_ok() && rates.take(&1, 2, NOW).is_ok() && rates.take(&1, 2, NOW).is_err());
        // Nobody saves up.
        for _ in 0..10 {
            rates.give_back(&2, 2, NOW);
        }
        assert!(rates.take(&2, 2, NOW).is_ok() && rates.take(&2, 2, NOW).is_ok() && rates.take(&2, 2, NOW).is_err());
    }

    #[test]
    fn a_flood_of_keys_takes_no_memory_and_frees_nobody_who_is_refused() {
        let rates = Rates::new();
        assert!((0..1000).all(|_| rates.take(&"loud", 1000, NOW).is_ok()));
        let cells = rates.sets.len() * WAYS;
        for n in 0..4 * cells {
            let _ = rates.take(&n, 1000, NOW);
        }
        assert_eq!(rates.sets.len() * WAYS, cells);
        assert!(rates.take(&"loud", 1000, NOW).is_err(), "it is not the one that is forgotten");
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let rates = Rates::new();
        let ahead = NOW.plus_ms(1000 * WINDOW_MS);
        while rates.take(&1, 5, ahead).is_ok() {}
        assert!(rates.take(&1, 5, NOW).unwrap_err().wait_ms <= WINDOW_MS);
        assert!(rates.take(&1, 5, NOW.plus_ms(WINDOW_MS)).is_ok());
    }
}
