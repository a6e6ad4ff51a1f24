// SPDX-License-Identifier: MIT OR Apache-2.0
//! One pass from the top-level table to the page.

use core::marker::PhantomData;

use super::rules::{Rules, entry};
use super::space::{Access, AccessKind, AddressSpace, Mode, Rights, page_fault};
use super::{PageSize, PhysicalMemory, Translation};
use crate::address::GuestPhysAddr;

/// An entry used by a walk.
#[derive(Clone, Copy)]
struct Visited {
    at: u64,
    value: u64,
}

/// A walk, as far as it has come.
pub struct Pass<'a, R, M: ?Sized> {
    memory: &'a M,
    space: &'a AddressSpace,
    mode: Mode,
    address: u64,
    access: Access,
    rights: Rights,
    /// By level, 1 (page table) to 4, at index `level - 1`; those in memory that were used.
    visited: [Option<Visited>; 4],
    /// Level and value of the entry that maps the page.
    page: (u8, u64),
    rules: PhantomData<R>,
}

impl<'a, R: Rules, M: PhysicalMemory + ?Sized> Pass<'a, R, M> {
    pub fn new(
        memory: &'a M,
        space: &'a AddressSpace,
        mode: Mode,
        address: u64,
        access: Access,
    ) -> Self {
        let (visited, page) = ([None; 4], (1, 0));
        let rights = Rights::ALL;
        Self { memory, space, mode, address, access, rights, visited, page, rules: PhantomData }
    }

    /// Walks down to the page; the error is the code of a page fault.
    pub fn run(&mut self) -> Result<(), u32> {
        let cr3 = self.space.control.cr3;
        let (mut level, mut table) = match self.mode {
            Mode::FourLevel => (4, cr3 & entry::ADDRESS),
            Mode::Pae => (3, cr3 & 0xFFFF_FFE0),
            Mode::Legacy32 | Mode::Unpaged => (2, cr3 & 0xFFFF_F000),
        };
        loop {
            let value = self.visit(level, table);
            self.check(level, value)?;
            if R::maps_page(self.space, self.mode, level, value) {
                self.page = (level, value);
                break;
            }
            table = value & if self.mode == Mode::Legacy32 { 0xFFFF_F000 } else { entry::ADDRESS };
            level -= 1;
        }
        if R::permits(self.space, self.rights, self.access) {
            Ok(())
        } else {
            Err(R::error_code(self.space, self.access, page_fault::PRESENT))
        }
    }

    fn entry_size(&self) -> u64 {
        if self.mode == Mode::Legacy32 { 4 } else { 8 }
    }

    fn index(&self, level: u8) -> u64 {
        match (self.mode, level) {
            (Mode::Legacy32, 2) => (self.address >> 22) & 0x3FF,
            (Mode::Legacy32, _) => (self.address >> 12) & 0x3FF,
            (Mode::Pae, 3) => (self.address >> 30) & 3,
            _ => (self.address >> (3 + 9 * u32::from(level))) & 0x1FF,
        }
    }

    /// Fetches the entry of `level` from its table, or from where the processor keeps it.
    fn visit(&mut self, level: u8, table: u64) -> u64 {
        let index = self.index(level);
        if self.mode.is_pae_pointer(level)
            && let Some(kept) = &self.space.page_directory_pointers
        {
            return kept[index as usize & 3];
        }
        let at = table + index * self.entry_size();
        let value = self.read(GuestPhysAddr::new(at));
        if let Some(slot) = self.visited.get_mut(usize::from(level) - 1) {
            *slot = Some(Visited { at, value });
        }
        value
    }

    fn read(&self, at: GuestPhysAddr) -> u64 {
        if self.mode == Mode::Legacy32 {
            u64::from(self.memory.read_u32(at).unwrap_or(u32::MAX))
        } else {
            self.memory.read_u64(at).unwrap_or(u64::MAX)
        }
    }

    /// Checks presence and reserved bits and takes the entry's rights into account.
    fn check(&mut self, level: u8, value: u64) -> Result<(), u32> {
        if value & entry::PRESENT == 0 {
            return Err(R::error_code(self.space, self.access, 0));
        }
        if value & R::reserved(self.space, self.mode, level, value) != 0 {
            let cause = page_fault::PRESENT | page_fault::RESERVED;
            return Err(R::error_code(self.space, self.access, cause));
        }
        if !self.mode.is_pae_pointer(level) {
            self.rights = R::combine(self.rights, value);
        }
        Ok(())
    }

    /// Sets accessed and dirty bits from the top down, so that no page is marked dirty on the way
    /// of a table that is no longer there; `None` if an entry changed meanwhile.
    pub fn finish(&self) -> Option<Translation> {
        for (level, slot) in (1..=4).zip(&self.visited).rev() {
            let Some(Visited { at, value }) = *slot else { continue };
            let marks = R::marks(self.mode, level, level == self.page.0, self.access.kind);
            if value & marks != marks && !self.replace(at, value, value | marks) {
                return None;
            }
        }
        Some(self.translation())
    }

    /// An entry that cannot be written (it lies in ROM) keeps its bits, as on hardware.
    fn replace(&self, at: u64, old: u64, new: u64) -> bool {
        let at = GuestPhysAddr::new(at);
        let exchanged = if self.mode == Mode::Legacy32 {
            self.memory.compare_exchange_u32(at, old as u32, new as u32)
        } else {
            self.memory.compare_exchange_u64(at, old, new)
        };
        exchanged.unwrap_or(true)
    }

    fn translation(&self) -> Translation {
        let (level, leaf) = self.page;
        let (page_size, frame) = match (self.mode, level) {
            (Mode::Legacy32, 2) => {
                (PageSize::Size4M, (leaf & 0xFFC0_0000) | ((leaf & 0x001F_E000) << 19))
            }
            (Mode::Legacy32, _) => (PageSize::Size4K, leaf & 0xFFFF_F000),
            (_, 2) => (PageSize::Size2M, leaf & entry::ADDRESS & !0x1F_FFFF),
            (_, 3) => (PageSize::Size1G, leaf & entry::ADDRESS & !0x3FFF_FFFF),
            _ => (PageSize::Size4K, leaf & entry::ADDRESS),
        };
        Translation {
            address: GuestPhysAddr::new(frame | (self.address & (page_size.bytes() - 1))),
            page_size,
            rights: self.rights,
            dirty: leaf & entry::DIRTY != 0 || self.access.kind == AccessKind::Write,
            global: leaf & entry::GLOBAL != 0,
        }
    }
}
