// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reproducible random numbers (SplitMix64).

use crate::test_support::Given;

/// A generator; equal seeds, and equal bytes, give equal sequences.
pub struct Random {
    given: Given,
    state: u64,
}

impl Random {
    /// All numbers come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { given: Given::default(), state: seed }
    }

    /// The first numbers are `bytes`; small ones take only as many as they need.
    pub fn of(bytes: &[u8]) -> Self {
        let given = Given::new(bytes);
        Self { state: given.digest(), given }
    }

    /// All 64 bits are random.
    pub fn bits(&mut self) -> u64 {
        self.given.take(8).unwrap_or_else(|| self.generate())
    }

    /// As [`bits`](Self::bits), and takes none of the bytes.
    pub fn generate(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bytes = if bound > 0x1_0000 { 8 } else { 2 };
        let bytes = if bound > 0x100 { bytes } else { 1 };
        let number = self.given.take(bytes).unwrap_or_else(|| self.generate());
        number % bound
    }

    /// True once in `one_in` times.
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// One of `from`.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A value in which the edges of all operand sizes are as likely as the rest.
    pub fn operand(&mut self) -> u64 {
        const EDGES: [u64; 10] =
            [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000, u64::MAX];
        match self.below(4) {
            0 => *self.pick(&EDGES),
            1 => self.bits() & 0xFF,
            2 => 1 << self.below(64),
            _ => self.bits(),
        }
    }
}
