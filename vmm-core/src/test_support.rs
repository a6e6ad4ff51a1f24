// SPDX-License-Identifier: MIT OR Apache-2.0
//! The models that the unit tests compare this crate with, for fuzz targets that do the same.
//!
//! Each function that takes bytes makes of them what a test makes of a seed, and panics where
//! something does not hold. None of this is in a build without the feature `test-support`.

use std::vec;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use crate::emulate::tests::native::Differential;
pub use crate::emulate::tests::{hostile, machine, random};
pub use crate::paging::{shadow::tests::check_sequence, tests::check_walks};
pub use crate::vcpu::hostile::check as check_exits;

/// Bytes that decide before a generator of random numbers does.
#[derive(Clone, Default)]
pub struct Given(vec::IntoIter<u8>);

impl Given {
    /// These bytes, the first one first.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Vec::from(bytes).into_iter())
    }

    /// The number in the next `bytes` bytes, at most 8, of which the last may be missing; `None`
    /// when all are used up.
    pub fn take(&mut self, bytes: usize) -> Option<u64> {
        if self.0.len() == 0 {
            return None;
        }
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(self.0.by_ref().take(bytes)) {
            *to = from;
        }
        Some(u64::from_le_bytes(number))
    }

    /// A number that depends on all of the bytes (FNV-1a).
    pub fn digest(&self) -> u64 {
        self.0.as_slice().iter().fold(0xCBF2_9CE4_8422_2325, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        })
    }
}
