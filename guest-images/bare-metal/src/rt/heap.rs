// SPDX-License-Identifier: MIT OR Apache-2.0
//! No heap.
//!
//! The crate of the page walker wants an allocator to exist; what guests use of it allocates
//! nothing, and neither do they.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

struct NoHeap;

// SAFETY: it never gives out memory, which an allocator may do at any time.
unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: NoHeap = NoHeap;
