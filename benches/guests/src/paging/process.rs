// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address spaces that are made and ended.

use bare_metal::rt::paging::{PRESENT, WRITABLE};

use super::space::{SHARED, Space, frame_of, mend_faults, write_pages};
use crate::samples::Bench;

/// Pages that a process has.
const PAGES: usize = 16;
/// Pages that a child writes to before it becomes another program, and its parent thereafter.
const WRITTEN: usize = 4;

/// Measures it.
pub fn run(bench: &Bench) {
    mend_faults();
    let parent = Space::new();
    parent.fill(PAGES);
    parent.enter();
    bench.operation("create-destroy", || create_destroy(&parent));
    bench.operation("fork-exec", || fork_exec(&parent));
}

/// A space is made, all of its pages are mapped and written to, and it is ended.
fn create_destroy(parent: &Space) {
    let space = Space::new();
    space.fill(PAGES);
    space.enter();
    write_pages(PAGES);
    parent.enter();
    space.end(PAGES);
}

/// A process makes a child, which has its pages until one of them writes; the child becomes
/// another program, whose pages come when it touches them; it ends, and the parent goes on.
fn fork_exec(parent: &Space) {
    let child = fork(parent);
    child.enter();
    write_pages(WRITTEN);

    let program = Space::new();
    program.enter();
    child.end(PAGES);
    write_pages(PAGES);

    parent.enter();
    program.end(PAGES);
    write_pages(WRITTEN);
}

fn fork(parent: &Space) -> Space {
    let child = Space::new();
    for index in 0..PAGES {
        let entry = parent.table().get(index);
        parent.table().set(index, entry & !WRITABLE);
        child.table().set(index, frame_of(entry) | PRESENT | SHARED);
    }
    // No right to write may be left in the TLB.
    parent.enter();
    child
}
