// SPDX-License-Identifier: MIT OR Apache-2.0
//! Four-level page tables (AMD64 APM volume 2, section 5.3; Intel SDM volume 3, chapter 4).

use core::fmt;

use crate::address::PhysAddr;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// What may be done with a page. Nothing is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and execute.
    ReadExecute,
    /// Read and write.
    ReadWrite,
    /// Read and write device registers: uncached.
    Device,
}

impl Access {
    const fn bits(self) -> u64 {
        GLOBAL
            | PRESENT
            | match self {
                Self::Read => NO_EXECUTE,
                Self::ReadExecute => 0,
                Self::ReadWrite => NO_EXECUTE | WRITABLE,
                Self::Device => NO_EXECUTE | WRITABLE | CACHE_DISABLE | WRITE_THROUGH,
            }
    }
}

/// Where page tables live.
pub trait TableMemory {
    /// A zeroed frame for a table, or `None` if memory is exhausted.
    fn allocate(&mut self) -> Option<PhysAddr>;
    /// Entry `index` (below 512) of the table at `table`.
    fn read(&self, table: PhysAddr, index: usize) -> u64;
    /// Sets entry `index` (below 512) of the table at `table`.
    fn write(&mut self, table: PhysAddr, index: usize, entry: u64);
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// The range is not page aligned, empty, or leaves the address space.
    BadRange,
    /// A part of it is mapped already.
    AlreadyMapped,
    /// There is no memory for page tables.
    OutOfMemory,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRange => "the range to map is malformed",
            Self::AlreadyMapped => "a part of the range is mapped already",
            Self::OutOfMemory => "no memory is left for page tables",
        })
    }
}

impl core::error::Error for MapError {}

/// A mapped page, as found in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Virtual address of the page's first byte.
    pub virt: u64,
    /// Physical address of it.
    pub phys: PhysAddr,
    /// Size in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub size: u64,
    /// True if writes are allowed.
    pub writable: bool,
    /// True if instructions can be fetched.
    pub executable: bool,
    /// True if it survives a reload of CR3.
    pub global: bool,
}

/// A tree of page tables.
pub struct PageTables<M> {
    memory: M,
    root: PhysAddr,
    /// Largest level at which pages are used: 3 for 1 GiB, 2 for 2 MiB.
    max_leaf_level: u32,
}

const fn level_size(level: u32) -> u64 {
    1 << (12 + 9 * (level - 1))
}

const fn index(virt: u64, level: u32) -> usize {
    (virt >> (12 + 9 * (level - 1)) & 0x1FF) as usize
}

/// Extends bit 47 upwards.
const fn canonical(virt: u64) -> u64 {
    ((virt << 16).cast_signed() >> 16).cast_unsigned()
}

impl<M: TableMemory> PageTables<M> {
    /// An empty tree, or `None` if there is no frame for its root.
    pub fn new(mut memory: M, gigabyte_pages: bool) -> Option<Self> {
        let root = memory.allocate()?;
        Some(Self { memory, root, max_leaf_level: if gigabyte_pages { 3 } else { 2 } })
    }

    /// The frame of the top-level table, for CR3.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Entry `index` of the top-level table.
    pub fn root_entry(&self, index: usize) -> u64 {
        self.memory.read(self.root, index)
    }

    /// Maps `bytes` at `virt` to `phys`, with the largest pages that fit.
    ///
    /// # Errors
    /// [`MapError`]; pages before the failing one stay mapped.
    pub fn map(
        &mut self,
        virt: u64,
        phys: PhysAddr,
        bytes: u64,
        access: Access,
    ) -> Result<(), MapError> {
        let aligned = (virt | phys.0 | bytes).is_multiple_of(4096);
        let end = virt.checked_add(bytes - u64::from(bytes > 0)).ok_or(MapError::BadRange)?;
        if !aligned || bytes == 0 || canonical(virt) != virt || canonical(end) != end {
            return Err(MapError::BadRange);
        }
        let mut done = 0;
        while done < bytes {
            let (virt, phys) = (virt + done, phys.0 + done);
            let level = (1..=self.max_leaf_level)
                .rev()
                .find(|&level| {
                    let size = level_size(level);
                    (virt | phys).is_multiple_of(size) && bytes - done >= size
                })
                .unwrap_or(1);
            self.map_page(virt, phys, level, access)?;
            done += level_size(level);
        }
        Ok(())
    }

    /// The page that maps `virt`.
    pub fn lookup(&self, virt: u64) -> Option<Leaf> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = self.memory.read(table, index(virt, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || entry & LARGE != 0 {
                return Some(leaf(virt & !(level_size(level) - 1), level, entry));
            }
            table = PhysAddr(entry & ADDRESS);
        }
        None
    }

    /// Calls `visit` for every mapped page, in order of addresses.
    pub fn for_each(&self, visit: &mut dyn FnMut(Leaf)) {
        self.visit_table(self.root, 4, 0, visit);
    }

    fn visit_table(&self, table: PhysAddr, level: u32, base: u64, visit: &mut dyn FnMut(Leaf)) {
        for i in 0..512 {
            let entry = self.memory.read(table, i);
            let virt = canonical(base + i as u64 * level_size(level));
            if entry & PRESENT == 0 {
                continue;
            }
            if level == 1 || entry & LARGE != 0 {
                visit(leaf(virt, level, entry));
            } else {
                self.visit_table(PhysAddr(entry & ADDRESS), level - 1, virt, visit);
            }
        }
    }

    fn map_page(
        &mut self,
        virt: u64,
        phys: u64,
        leaf_level: u32,
        access: Access,
    ) -> Result<(), MapError> {
        let mut table = self.root;
        for level in (leaf_level + 1..=4).rev() {
            let entry = self.memory.read(table, index(virt, level));
            if entry & PRESENT == 0 {
                let next = self.memory.allocate().ok_or(MapError::OutOfMemory)?;
                // Restrictions are in the leaves alone.
                self.memory.write(table, index(virt, level), next.0 | PRESENT | WRITABLE);
                table = next;
            } else if entry & LARGE != 0 {
                return Err(MapError::AlreadyMapped);
            } else {
                table = PhysAddr(entry & ADDRESS);
            }
        }
        if self.memory.read(table, index(virt, leaf_level)) & PRESENT != 0 {
            return Err(MapError::AlreadyMapped);
        }
        let large = if leaf_level > 1 { LARGE } else { 0 };
        self.memory.write(table, index(virt, leaf_level), phys | large | access.bits());
        Ok(())
    }
}

fn leaf(virt: u64, level: u32, entry: u64) -> Leaf {
    let size = level_size(level);
    Leaf {
        virt,
        phys: PhysAddr(entry & ADDRESS & !(size - 1)),
        size,
        writable: entry & WRITABLE != 0,
        executable: entry & NO_EXECUTE == 0,
        global: entry & GLOBAL != 0,
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    struct Arena {
        tables: Vec<[u64; 512]>,
        limit: usize,
    }

    impl TableMemory for Arena {
        fn allocate(&mut self) -> Option<PhysAddr> {
            if self.tables.len() == self.limit {
                return None;
            }
            self.tables.push([0; 512]);
            Some(PhysAddr(self.tables.len() as u64 * 4096))
        }
        fn read(&self, table: PhysAddr, index: usize) -> u64 {
            self.tables[(table.0 / 4096) as usize - 1][index]
        }
        fn write(&mut self, table: PhysAddr, index: usize, entry: u64) {
            self.tables[(table.0 / 4096) as usize - 1][index] = entry;
        }
    }

    fn tables(gigabyte_pages: bool, limit: usize) -> PageTables<Arena> {
        PageTables::new(Arena { tables: vec![], limit }, gigabyte_pages).unwrap()
    }

    const BASE: u64 = 0xFFFF_8000_0000_0000;

    #[test]
    fn largest_pages_that_fit() {
        for (gigabyte_pages, expected) in [(true, 1 + 512 + 1 + 1), (false, 512 + 512 + 1 + 1)] {
            let mut t = tables(gigabyte_pages, 64);
            let start = (1 << 30) - 4096;
            t.map(BASE + start, PhysAddr(start), (2 << 30) + 8192, Access::ReadWrite).unwrap();
            let mut pages = 0;
            t.for_each(&mut |leaf| {
                assert_eq!(leaf.virt - BASE, leaf.phys.0);
                assert!(leaf.writable && !leaf.executable && leaf.global);
                pages += 1;
            });
            assert_eq!(pages, if gigabyte_pages { 4 } else { expected });
        }
    }

    #[test]
    fn refusals() {
        let mut t = tables(true, 64);
        assert_eq!(t.map(1, PhysAddr(0), 4096, Access::Read), Err(MapError::BadRange));
        assert_eq!(t.map(0, PhysAddr(0), 0, Access::Read), Err(MapError::BadRange));
        assert_eq!(t.map(1 << 47, PhysAddr(0), 4096, Access::Read), Err(MapError::BadRange));
        let top = 0xFFFF_FFFF_FFFF_F000;
        assert_eq!(t.map(top, PhysAddr(0), 8192, Access::Read), Err(MapError::BadRange));
        t.map(top, PhysAddr(0), 4096, Access::Read).unwrap();
        t.map(BASE, PhysAddr(0), 2 << 20, Access::ReadExecute).unwrap();
        let inside = t.map(BASE + 4096, PhysAddr(0), 4096, Access::Read);
        assert_eq!(inside, Err(MapError::AlreadyMapped));
        let around = t.map(BASE, PhysAddr(0), 1 << 30, Access::Read);
        assert_eq!(around, Err(MapError::AlreadyMapped));
        assert_eq!(
            tables(true, 3).map(0, PhysAddr(0), 4096, Access::Read),
            Err(MapError::OutOfMemory)
        );
    }

    proptest! {
        #[test]
        fn lookup_finds_what_was_mapped(
            page in 0u64..1 << 22, skew in 0u64..4, pages in 1u64..3000, probe in 0u64..3000,
        ) {
            let mut t = tables(true, 64);
            let (virt, phys) = (BASE + page * 4096, (page + skew * 512) * 4096);
            t.map(virt, PhysAddr(phys), pages * 4096, Access::Read).unwrap();
            let at = virt + probe * 4096 + 5;
            let found = t.lookup(at).map(|l| l.phys.0 + (at - l.virt));
            prop_assert_eq!(found, (probe < pages).then_some(phys + probe * 4096 + 5));
        }
    }
}
