// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers that are drawn fast, and again in the same way from the same seed.

/// Numbers from one random one.
#[derive(Clone, Copy)]
pub struct Dice(pub u64);

impl Dice {
    /// Below `limit`, which is small.
    pub fn roll(&mut self, limit: u64) -> u64 {
        // The generator of Knuth's MMIX; its high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// True once in `limit` times.
    pub fn one_in(&mut self, limit: u64) -> bool {
        self.roll(limit) == 0
    }

    /// This bit, once in so many times.
    pub fn bit_if(&mut self, one_in: u64, bit: u32) -> u64 {
        u64::from(self.one_in(one_in)) << bit
    }

    /// One of `these`.
    pub fn pick<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.roll(these.len() as u64) as usize]
    }
}
