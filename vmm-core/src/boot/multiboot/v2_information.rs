// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Multiboot2 boot information and its tags (Multiboot2 2.0, 3.6).

use alloc::vec::Vec;

use super::common::{LOADER_NAME, basic_memory, c_string, load_modules, place};
use crate::{
    GuestPhysAddr,
    boot::{BootError, BootImages, MemoryRange, placement::Placement},
    memory::GuestMemory,
};

/// Types of tags.
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const COMMAND_LINE: u32 = 1;
    pub(super) const LOADER_NAME: u32 = 2;
    pub(super) const MODULE: u32 = 3;
    pub(super) const BASIC_MEMORY: u32 = 4;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const ELF_SYMBOLS: u32 = 9;
    pub(super) const ACPI_OLD_RSDP: u32 = 14;
    pub(super) const ACPI_NEW_RSDP: u32 = 15;
    pub(super) const LOAD_BASE: u32 = 21;
}

/// Tags start at multiples of this.
const ALIGNMENT: usize = 8;

const MEMORY_MAP_ENTRY_BYTES: u32 = 24;
const MEMORY_MAP_ENTRY_VERSION: u32 = 0;

/// Fields of the RSDP (ACPI 6.5, table 5.3).
const RSDP_REVISION: usize = 15;
const RSDP_RSDT: core::ops::Range<usize> = 16..20;
const RSDP_OLD_BYTES: usize = 20;
const RSDP_NEW_BYTES: usize = 36;

/// Whether a kernel that demands information of this type can be served. What is about devices
/// or firmware that a VM does not have, such as a display or EFI, is known and never there,
/// which the kernel has to expect (3.1.4).
pub(super) fn can_inform(kind: u32) -> bool {
    kind <= tag::LOAD_BASE && kind != tag::ELF_SYMBOLS
}

/// The information as it is being made.
struct Information(Vec<u8>);

impl Information {
    fn new() -> Self {
        // Total size, which `finish` fills in, and a reserved field.
        Self(alloc::vec![0; 8])
    }

    /// Adds a tag of `parts`, one after the other.
    fn tag(&mut self, kind: u32, parts: &[&[u8]]) {
        let size: usize = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((size as u32).to_le_bytes());
        parts.iter().for_each(|part| self.0.extend(*part));
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.tag(tag::END, &[]);
        let total = self.0.len() as u32;
        self.0[..4].copy_from_slice(&total.to_le_bytes());
        self.0
    }
}

/// Loads the modules and writes the information to low memory; returns its address. `load_base`
/// is where a relocatable kernel was put.
pub(super) fn write(
    memory: &GuestMemory,
    placement: &mut Placement,
    images: &BootImages<'_>,
    load_base: Option<u64>,
) -> Result<u32, BootError> {
    let mut information = Information::new();
    information.tag(tag::COMMAND_LINE, &[&c_string(images.command_line)?]);
    information.tag(tag::LOADER_NAME, &[&c_string(LOADER_NAME)?]);
    for module in load_modules(memory, placement, images.modules)? {
        let (start, end) = (module.start.to_le_bytes(), module.end.to_le_bytes());
        information.tag(tag::MODULE, &[&start, &end, &c_string(module.text)?]);
    }
    let (lower, upper) = basic_memory(images.memory_map);
    information.tag(tag::BASIC_MEMORY, &[&lower.to_le_bytes(), &upper.to_le_bytes()]);
    information.tag(tag::MEMORY_MAP, &[&memory_map(images.memory_map)]);
    if let Some(base) = load_base {
        information.tag(tag::LOAD_BASE, &[&(base as u32).to_le_bytes()]);
    }
    if let Some(rsdp) = images.rsdp {
        add_rsdp(&mut information, memory, rsdp)?;
    }
    place(memory, placement, &information.finish())
}

fn memory_map(map: &[MemoryRange]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(MEMORY_MAP_ENTRY_BYTES.to_le_bytes());
    bytes.extend(MEMORY_MAP_ENTRY_VERSION.to_le_bytes());
    for range in map {
        bytes.extend(range.start.as_u64().to_le_bytes());
        bytes.extend(range.bytes.to_le_bytes());
        bytes.extend((range.kind as u32).to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
    }
    bytes
}

/// Adds a copy of the RSDP: as the old one if it leads to an RSDT, as the new one if its
/// revision has the new fields.
fn add_rsdp(
    information: &mut Information,
    memory: &GuestMemory,
    rsdp: GuestPhysAddr,
) -> Result<(), BootError> {
    let mut copy = [0; RSDP_NEW_BYTES];
    memory.read(rsdp, &mut copy)?;
    if copy[RSDP_RSDT] != [0; 4] {
        information.tag(tag::ACPI_OLD_RSDP, &[&copy[..RSDP_OLD_BYTES]]);
    }
    if copy[RSDP_REVISION] >= 2 {
        information.tag(tag::ACPI_NEW_RSDP, &[&copy]);
    }
    Ok(())
}
