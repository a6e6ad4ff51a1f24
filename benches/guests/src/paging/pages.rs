// SPDX-License-Identifier: MIT OR Apache-2.0
//! Free pages of memory.
//!
//! The page that was given back last is taken first, as kernels do it: what was a page table a
//! moment ago is data next, and the other way round.

use core::ptr;

use bare_metal::rt::cell::Fixed;

const PAGE_BYTES: usize = 4096;
const PAGES: usize = 1024;

/// Where they are: above the guest's image and whatever the loader left, identity-mapped, and
/// within the 32 MiB that every guest has.
const MEMORY: u64 = 16 << 20;

/// The pages that are given back, by their addresses, and how many there are.
struct Free {
    given_back: [u64; PAGES],
    count: usize,
    /// Pages that were ever taken.
    used: usize,
}

static FREE: Fixed<Free> = Fixed::new(Free { given_back: [0; PAGES], count: 0, used: 0 });

/// A page of any content: its address, which is physical and linear at once. Panics when there is
/// none left, which ends the guest with a failure.
pub fn take() -> u64 {
    // SAFETY: there is one CPU, and neither function here faults, so nothing else has it.
    let free = unsafe { &mut *FREE.get() };
    if let Some(last) = free.count.checked_sub(1) {
        free.count = last;
        return free.given_back[last];
    }
    assert!(free.used < PAGES, "no page of memory is left");
    free.used += 1;
    MEMORY + ((free.used - 1) * PAGE_BYTES) as u64
}

/// A page of zeroes.
pub fn take_zeroed() -> u64 {
    let page = take();
    // SAFETY: the page was taken, so nothing else uses it.
    unsafe { ptr::write_bytes(page as *mut u64, 0, PAGE_BYTES / 8) };
    page
}

/// Copies a page.
pub fn copy(from: u64, to: u64) {
    // SAFETY: both are pages that were taken and are two.
    unsafe { ptr::copy_nonoverlapping(from as *const u64, to as *mut u64, PAGE_BYTES / 8) };
}

/// Gives a page back that [`take`] gave out.
pub fn give(page: u64) {
    // SAFETY: as in `take`.
    let free = unsafe { &mut *FREE.get() };
    free.given_back[free.count] = page;
    free.count += 1;
}
