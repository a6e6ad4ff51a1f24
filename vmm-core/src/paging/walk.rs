// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation of guest-virtual addresses through the guest's own page tables.
//!
//! Covers no paging, 32-bit paging (with PSE and PSE-36), PAE paging and 4-level paging
//! (AMD APM vol. 2, chapter 5; Intel SDM vol. 3, chapter 4). Accessed and dirty bits are set
//! atomically, and only when the access is allowed. Page-table entries where there is no
//! memory read as all ones, as a floating bus does.
//!
//! In PAE paging the four page-directory-pointer entries are read from memory on each walk,
//! as AMD processors do.

mod space;

pub use space::{Access, AccessKind, AddressSpace, PagingFeatures, Privilege, Rights, page_fault};

use crate::address::{GuestPhysAddr, GuestVirtAddr};
use crate::state::cr4;
use space::Mode;

/// Nothing answered at a guest-physical address, or it refused the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusError;

/// Guest-physical memory as the page walker needs it.
///
/// Addresses are aligned to the size of the access. Several virtual CPUs may walk at once.
pub trait PhysicalMemory {
    /// Reads 4 bytes.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory.
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError>;

    /// Reads 8 bytes.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory.
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError>;

    /// Replaces `expected` by `new` atomically; false if the value was another.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory or it cannot be written.
    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        expected: u32,
        new: u32,
    ) -> Result<bool, BusError>;

    /// Replaces `expected` by `new` atomically; false if the value was another.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory or it cannot be written.
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError>;
}

/// Size of the page an address lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 4 MiB (32-bit paging with PSE).
    Size4M,
    /// 1 GiB.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size4M => 4 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

/// A successful translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The guest-physical address.
    pub address: GuestPhysAddr,
    /// The page it lies in. Without paging: 4 KiB.
    pub page_size: PageSize,
    /// Rights of the page.
    pub rights: Rights,
    /// The page's dirty bit after this access: while it is clear, a write must walk again.
    pub dirty: bool,
    /// The page's global bit.
    pub global: bool,
}

/// Why an address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TranslateError {
    /// #PF with this error code.
    PageFault(u32),
    /// The address is not canonical: #GP or #SS before any walk.
    NonCanonical,
    /// Another CPU kept changing the page tables; let the guest run and try again.
    Contended,
    /// 5-level paging or protection keys, which no processor model here offers.
    UnsupportedMode,
}

/// Bits of page-table entries (AMD APM vol. 2, 5.4.1).
mod entry {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const GLOBAL: u64 = 1 << 8;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Address field of an 8-byte entry at its widest.
    pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

/// How often a walk restarts because an entry changed under it.
const MAX_RESTARTS: usize = 32;

/// Translates `address` for `access` and sets accessed and dirty bits as a processor would.
///
/// Outside 64-bit paging only the low 32 bits of `address` count.
///
/// # Errors
/// See [`TranslateError`]; a page fault carries the exact error code.
pub fn translate<M: PhysicalMemory + ?Sized>(
    memory: &M,
    space: &AddressSpace,
    address: GuestVirtAddr,
    access: Access,
) -> Result<Translation, TranslateError> {
    let mode = space.mode()?;
    if mode == Mode::FourLevel && !address.is_canonical() {
        return Err(TranslateError::NonCanonical);
    }
    if mode == Mode::Unpaged {
        return Ok(Translation {
            address: GuestPhysAddr::new(address.as_u64() & 0xFFFF_FFFF),
            page_size: PageSize::Size4K,
            rights: Rights::ALL,
            dirty: true,
            global: false,
        });
    }
    for _ in 0..MAX_RESTARTS {
        let mut walk = Walk::new(memory, space, mode, address.as_u64(), access);
        walk.run().map_err(TranslateError::PageFault)?;
        if let Some(translation) = walk.finish() {
            return Ok(translation);
        }
    }
    Err(TranslateError::Contended)
}

/// An entry used by a walk.
#[derive(Clone, Copy, Default)]
struct Visited {
    at: u64,
    value: u64,
}

/// One pass from the top-level table to the page.
struct Walk<'a, M: ?Sized> {
    memory: &'a M,
    space: &'a AddressSpace,
    mode: Mode,
    address: u64,
    access: Access,
    rights: Rights,
    /// By level, 1 (page table) to 4, at index `level - 1`.
    visited: [Visited; 4],
    leaf_level: u8,
}

impl<'a, M: PhysicalMemory + ?Sized> Walk<'a, M> {
    fn new(
        memory: &'a M,
        space: &'a AddressSpace,
        mode: Mode,
        address: u64,
        access: Access,
    ) -> Self {
        let visited = [Visited::default(); 4];
        Self { memory, space, mode, address, access, rights: Rights::ALL, visited, leaf_level: 1 }
    }

    /// Walks down to the page; the error is the code of a page fault.
    fn run(&mut self) -> Result<(), u32> {
        let cr3 = self.space.control.cr3;
        let (mut level, mut table) = match self.mode {
            Mode::FourLevel => (4, cr3 & entry::ADDRESS),
            Mode::Pae => (3, cr3 & 0xFFFF_FFE0),
            Mode::Legacy32 | Mode::Unpaged => (2, cr3 & 0xFFFF_F000),
        };
        loop {
            let at = table + self.index(level) * self.entry_size();
            let value = self.read(at);
            if let Some(slot) = self.visited.get_mut(usize::from(level) - 1) {
                *slot = Visited { at, value };
            }
            self.check_entry(level, value)?;
            if level == 1 || self.is_large(level, value) {
                self.leaf_level = level;
                break;
            }
            table = value & if self.mode == Mode::Legacy32 { 0xFFFF_F000 } else { entry::ADDRESS };
            level -= 1;
        }
        if self.space.permits(self.rights, self.access) {
            Ok(())
        } else {
            Err(self.space.error_code(self.access, page_fault::PRESENT))
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

    fn read(&self, at: u64) -> u64 {
        let at = GuestPhysAddr::new(at);
        if self.mode == Mode::Legacy32 {
            u64::from(self.memory.read_u32(at).unwrap_or(u32::MAX))
        } else {
            self.memory.read_u64(at).unwrap_or(u64::MAX)
        }
    }

    /// Checks presence and reserved bits and takes the entry's rights into account.
    fn check_entry(&mut self, level: u8, value: u64) -> Result<(), u32> {
        if value & entry::PRESENT == 0 {
            return Err(self.space.error_code(self.access, 0));
        }
        if value & self.reserved(level, value) != 0 {
            let cause = page_fault::PRESENT | page_fault::RESERVED;
            return Err(self.space.error_code(self.access, cause));
        }
        if !self.is_pae_pointer(level) {
            self.rights.write &= value & entry::WRITE != 0;
            self.rights.user &= value & entry::USER != 0;
            self.rights.execute &= value & entry::NO_EXECUTE == 0;
        }
        Ok(())
    }

    /// Page-directory-pointer entries of PAE paging carry neither rights nor accessed bits.
    fn is_pae_pointer(&self, level: u8) -> bool {
        self.mode == Mode::Pae && level == 3
    }

    fn is_large(&self, level: u8, value: u64) -> bool {
        let offered = match (self.mode, level) {
            (Mode::Legacy32, 2) => self.space.control.cr4 & cr4::PSE != 0,
            (Mode::Pae | Mode::FourLevel, 2) => true,
            (Mode::FourLevel, 3) => self.space.features.gigabyte_pages,
            _ => false,
        };
        offered && value & entry::LARGE != 0
    }

    /// The bits that must be zero in `value` as an entry of `level`.
    fn reserved(&self, level: u8, value: u64) -> u64 {
        if self.mode == Mode::Legacy32 {
            return if self.is_large(level, value) { self.reserved_pse() } else { 0 };
        }
        let mut reserved = self.space.beyond_physical();
        if self.is_pae_pointer(level) {
            // Bit 5 is let through: QEMU 7.2 marks these entries as accessed.
            return reserved | 0xFFF0_0000_0000_01C6;
        }
        if self.mode == Mode::Pae {
            reserved |= 0x7FF0_0000_0000_0000;
        }
        if !self.space.no_execute_enabled() {
            reserved |= entry::NO_EXECUTE;
        }
        match level {
            2 if self.is_large(level, value) => reserved | 0x001F_E000,
            3 if self.is_large(level, value) => reserved | 0x3FFF_E000,
            3 | 4 => reserved | entry::LARGE,
            _ => reserved,
        }
    }

    /// A 4 MiB entry holds address bits 39–32 in its bits 20–13; bit 21 is reserved, and so
    /// are those above the physical address width.
    fn reserved_pse(&self) -> u64 {
        let width = u32::from(self.space.features.physical_address_bits.clamp(32, 40));
        let usable = ((1 << (width - 32)) - 1) << 13;
        0x003F_E000 & !usable
    }

    /// Sets accessed and dirty bits; `None` if an entry changed meanwhile.
    fn finish(&mut self) -> Option<Translation> {
        let leaf_level = self.leaf_level;
        for (level, slot) in (1..).zip(&self.visited) {
            if slot.value == 0 || self.is_pae_pointer(level) {
                continue;
            }
            let mut wanted = slot.value | entry::ACCESSED;
            if level == leaf_level && self.access.kind == AccessKind::Write {
                wanted |= entry::DIRTY;
            }
            if wanted != slot.value && !self.replace(*slot, wanted) {
                return None;
            }
        }
        let leaf = self.visited.get(usize::from(leaf_level) - 1)?.value;
        Some(self.translation(leaf))
    }

    /// An entry that cannot be written (it lies in ROM) keeps its bits, as on hardware.
    fn replace(&self, slot: Visited, wanted: u64) -> bool {
        let at = GuestPhysAddr::new(slot.at);
        let exchanged = if self.mode == Mode::Legacy32 {
            self.memory.compare_exchange_u32(at, slot.value as u32, wanted as u32)
        } else {
            self.memory.compare_exchange_u64(at, slot.value, wanted)
        };
        exchanged.unwrap_or(true)
    }

    fn translation(&self, leaf: u64) -> Translation {
        let (page_size, frame) = match (self.mode, self.leaf_level) {
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
