// SPDX-License-Identifier: MIT OR Apache-2.0
//! INVLPG: of what has not changed, of a page that is now another, of one that lost a right.

use bare_metal::rt::paging::{PRESENT, WRITABLE};

use super::pages;
use super::space::{Space, invalidate, mend_faults, read, write_pages};
use crate::samples::{Bench, ticks};

/// Measures it, each with an access to the page thereafter.
pub fn run(bench: &Bench) {
    mend_faults();
    let space = Space::new();
    let frames = [pages::take_zeroed(), pages::take_zeroed()];
    let map = |frame: u64, flags: u64| {
        space.table().set(0, frame | PRESENT | flags);
        invalidate(0);
    };
    space.enter();
    map(frames[0], WRITABLE);
    bench.operation("invlpg", || {
        invalidate(0);
        read(1);
    });
    bench.sample("invlpg-remap", |round| {
        ticks(|| {
            map(frames[round % 2], WRITABLE);
            read(1);
        })
    });
    // The write faults, and the handler gives the right back.
    bench.operation("invlpg-protect", || {
        map(frames[0], 0);
        write_pages(1);
    });
}
