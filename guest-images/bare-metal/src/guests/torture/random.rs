// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one source of all decisions.

/// A stream of numbers that follows from its seed alone (SplitMix64: Steele, Lea and Flood, "Fast
/// Splittable Pseudorandom Number Generators", 2014).
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `bound`, which is small and not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T], other: T) -> T {
        let index = self.below(from.len() as u64) as usize;
        from.get(index).copied().unwrap_or(other)
    }

    /// A number of any magnitude: few bits as often as many.
    pub fn magnitude(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }
}
