// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes to tables that last for one attempt.

use core::ptr;

use crate::rt::cell::Fixed;

const CAPACITY: usize = 16;

struct Changes {
    entries: [(u64, u64); CAPACITY],
    length: usize,
}

static CHANGES: Fixed<Changes> = Fixed::new(Changes { entries: [(0, 0); CAPACITY], length: 0 });

/// Writes a word of a table that the CPU uses, and remembers what was there.
pub fn write(address: u64, value: u64) {
    // SAFETY: the callers give aligned addresses of tables of this program; only the boot CPU,
    // which is the only one, comes here, and not twice at once.
    unsafe {
        let changes = &mut *CHANGES.get();
        let word = address as *mut u64;
        if let Some(slot) = changes.entries.get_mut(changes.length) {
            *slot = (address, ptr::read_volatile(word));
            changes.length += 1;
            ptr::write_volatile(word, value);
        }
    }
}

/// Puts back all words, the last one first.
pub fn all() {
    // SAFETY: as in `write`.
    unsafe {
        let changes = &mut *CHANGES.get();
        while let Some(last) = changes.length.checked_sub(1) {
            changes.length = last;
            if let Some(&(address, value)) = changes.entries.get(last) {
                ptr::write_volatile(address as *mut u64, value);
            }
        }
    }
}
