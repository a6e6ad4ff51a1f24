// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID instructions whose length need not be read again.
//!
//! CPUID takes no operand, and a guest executes it at few places: to ask the VMCS for its length at
//! each exit would be a fifth access of five. But other code may come to lie at an address that is
//! known, that of another process of the guest, too. So only the plain instruction is remembered,
//! as everybody writes it: nobody can have it end elsewhere by one with idle prefixes. And a vCPU
//! that has met one of those does without from then on. What remains is the first of them, if it
//! lies where a plain one was met; it goes on in its own midst.

use core::cell::Cell;

const PLACES: usize = 16;
/// Bytes of the instruction without prefixes.
const PLAIN: u8 = 2;
/// No instruction of two bytes lies there.
const NOWHERE: u64 = u64::MAX;

/// Places of plain CPUID instructions.
pub struct PlainCpuid {
    places: [Cell<u64>; PLACES],
    /// None has been seen that is not plain.
    holds: Cell<bool>,
}

impl Default for PlainCpuid {
    fn default() -> Self {
        Self { places: [const { Cell::new(NOWHERE) }; PLACES], holds: Cell::new(true) }
    }
}

const fn slot(rip: u64) -> usize {
    (rip ^ rip >> 4 ^ rip >> 12) as usize % PLACES
}

impl PlainCpuid {
    /// The length of the instruction at `rip`, if it was noted.
    pub fn length_at(&self, rip: u64) -> Option<u8> {
        let known = self.places[slot(rip)].get() == rip && rip != NOWHERE;
        (known && self.holds.get()).then_some(PLAIN)
    }

    /// Notes that the instruction at `rip` has this length.
    pub fn note(&self, rip: u64, length: u8) {
        if length == PLAIN {
            self.places[slot(rip)].set(rip);
        } else {
            self.holds.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_noted_last() {
        let places = PlainCpuid::default();
        assert_eq!((places.length_at(0), places.length_at(u64::MAX)), (None, None));
        places.note(0x1000, 2);
        assert_eq!((places.length_at(0x1000), places.length_at(0x1010)), (Some(2), None));
        for rip in 0..100 {
            places.note(0x2000 + rip, 2);
        }
        assert_eq!(places.length_at(0x1000), None, "another place took the slot");
        places.note(u64::MAX, 2);
        assert_eq!(places.length_at(u64::MAX), None);
    }

    #[test]
    fn one_that_is_longer_ends_it() {
        let places = PlainCpuid::default();
        places.note(0x1000, 2);
        places.note(0x2000, 3);
        assert_eq!((places.length_at(0x1000), places.length_at(0x2000)), (None, None));
        places.note(0x3000, 2);
        assert_eq!(places.length_at(0x3000), None);
    }
}
