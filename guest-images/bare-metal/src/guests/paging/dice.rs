// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pseudo-random numbers, the same on every run.

/// Knuth's generator of MMIX; its high bits are the good ones.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `limit`.
    pub fn roll(&mut self, limit: u64) -> u64 {
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        self.0 = self.0.wrapping_mul(FACTOR).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    pub fn one_in(&mut self, limit: u64) -> bool {
        self.roll(limit) == 0
    }

    /// The bit, set once in so many times.
    pub fn bit(&mut self, one_in: u64, bit: u32) -> u64 {
        u64::from(self.one_in(one_in)) << bit
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.roll(of.len() as u64) as usize).copied()
    }
}
