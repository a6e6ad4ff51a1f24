// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages are touched: that were before, that were just mapped, that are mapped then.

use bare_metal::rt::paging::{PRESENT, WRITABLE};

use super::pages;
use super::space::{Space, frame_of, invalidate, mend_faults, read, write_pages};
use crate::samples::Bench;

/// Pages that are touched in each round.
const PAGES: usize = 32;

/// Measures it.
pub fn run(bench: &Bench) {
    mend_faults();
    let space = Space::new();
    space.fill(PAGES);
    space.enter();
    bench.operation("touch-again", || read(PAGES));
    unmap(&space);
    bench.operation("touch-mapped", || {
        for index in 0..PAGES {
            space.table().set(index, pages::take() | PRESENT | WRITABLE);
        }
        write_pages(PAGES);
        unmap(&space);
    });
    bench.operation("touch-demand", || {
        write_pages(PAGES);
        unmap(&space);
    });
}

/// Takes all pages away, each with its translation.
fn unmap(space: &Space) {
    for index in 0..PAGES {
        let entry = space.table().get(index);
        space.table().set(index, 0);
        invalidate(index);
        pages::give(frame_of(entry));
    }
}
