// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading a multiboot kernel (Multiboot 0.6.96).

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    common::{LOADER_NAME, basic_memory, c_string, load_modules, place},
    v1_header::{self, Header},
};
use crate::{
    boot::{
        BootError, BootImages, InitialState, MemoryRange,
        elf::{self, Elf},
        placement::Placement,
        segments::Segments,
    },
    memory::GuestMemory,
    state::Gpr,
};

/// What EAX holds at the entry point (3.2).
const LOADER_MAGIC: u64 = 0x2BAD_B002;

/// Which fields of the information are valid (3.3).
mod given {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
}

/// The boot information (3.3), with room for all of its fields.
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Information {
    pub(super) flags: u32,
    pub(super) memory_lower: u32,
    pub(super) memory_upper: u32,
    boot_device: u32,
    pub(super) command_line: u32,
    pub(super) module_count: u32,
    pub(super) modules: u32,
    symbols: [u32; 4],
    pub(super) memory_map_bytes: u32,
    pub(super) memory_map: u32,
    drives: [u32; 2],
    configuration_table: u32,
    pub(super) loader_name: u32,
    power_management: u32,
    video: [u32; 4],
    frame_buffer: [u32; 7],
}

// The last field, `color_info`, ends here.
const _: () = assert!(size_of::<Information>() == 116);

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct ModuleEntry {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) text: u32,
    reserved: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
pub(super) struct MemoryMapEntry {
    /// Bytes of the entry after this field.
    pub(super) size: u32,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) kind: u32,
}

/// True if there is a multiboot header.
pub(in crate::boot) fn is_kernel(file: &[u8]) -> bool {
    v1_header::find(file).is_some()
}

/// Loads a kernel and its modules.
pub(in crate::boot) fn load(
    memory: &GuestMemory,
    images: &BootImages<'_>,
) -> Result<InitialState, BootError> {
    let (segments, entry) = take_apart(images.kernel)?;
    let mut placement = Placement::new(images.memory_map);
    segments.take(&mut placement)?;
    segments.write(memory, 0)?;
    let information = write_information(memory, &mut placement, images)?;
    let mut state = InitialState::protected_mode(entry);
    state.gprs[Gpr::Rax as usize] = LOADER_MAGIC;
    state.gprs[Gpr::Rbx as usize] = information.into();
    Ok(state)
}

/// What is to be loaded, and its physical entry point. The header's addresses come before those
/// of an ELF file (3.1.2).
fn take_apart(file: &[u8]) -> Result<(Segments<'_>, u32), BootError> {
    let header = Header::parse(file)?;
    let (segments, entry) = match header.addresses {
        Some((fields, entry)) => {
            let segments = fields.segments(file, header.offset)?;
            let physical = segments.physical(entry.into());
            (segments, physical)
        }
        None if elf::is_elf(file) => {
            let Elf { entry, segments, .. } = Elf::parse(file)?;
            let physical = segments.physical(entry);
            (segments, physical)
        }
        None => return Err(BootError::NoLoadAddress),
    };
    let entry = entry.and_then(|entry| u32::try_from(entry).ok());
    Ok((segments, entry.ok_or(BootError::EntryOutside)?))
}

fn write_information(
    memory: &GuestMemory,
    placement: &mut Placement,
    images: &BootImages<'_>,
) -> Result<u32, BootError> {
    let mut modules = Vec::with_capacity(images.modules.len());
    for module in load_modules(memory, placement, images.modules)? {
        let text = place(memory, placement, &c_string(module.text)?)?;
        modules.push(ModuleEntry { start: module.start, end: module.end, text, reserved: 0 });
    }
    let map: Vec<_> = images.memory_map.iter().map(memory_map_entry).collect();
    let (memory_lower, memory_upper) = basic_memory(images.memory_map);
    let information = Information {
        flags: given::MEMORY
            | given::COMMAND_LINE
            | given::MODULES
            | given::MEMORY_MAP
            | given::LOADER_NAME,
        memory_lower,
        memory_upper,
        command_line: place(memory, placement, &c_string(images.command_line)?)?,
        module_count: modules.len() as u32,
        modules: place(memory, placement, modules.as_bytes())?,
        memory_map_bytes: size_of_val(map.as_slice()) as u32,
        memory_map: place(memory, placement, map.as_bytes())?,
        loader_name: place(memory, placement, &c_string(LOADER_NAME)?)?,
        ..Information::default()
    };
    place(memory, placement, information.as_bytes())
}

fn memory_map_entry(range: &MemoryRange) -> MemoryMapEntry {
    MemoryMapEntry {
        size: (size_of::<MemoryMapEntry>() - size_of::<u32>()) as u32,
        start: range.start.as_u64(),
        bytes: range.bytes,
        kind: range.kind as u32,
    }
}
