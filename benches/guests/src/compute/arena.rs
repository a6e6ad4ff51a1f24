// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory for large arrays.

use core::slice;

/// Where it is: above the guest's image and whatever the loader left, identity-mapped by pages of
/// 2 MiB, and within the 192 MiB that the guest has.
const START: usize = 32 << 20;
const END: usize = 176 << 20;

/// Arrays begin at multiples of this, a page.
const ALIGNMENT: usize = 4096;

/// Hands out memory, none of it twice.
pub struct Arena {
    next: usize,
}

impl Arena {
    /// All there is. To be called once.
    pub fn all() -> Self {
        Self { next: START }
    }

    /// An array of `count` times `value`. Panics when there is no room, which ends the guest with
    /// a failure.
    pub fn take<T: Copy>(&mut self, count: usize, value: T) -> &'static mut [T] {
        let start = self.next;
        let end = start + count * size_of::<T>();
        assert!(end <= END, "no memory is left for {count} items");
        self.next = end.next_multiple_of(ALIGNMENT);
        let first = start as *mut T;
        for index in 0..count {
            // SAFETY: the range is memory that nobody else uses, checked to end before `END`.
            unsafe { first.add(index).write(value) };
        }
        // SAFETY: all items were written just now, at an address that is aligned for them, and
        // the range is never handed out again.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }
}
