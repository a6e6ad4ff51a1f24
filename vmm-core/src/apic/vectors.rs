// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of interrupt vectors.

use serde::{Deserialize, Serialize};

use crate::Vector;

const WORD_BITS: u8 = 64;

/// A set of interrupt vectors, as IRR, ISR and TMR hold one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// The set that eight registers of 32 vectors each show.
    #[inline]
    pub fn from_registers(registers: [u32; 8]) -> Self {
        let pair = |n: usize| u64::from(registers[2 * n]) | u64::from(registers[2 * n + 1]) << 32;
        Self([pair(0), pair(1), pair(2), pair(3)])
    }

    /// Adds `vector`.
    #[inline]
    pub fn insert(&mut self, vector: Vector) {
        let (word, bit) = Self::position(vector);
        self.0[word] |= bit;
    }

    /// Takes `vector` out.
    #[inline]
    pub fn remove(&mut self, vector: Vector) {
        let (word, bit) = Self::position(vector);
        self.0[word] &= !bit;
    }

    /// True if `vector` is in the set.
    #[inline]
    pub fn contains(&self, vector: Vector) -> bool {
        let (word, bit) = Self::position(vector);
        self.0[word] & bit != 0
    }

    /// The highest vector, which is the one of highest priority.
    #[inline]
    pub fn highest(&self) -> Option<Vector> {
        let word = self.0.iter().rposition(|&w| w != 0)?;
        let bit = u32::from(WORD_BITS) - 1 - self.0[word].leading_zeros();
        Some(Vector((word as u8) * WORD_BITS + bit as u8))
    }

    /// The vectors that are not in `others`.
    #[inline]
    #[must_use]
    pub fn without(mut self, others: Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word &= !other;
        }
        self
    }

    /// Vectors 64 × `index` to 64 × `index` + 63, one bit each. Zero beyond the fourth.
    pub fn quadword(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The vectors, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Vector> + '_ {
        (0..=u8::MAX).map(Vector).filter(|&vector| self.contains(vector))
    }

    /// True if the set is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // A comparison of arrays would be a call.
        self.0.iter().all(|&word| word == 0)
    }

    /// Vectors 32 × `index` to 32 × `index` + 31, as the register with that number shows
    /// them. Zero beyond the eighth register.
    pub fn register(&self, index: usize) -> u32 {
        let word = self.0.get(index / 2).copied().unwrap_or(0);
        (word >> (32 * (index % 2))) as u32
    }

    /// Adds the vectors of register `index`, as [`VectorSet::register`] numbers them.
    #[inline]
    pub(super) fn merge(&mut self, index: usize, bits: u32) {
        if let Some(word) = self.0.get_mut(index / 2) {
            *word |= u64::from(bits) << (32 * (index % 2));
        }
    }

    /// Replaces those vectors of register `index` that `mask` selects.
    #[inline]
    pub(super) fn assign(&mut self, index: usize, mask: u32, bits: u32) {
        if let Some(word) = self.0.get_mut(index / 2) {
            let shift = 32 * (index % 2);
            *word = *word & !(u64::from(mask) << shift) | u64::from(bits & mask) << shift;
        }
    }

    #[inline]
    fn position(vector: Vector) -> (usize, u64) {
        (usize::from(vector.0 / WORD_BITS), 1 << (vector.0 % WORD_BITS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_bytes(operations: Vec<(bool, u8)>) {
            let mut set = VectorSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (insert, vector) in operations {
                if insert {
                    set.insert(Vector(vector));
                    model.insert(vector);
                } else {
                    set.remove(Vector(vector));
                    model.remove(&vector);
                }
                prop_assert_eq!(set.highest().map(|v| v.0), model.last().copied());
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            let registers = core::array::from_fn(|index| set.register(index));
            prop_assert_eq!(VectorSet::from_registers(registers), set);
            let listed: Vec<u8> = set.iter().map(|v| v.0).collect();
            prop_assert_eq!(listed, model.iter().copied().collect::<Vec<u8>>());
            for vector in 0..=255 {
                let register = set.register(usize::from(vector) / 32);
                prop_assert_eq!(set.contains(Vector(vector)), model.contains(&vector));
                prop_assert_eq!(register >> (vector % 32) & 1 == 1, model.contains(&vector));
            }
        }
    }

    #[test]
    fn merges_and_assigns_registers() {
        let mut set = VectorSet::default();
        set.merge(7, 0x8000_0001);
        assert_eq!(set.highest(), Some(Vector(255)));
        set.assign(7, 0x8000_0000, 0);
        assert_eq!(set.highest(), Some(Vector(224)));
        assert_eq!(set.register(7), 1);
        assert_eq!(set.register(8), 0);
    }
}
