// SPDX-License-Identifier: MIT OR Apache-2.0
//! The zero page, `struct boot_params` (Linux `Documentation/arch/x86/zero-page.rst`).

use super::{
    BootError, MemoryRange,
    placement::{LOW_DATA_END, Placement},
};
use crate::{GuestPhysAddr, PAGE_SIZE, memory::GuestMemory};

/// Where the setup header lies, in the file and in the page.
pub(super) const SETUP_HEADER: usize = 0x1F1;
/// End of the room for it.
pub(super) const SETUP_HEADER_END: usize = 0x290;

const RSDP: usize = 0x070;
const RAMDISK_HIGH: usize = 0x0C0;
const RAMDISK_SIZE_HIGH: usize = 0x0C4;
const COMMAND_LINE_HIGH: usize = 0x0C8;
const E820_ENTRIES: usize = 0x1E8;
const TYPE_OF_LOADER: usize = 0x210;
const CODE32_START: usize = 0x214;
const RAMDISK: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const COMMAND_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2D0;

const E820_ENTRY_BYTES: usize = 20;
const E820_LIMIT: usize = 128;

/// A loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xFF;

/// The page as it is being made.
pub(super) struct ZeroPage([u8; PAGE_SIZE as usize]);

impl ZeroPage {
    /// A page of zeroes but for the setup header, of which what has no room is left out.
    pub(super) fn new(setup_header: &[u8]) -> Self {
        let mut page = Self([0; PAGE_SIZE as usize]);
        let room = &mut page.0[SETUP_HEADER..SETUP_HEADER_END];
        for (to, from) in room.iter_mut().zip(setup_header) {
            *to = *from;
        }
        page.put(TYPE_OF_LOADER, [UNDEFINED_LOADER]);
        page
    }

    pub(super) fn set_memory_map(&mut self, map: &[MemoryRange]) -> Result<(), BootError> {
        if map.len() > E820_LIMIT {
            return Err(BootError::MemoryMapTooLong { entries: map.len(), limit: E820_LIMIT });
        }
        self.put(E820_ENTRIES, [map.len() as u8]);
        for (index, range) in map.iter().enumerate() {
            let at = E820_TABLE + index * E820_ENTRY_BYTES;
            self.put(at, range.start.as_u64().to_le_bytes());
            self.put(at + 8, range.bytes.to_le_bytes());
            self.put(at + 16, (range.kind as u32).to_le_bytes());
        }
        Ok(())
    }

    /// Where the protected-mode kernel was loaded, which is below 4 GiB.
    pub(super) fn set_kernel(&mut self, at: u64) {
        self.put(CODE32_START, (at as u32).to_le_bytes());
    }

    pub(super) fn set_command_line(&mut self, at: u64) {
        self.put_split(COMMAND_LINE, COMMAND_LINE_HIGH, at);
    }

    pub(super) fn set_initrd(&mut self, at: u64, bytes: u64) {
        self.put_split(RAMDISK, RAMDISK_HIGH, at);
        self.put_split(RAMDISK_SIZE, RAMDISK_SIZE_HIGH, bytes);
    }

    pub(super) fn set_rsdp(&mut self, at: GuestPhysAddr) {
        self.put(RSDP, at.as_u64().to_le_bytes());
    }

    /// Writes the page to low memory; returns its address.
    pub(super) fn write(
        &self,
        memory: &GuestMemory,
        placement: &mut Placement,
    ) -> Result<u64, BootError> {
        let at = placement
            .take_lowest(PAGE_SIZE, PAGE_SIZE, 0..LOW_DATA_END)
            .ok_or(BootError::NoRoomForBootData { bytes: PAGE_SIZE })?;
        memory.write(GuestPhysAddr::new(at), &self.0)?;
        Ok(at)
    }

    /// Writes the two halves of a value to two fields.
    fn put_split(&mut self, low: usize, high: usize, value: u64) {
        self.put(low, (value as u32).to_le_bytes());
        self.put(high, ((value >> 32) as u32).to_le_bytes());
    }

    /// Writes a field, all of which lies in the page.
    fn put<const BYTES: usize>(&mut self, at: usize, value: [u8; BYTES]) {
        self.0[at..at + BYTES].copy_from_slice(&value);
    }
}

// The longest memory map ends within the page.
const _: () = assert!(E820_TABLE + E820_LIMIT * E820_ENTRY_BYTES <= PAGE_SIZE as usize);
