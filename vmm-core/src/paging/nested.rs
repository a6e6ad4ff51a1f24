// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nested page tables: guest-physical to host-physical, with the largest pages that fit.

use alloc::vec::Vec;
use core::marker::PhantomData;

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};

use crate::{
    GuestPhysAddr, PAGE_SIZE,
    memory::{GuestMemory, OwnedPages, Region, RegionAccess},
};

const ENTRIES: usize = 512;
const LEVELS: u32 = 4;

/// The entry format of a vendor's nested tables. All have four levels of 512 entries.
pub trait NestedEntries {
    /// An entry that leads to the next table.
    fn table(address: HostPhysAddr) -> u64;
    /// An entry that maps memory, readable, writable, executable and write-back; `large` on
    /// the levels above the last.
    fn leaf(address: HostPhysAddr, large: bool) -> u64;
    /// The same leaf without the permission to write.
    fn without_write(leaf: u64) -> u64;
    /// An entry of the last level that maps a page of memory, readable only.
    fn read_only_page(address: HostPhysAddr) -> u64;
    /// Address in an entry.
    fn address(entry: u64) -> HostPhysAddr;
    /// True if a present entry above the last level maps memory instead of leading on.
    fn is_leaf(entry: u64) -> bool;
    /// True if the entry maps or leads anywhere.
    fn is_present(entry: u64) -> bool;
}

/// The long-mode format, which AMD's nested tables use. Nested accesses count as user
/// accesses (AMD APM vol. 2, 15.25.5).
pub struct LongModeEntries;

impl LongModeEntries {
    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const LARGE: u64 = 1 << 7;
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

impl NestedEntries for LongModeEntries {
    fn table(address: HostPhysAddr) -> u64 {
        address.as_u64() | Self::PRESENT | Self::WRITABLE | Self::USER | Self::ACCESSED
    }

    fn leaf(address: HostPhysAddr, large: bool) -> u64 {
        // Accessed and dirty are set from the start, which saves the CPU from writing them.
        let size = if large { Self::LARGE } else { 0 };
        Self::table(address) | Self::DIRTY | size
    }

    fn without_write(leaf: u64) -> u64 {
        leaf & !Self::WRITABLE
    }

    fn read_only_page(address: HostPhysAddr) -> u64 {
        Self::leaf(address, false) & !Self::WRITABLE
    }

    fn address(entry: u64) -> HostPhysAddr {
        HostPhysAddr::new(entry & Self::ADDRESS)
    }

    fn is_leaf(entry: u64) -> bool {
        entry & Self::LARGE != 0
    }

    fn is_present(entry: u64) -> bool {
        entry & Self::PRESENT != 0
    }
}

/// The nested tables of one VM.
pub struct NestedTables<F> {
    host: &'static dyn Host,
    tables: Vec<OwnedPages>,
    has_huge_pages: bool,
    format: PhantomData<F>,
}

/// What is to be mapped: `bytes` from `guest` on to the host memory from `host` on, all whole
/// pages.
struct Mapping {
    guest: GuestPhysAddr,
    host: HostPhysAddr,
    bytes: u64,
    access: RegionAccess,
}

impl Mapping {
    fn of(region: &Region) -> Self {
        Self {
            guest: region.start(),
            host: region.host_address(),
            bytes: region.bytes(),
            access: region.access(),
        }
    }
}

/// Bytes that an entry of `level` maps; level 1 is the last.
const fn span(level: u32) -> u64 {
    PAGE_SIZE << (9 * (level - 1))
}

const fn index(address: u64, level: u32) -> usize {
    (address / span(level)) as usize % ENTRIES
}

impl<F: NestedEntries> NestedTables<F> {
    /// Tables that map exactly `memory`, ROMs without the permission to write.
    ///
    /// # Errors
    /// What the host answers when memory runs out; all tables go back then.
    pub fn map_all(
        host: &'static dyn Host,
        memory: &GuestMemory,
        has_huge_pages: bool,
    ) -> Result<Self, HostError> {
        let root = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
        let mut tables =
            Self { host, tables: alloc::vec![root], has_huge_pages, format: PhantomData };
        for region in memory.regions() {
            tables.map(Mapping::of(region))?;
        }
        Ok(tables)
    }

    /// Other tables that map what these do, and one page of the host's more, where these map
    /// nothing; none if they do. They share all tables of these but those on the way to that
    /// page, so these have to stay as long as they are used. The page is mapped like memory.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn with_page(
        &self,
        guest: GuestPhysAddr,
        page: HostPhysAddr,
    ) -> Result<Option<Self>, HostError> {
        let (host, has_huge_pages) = (self.host, self.has_huge_pages);
        let copy = |of: Option<HostPhysAddr>| -> Result<OwnedPages, HostError> {
            let table = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
            if let Some(of) = of {
                for slot in 0..ENTRIES {
                    // SAFETY: the new table is ours alone; `index` is inside of it.
                    unsafe { table.as_ptr().cast::<u64>().add(slot).write(self.read(of, slot)) }
                }
            }
            Ok(table)
        };
        let root = copy(Some(self.root()))?;
        let mut tables =
            Self { host, tables: alloc::vec![root], has_huge_pages, format: PhantomData };
        let mut table = tables.root();
        for above in (2..=LEVELS).rev() {
            let slot = index(guest.as_u64(), above);
            let entry = tables.read(table, slot);
            if F::is_present(entry) && F::is_leaf(entry) {
                return Ok(None);
            }
            let next = copy(F::is_present(entry).then(|| F::address(entry)))?;
            tables.write(table, slot, F::table(next.address()));
            table = next.address();
            tables.tables.push(next);
        }
        let slot = index(guest.as_u64(), 1);
        if F::is_present(tables.read(table, slot)) {
            return Ok(None);
        }
        tables.write(table, slot, F::leaf(page, false));
        Ok(Some(tables))
    }

    /// Maps one page more, readable only.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn map_read_only(
        &mut self,
        guest: GuestPhysAddr,
        host: HostPhysAddr,
    ) -> Result<(), HostError> {
        let table = self.table_for(guest.as_u64(), 1)?;
        self.write(table, index(guest.as_u64(), 1), F::read_only_page(host));
        Ok(())
    }

    /// Address of the root table.
    pub fn root(&self) -> HostPhysAddr {
        self.tables[0].address()
    }

    /// Size of all tables in bytes.
    pub fn bytes(&self) -> u64 {
        self.tables.len() as u64 * PAGE_SIZE
    }

    fn map(&mut self, mapping: Mapping) -> Result<(), HostError> {
        let Mapping { guest, host, bytes, access } = mapping;
        let mut done = 0;
        while done < bytes {
            let (from, to) = (guest.as_u64() + done, host.as_u64() + done);
            let level = self.largest_page(from | to, bytes - done);
            let leaf = F::leaf(HostPhysAddr::new(to), level > 1);
            let entry = match access {
                RegionAccess::ReadWrite => leaf,
                RegionAccess::ReadOnly => F::without_write(leaf),
            };
            let table = self.table_for(from, level)?;
            self.write(table, index(from, level), entry);
            done += span(level);
        }
        Ok(())
    }

    fn largest_page(&self, alignment: u64, bytes: u64) -> u32 {
        let largest = if self.has_huge_pages { 3 } else { 2 };
        let fits = |&level: &u32| alignment.is_multiple_of(span(level)) && bytes >= span(level);
        (2..=largest).rev().find(fits).unwrap_or(1)
    }

    /// The table of `level` that covers `guest`, made if it is missing.
    fn table_for(&mut self, guest: u64, level: u32) -> Result<HostPhysAddr, HostError> {
        let mut table = self.root();
        for above in (level + 1..=LEVELS).rev() {
            let slot = index(guest, above);
            let entry = self.read(table, slot);
            table = if F::is_present(entry) {
                F::address(entry)
            } else {
                let new = OwnedPages::zeroed(self.host, PageRequest::contiguous(1))?;
                let address = new.address();
                self.tables.push(new);
                self.write(table, slot, F::table(address));
                address
            };
        }
        Ok(table)
    }

    fn entry(&self, table: HostPhysAddr, index: usize) -> *mut u64 {
        debug_assert!(index < ENTRIES);
        self.host.phys_to_virt(table).as_ptr().cast::<u64>().wrapping_add(index % ENTRIES)
    }

    fn read(&self, table: HostPhysAddr, index: usize) -> u64 {
        // SAFETY: `table` is one of our tables, all of which live as long as `self`.
        unsafe { self.entry(table, index).read_volatile() }
    }

    fn write(&mut self, table: HostPhysAddr, index: usize, entry: u64) {
        // SAFETY: as for reading; the CPU walks tables while we write them, and sees either
        // the old or the new value of the aligned entry.
        unsafe { self.entry(table, index).write_volatile(entry) }
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    /// Walks the tables as the CPU would; gives the host address and the page's level.
    fn walk(tables: &NestedTables<LongModeEntries>, guest: u64) -> Option<(u64, u32)> {
        let mut table = tables.root();
        for level in (1..=LEVELS).rev() {
            let entry = tables.read(table, index(guest, level));
            if !LongModeEntries::is_present(entry) {
                return None;
            }
            let address = LongModeEntries::address(entry);
            if level == 1 || entry & LongModeEntries::LARGE != 0 {
                return Some((address.as_u64() + guest % span(level), level));
            }
            table = address;
        }
        None
    }

    fn region(host: &'static MockHost, memory: &mut GuestMemory, start: u64, bytes: u64) {
        let request = PageRequest::contiguous(bytes / PAGE_SIZE).aligned_to(span(2));
        let pages = OwnedPages::allocate(host, request).unwrap();
        memory.add(GuestPhysAddr::new(start), pages).unwrap();
    }

    fn plain(guest: u64, host: u64, bytes: u64) -> Mapping {
        Mapping {
            guest: GuestPhysAddr::new(guest),
            host: HostPhysAddr::new(host),
            bytes,
            access: RegionAccess::ReadWrite,
        }
    }

    #[test]
    fn roms_cannot_be_written() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        region(host, &mut memory, 0, 0x20_0000);
        region(host, &mut memory, 0x20_0000, 0x1000);
        region(host, &mut memory, 0x20_1000, 0x1000);
        memory.make_rom(GuestPhysAddr::new(0x20_0000)).unwrap();
        let tables = NestedTables::<LongModeEntries>::map_all(host, &memory, true).unwrap();
        let mut table = tables.root();
        for level in (2..=LEVELS).rev() {
            table = LongModeEntries::address(tables.read(table, index(0x20_0000, level)));
        }
        assert_eq!(tables.read(table, 0) & LongModeEntries::WRITABLE, 0);
        assert_ne!(tables.read(table, 1) & LongModeEntries::WRITABLE, 0);
        assert_eq!(walk(&tables, 0x20_0123).map(|(_, level)| level), Some(1));
    }

    #[test]
    fn maps_memory_and_nothing_else_with_the_largest_pages() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        region(host, &mut memory, 0, 0xA_0000);
        region(host, &mut memory, 0x20_0000, 0x60_3000);
        let tables = NestedTables::<LongModeEntries>::map_all(host, &memory, true).unwrap();
        for (guest, level) in [(0, 1), (0x9_FFFF, 1), (0x20_0000, 2), (0x80_2FFF, 1)] {
            let expected = memory.host_address(GuestPhysAddr::new(guest)).unwrap().as_u64();
            assert_eq!(walk(&tables, guest), Some((expected, level)));
        }
        for guest in [0xA_0000, 0x1F_FFFF, 0x80_3000, 0xFEE0_0000, 1 << 40] {
            assert_eq!(walk(&tables, guest), None);
        }
    }

    #[test]
    fn huge_pages_need_the_cpu_and_both_alignments() {
        let host = MockHost::leak(1);
        let empty = GuestMemory::new();
        let mut tables = NestedTables::<LongModeEntries>::map_all(host, &empty, true).unwrap();
        let gib = span(3);
        tables.map(plain(gib, 5 * gib, gib)).unwrap();
        tables.map(plain(2 * gib, span(2), gib)).unwrap();
        assert_eq!(walk(&tables, gib + 12345), Some((5 * gib + 12345, 3)));
        assert_eq!(walk(&tables, 3 * gib - 1), Some((span(2) + gib - 1, 2)));
        let mut small = NestedTables::<LongModeEntries>::map_all(host, &empty, false).unwrap();
        small.map(plain(gib, 5 * gib, gib)).unwrap();
        assert_eq!(walk(&small, gib), Some((5 * gib, 2)));
    }

    #[test]
    fn a_window_adds_one_page_and_leaves_the_rest_alone() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        region(host, &mut memory, 0, 0x40_0000);
        region(host, &mut memory, 0xFE00_0000, 0x20_0000);
        let tables = NestedTables::<LongModeEntries>::map_all(host, &memory, true).unwrap();
        const WINDOW: u64 = 0xFEE0_0000;
        let page = HostPhysAddr::new(0x77_7000);
        let wider = tables.with_page(GuestPhysAddr::new(WINDOW), page).unwrap().unwrap();
        assert_eq!(walk(&wider, WINDOW + 0xB0), Some((0x77_70B0, 1)));
        assert_eq!((walk(&tables, WINDOW), walk(&wider, WINDOW + PAGE_SIZE)), (None, None));
        for guest in [0, 0x20_1234, 0x40_0000, 0xFE00_0000, 1 << 40] {
            assert_eq!(walk(&wider, guest), walk(&tables, guest));
        }
        for taken in [0x20_0000, 0xFE00_0000] {
            assert!(tables.with_page(GuestPhysAddr::new(taken), page).unwrap().is_none());
        }
        assert!(wider.with_page(GuestPhysAddr::new(WINDOW), page).unwrap().is_none());
    }

    #[test]
    fn gives_everything_back_when_memory_runs_out() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        region(host, &mut memory, 0, 0x20_0000);
        for n in 0..4 {
            host.fail_allocation_in(n);
            let result = NestedTables::<LongModeEntries>::map_all(host, &memory, true);
            assert_eq!(result.is_err(), n < 3, "three tables are needed");
        }
        drop(memory);
        assert_eq!(host.live_runs(), 0);
    }
}
