// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers that are drawn fast, and again in the same way from the same seed.

use crate::test_support::Given;

/// Numbers from one random one, or from bytes as long as there are some.
#[derive(Clone)]
pub struct Dice {
    given: Given,
    state: u64,
}

impl Dice {
    #[cfg(test)]
    /// All numbers come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { given: Given::default(), state: seed }
    }

    /// The first numbers are those that `bytes` say, a byte each where that is enough.
    pub fn of(bytes: &[u8]) -> Self {
        let given = Given::new(bytes);
        Self { state: given.digest(), given }
    }

    /// Below `limit`, which is small.
    pub fn roll(&mut self, limit: u64) -> u64 {
        if let Some(number) = self.given.take(if limit > 0x100 { 4 } else { 1 }) {
            return number % limit;
        }
        // The generator of Knuth's MMIX; its high bits are the good ones.
        let product = self.state.wrapping_mul(6_364_136_223_846_793_005);
        self.state = product.wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
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
