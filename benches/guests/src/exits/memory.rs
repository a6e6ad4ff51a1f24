// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest does with its own memory and page tables.

use core::arch::asm;
use core::cell::Cell;
use core::ptr;

use bare_metal::rt::paging::{PAGE, PRESENT, SCRATCH, WRITABLE, entry, map, page};
use bare_metal::rt::trap::{self, Frame, PF};

use crate::samples::Bench;

/// Page of the window that is mapped by the page-fault handler.
const FAULTING: usize = 5;

/// Memory that nobody has touched before, above the guest's image and whatever the loader left.
const FRESH: u64 = 32 << 20;

/// Measures it.
pub fn run(bench: &Bench) {
    invalidate(bench);
    fault(bench);
    first_touch(bench);
}

fn invalidate(bench: &Bench) {
    map(FAULTING, SCRATCH.address() | PRESENT | WRITABLE);
    bench.prepared(
        "invlpg",
        |_| touch(page(FAULTING)),
        || {
            // SAFETY: the translation stays what it is.
            unsafe { asm!("invlpg [{}]", in(reg) page(FAULTING), options(nostack)) };
        },
    );
}

/// The fault, a handler that maps the page, and the access that then succeeds.
fn fault(bench: &Bench) {
    fn map_it(_: &mut Frame) {
        map(FAULTING, SCRATCH.address() | PRESENT | WRITABLE);
    }
    trap::handle(PF, Some(map_it));
    bench.prepared("page-fault", |_| map(FAULTING, 0), || touch(page(FAULTING)));
    trap::handle(PF, None);
    if entry(FAULTING) & PRESENT == 0 {
        bench.skip("page-fault", "it did not come");
    }
}

/// The first write to each of many consecutive pages.
fn first_touch(bench: &Bench) {
    let next = Cell::new(FRESH);
    bench.prepared(
        "first-touch",
        |round| next.set(FRESH + round as u64 * PAGE),
        || {
            // SAFETY: nothing is there; it is identity-mapped and within the 64 MiB that every
            // guest has.
            unsafe { ptr::write_volatile(next.get() as *mut u64, 1) };
        },
    );
}

fn touch(address: u64) {
    // SAFETY: the page is one of the window, mapped or about to be by the fault handler.
    unsafe { ptr::read_volatile(address as *const u64) };
}
