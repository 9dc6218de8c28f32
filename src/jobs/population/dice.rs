//! Deterministic draws: the same seed gives the same sequence on every machine. Not a source of secrets.

use super::Node;

/// SplitMix64. Only integer and plain float operations, so that no platform's `libm` shows in the data.
pub struct Dice {
    state: u64,
}

impl Dice {
    /// A sequence of its own for each `(seed, stream)`: one part of the data does not shift when another changes.
    pub fn new(seed: u64, stream: &[u64]) -> Dice {
        let mut dice = Dice { state: seed };
        for part in stream {
            let mixed = dice.next();
            dice.state = mixed ^ part.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        }
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 <= n < `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// `low` <= n <= `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as u64) as i64
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// 0 <= x < 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Around `mean`, nearly normal (twelve uniforms), never more than six deviations away.
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.unit()).sum();
        mean + (sum - 6.0) * deviation
    }

    /// A version 4 UUID in lower case.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }
}

/// A FHIR decimal with exactly `places` digits after the point.
pub fn decimal(value: f64, places: usize) -> Node {
    let text = format!("{value:.places$}");
    // Digits with one point: always a JSON number.
    serde_json::from_str(&text).unwrap_or(Node::Null)
}
