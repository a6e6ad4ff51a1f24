// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address spaces: the runtime's own mappings, and a window with tables of its own.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use bare_metal::rt::cpu;
use bare_metal::rt::paging::{PRESENT, WINDOW, WRITABLE, page};
use bare_metal::rt::trap::{self, Frame, PF};

use super::pages;

/// In an entry, for software: another space has the page, too.
pub const SHARED: u64 = 1 << 9;

/// Flags of entries that lead to a table.
const LINK: u64 = PRESENT | WRITABLE;
/// Physical address in an entry.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Slot of [`WINDOW`] in the top-level table.
const WINDOW_SLOT: usize = (WINDOW >> 39) as usize;

/// The last-level table of the space that the CPU is in.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// An address space whose window has one table at each level.
pub struct Space {
    root: u64,
    pointers: u64,
    directory: u64,
    table: Table,
}

/// The last level: what the pages of the window are.
#[derive(Clone, Copy)]
pub struct Table(u64);

/// Writes an entry of the table at `table`.
fn write(table: u64, index: usize, entry: u64) {
    // SAFETY: `table` is a page of ours, identity-mapped, and no address of the running program
    // is translated by the entries that are written: it is in the runtime's own mappings.
    unsafe { (table as *mut u64).add(index % 512).write_volatile(entry) };
}

impl Table {
    /// The entry of a page of the window.
    pub fn get(self, index: usize) -> u64 {
        // SAFETY: within a table of ours, which is identity-mapped.
        unsafe { (self.0 as *const u64).add(index % 512).read_volatile() }
    }

    /// Sets it. Old translations stay until they are invalidated.
    pub fn set(self, index: usize, entry: u64) {
        write(self.0, index, entry);
    }
}

impl Space {
    /// A space with an empty window.
    pub fn new() -> Self {
        let [root, pointers, directory, table] = [(); 4].map(|()| pages::take_zeroed());
        let runtime = cpu::read_cr3() & ADDRESS;
        // SAFETY: the table that the CPU is on is identity-mapped.
        write(root, 0, unsafe { (runtime as *const u64).read_volatile() });
        write(root, WINDOW_SLOT, pointers | LINK);
        write(pointers, 0, directory | LINK);
        write(directory, 0, table | LINK);
        Self { root, pointers, directory, table: Table(table) }
    }

    /// What its pages are.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Has the CPU work in it, or forget old translations if it does already.
    pub fn enter(&self) {
        CURRENT.store(self.table.0, Ordering::Relaxed);
        // SAFETY: the runtime's own mappings are the same in all spaces.
        unsafe { cpu::write_cr3(self.root) };
    }

    /// Maps `count` pages of zeroes.
    pub fn fill(&self, count: usize) {
        for index in 0..count {
            self.table.set(index, pages::take_zeroed() | PRESENT | WRITABLE);
        }
    }

    /// Ends it: unmaps the first `count` pages, and gives back those that are not shared, and the
    /// tables. The CPU must be in another space.
    pub fn end(self, count: usize) {
        for index in 0..count {
            let entry = self.table.get(index);
            self.table.set(index, 0);
            if entry & (PRESENT | SHARED) == PRESENT {
                pages::give(entry & ADDRESS);
            }
        }
        for page in [self.table.0, self.directory, self.pointers, self.root] {
            pages::give(page);
        }
    }
}

/// Has page faults in the window of the current space mended, as kernels do: what is missing is
/// mapped, and what is shared is copied at the first write.
pub fn mend_faults() {
    trap::handle(PF, Some(mend));
}

fn mend(_: &mut Frame) {
    let address = cpu::read_cr2();
    let table = Table(CURRENT.load(Ordering::Relaxed));
    let index = (address.wrapping_sub(WINDOW) >> 12) as usize;
    assert!(index < 512, "a page fault outside of the window");
    let entry = table.get(index);
    let frame = match entry & (PRESENT | SHARED) {
        0 => pages::take_zeroed(),
        PRESENT => entry & ADDRESS,
        _ => {
            let copied = pages::take();
            pages::copy(entry & ADDRESS, copied);
            copied
        }
    };
    table.set(index, frame | PRESENT | WRITABLE);
    invalidate(index);
}

/// Has the CPU forget the translation of a page of the window.
pub fn invalidate(index: usize) {
    // SAFETY: it takes a translation back, which is then looked up anew.
    unsafe { asm!("invlpg [{}]", in(reg) page(index), options(nostack)) };
}

/// Reads from the first `count` pages of the window.
pub fn read(count: usize) {
    for index in 0..count {
        // SAFETY: pages of the window are mapped, or mapped by `mend`.
        unsafe { ptr::read_volatile(page(index) as *const u64) };
    }
}

/// Writes to the first `count` pages of the window.
pub fn write_pages(count: usize) {
    for index in 0..count {
        // SAFETY: as in `read`; the pages hold nothing but what is written here.
        unsafe { ptr::write_volatile(page(index) as *mut u64, index as u64) };
    }
}

/// The physical page that an entry maps.
pub const fn frame_of(entry: u64) -> u64 {
    entry & ADDRESS
}
