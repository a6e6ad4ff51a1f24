// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lengths of CPUID instructions that the CPU has told before.
//!
//! CPUID takes no operand, and a guest executes it at few places. Where it exited once, its
//! length is known and need not be read again. A guest that puts a CPUID of another length,
//! with idle prefixes, in the place of one that it executed confuses nobody but itself.

use core::cell::Cell;

const SLOTS: usize = 16;

/// A small table of places and lengths.
#[derive(Default)]
pub struct LengthMemo {
    slots: [Cell<(u64, u8)>; SLOTS],
}

const fn slot(rip: u64) -> usize {
    (rip ^ rip >> 4 ^ rip >> 12) as usize % SLOTS
}

impl LengthMemo {
    /// The length of the instruction at `rip`, if it was noted.
    pub fn get(&self, rip: u64) -> Option<u8> {
        let (at, length) = self.slots[slot(rip)].get();
        (at == rip && length != 0).then_some(length)
    }

    /// Notes a length.
    pub fn note(&self, rip: u64, length: u8) {
        self.slots[slot(rip)].set((rip, length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_noted_last() {
        let memo = LengthMemo::default();
        assert_eq!(memo.get(0), None);
        memo.note(0x1000, 2);
        assert_eq!((memo.get(0x1000), memo.get(0x1010)), (Some(2), None));
        memo.note(0x1000, 3);
        assert_eq!(memo.get(0x1000), Some(3));
        for rip in 0..100 {
            memo.note(0x2000 + rip, 2);
        }
        assert_eq!(memo.get(0x1000), None, "another place took the slot");
    }
}
