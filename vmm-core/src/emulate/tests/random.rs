// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reproducible random numbers (SplitMix64).

/// A generator; equal seeds give equal sequences.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A value in which the edges of all operand sizes are as likely as the rest.
    pub fn operand(&mut self) -> u64 {
        const EDGES: [u64; 10] =
            [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000, u64::MAX];
        match self.below(4) {
            0 => *self.pick(&EDGES),
            1 => self.next() & 0xFF,
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }
}
