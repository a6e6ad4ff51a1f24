// SPDX-License-Identifier: MIT OR Apache-2.0
//! The battery-backed memory.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use vmm_core::memory::MemoryLayout;

/// Number of bytes.
const BYTES: usize = 128;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Conventional memory, in KiB.
const CONVENTIONAL_KIB: u16 = 640;

/// Registers of a PC's firmware convention; words lie low byte first.
const EQUIPMENT: u8 = 0x14;
const CONVENTIONAL: u8 = 0x15;
const EXTENDED: [u8; 2] = [0x17, 0x30];
const ABOVE_16_MIB: u8 = 0x34;
const ABOVE_4_GIB: u8 = 0x5B;
const CHECKSUM: u8 = 0x2E;

/// Equipment byte: a coprocessor, and neither displays nor diskette drives.
const COPROCESSOR: u8 = 0x02;

/// The 128 bytes behind index and data port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct Cmos([u8; BYTES]);

impl Cmos {
    /// The memory as firmware leaves it in a PC with `memory`.
    pub fn of(memory: MemoryLayout) -> Self {
        let mut cmos = Self([0; BYTES]);
        cmos.set(EQUIPMENT, COPROCESSOR);
        cmos.set_bytes(CONVENTIONAL, &CONVENTIONAL_KIB.to_le_bytes());
        let extended = up_to_word(memory.low.saturating_sub(MIB) / KIB);
        EXTENDED.iter().for_each(|&at| cmos.set_bytes(at, &extended.to_le_bytes()));
        let above = up_to_word(memory.low.saturating_sub(16 * MIB) / (64 * KIB));
        cmos.set_bytes(ABOVE_16_MIB, &above.to_le_bytes());
        let [low, middle, high, ..] = (memory.high / (64 * KIB)).min(0xFF_FFFF).to_le_bytes();
        cmos.set_bytes(ABOVE_4_GIB, &[low, middle, high]);
        let sum = (0x10..CHECKSUM).map(|at| u16::from(cmos.get(at))).sum::<u16>();
        cmos.set_bytes(CHECKSUM, &sum.to_be_bytes());
        cmos
    }

    /// The byte at `index & 0x7F`.
    pub fn get(&self, index: u8) -> u8 {
        self.0[usize::from(index & 0x7F)]
    }

    /// Sets the byte at `index & 0x7F`.
    pub fn set(&mut self, index: u8, value: u8) {
        self.0[usize::from(index & 0x7F)] = value;
    }

    fn set_bytes(&mut self, first: u8, bytes: &[u8]) {
        for (index, &byte) in (first..).zip(bytes) {
            self.set(index, byte);
        }
    }
}

fn up_to_word(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

impl TryFrom<Vec<u8>> for Cmos {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| "CMOS memory has 128 bytes")
    }
}

impl From<Cmos> for Vec<u8> {
    fn from(cmos: Cmos) -> Self {
        cmos.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(cmos: &Cmos, at: u8) -> u16 {
        u16::from_le_bytes([cmos.get(at), cmos.get(at + 1)])
    }

    #[test]
    fn memory_sizes_of_a_small_and_a_large_machine() {
        let small = Cmos::of(MemoryLayout { low: 8 * MIB, high: 0 });
        assert_eq!([0x15, 0x17, 0x30, 0x34].map(|at| word(&small, at)), [640, 7168, 7168, 0]);
        let large = Cmos::of(MemoryLayout { low: 3072 * MIB, high: 5120 * MIB });
        assert_eq!([0x17, 0x34].map(|at| word(&large, at)), [0xFFFF, 3056 * 16]);
        assert_eq!([0x5B, 0x5C, 0x5D].map(|at| large.get(at)), [0x00, 0x40, 0x01]);
        let sum: u16 = (0x10..0x2E).map(|at| u16::from(large.get(at))).sum();
        assert_eq!(word(&large, 0x2E).swap_bytes(), sum);
    }

    #[test]
    fn only_whole_memories_are_taken() {
        assert!(Cmos::try_from(vec![0; 127]).is_err());
        assert!(Cmos::try_from(vec![0; 128]).is_ok());
    }
}
