// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PVH boot protocol (Xen `docs/misc/pvh.pandoc`, `public/arch-x86/hvm/start_info.h`):
//! an ELF kernel entered in 32-bit protected mode with the address of a start info in EBX.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    BootError, BootImages, InitialState, Module, command_line,
    elf::Elf,
    image::write,
    placement::{FOUR_GIB, LOW_DATA_END, Placement},
    segments::Segments,
};
use crate::{GuestPhysAddr, memory::GuestMemory, state::Gpr};

const MAGIC: u32 = 0x336E_C578;
/// The first version with a memory map.
const VERSION: u32 = 1;

/// The protocol sets no limit; this is far beyond what any kernel accepts.
const COMMAND_LINE_LIMIT: usize = 0xFFFF;

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ModuleEntry {
    address: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryMapEntry {
    start: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// Loads an ELF kernel and its modules.
pub(super) fn load(
    memory: &GuestMemory,
    images: &BootImages<'_>,
) -> Result<InitialState, BootError> {
    let elf = Elf::parse(images.kernel)?;
    let entry = elf.pvh_entry.ok_or(BootError::NoEntry)?;
    let mut placement = Placement::new(images.memory_map);
    load_kernel(memory, &mut placement, &elf.segments, entry)?;
    let start_info = write_start_info(memory, &mut placement, images)?;
    let mut state = InitialState::protected_mode(entry);
    state.gprs[Gpr::Rbx as usize] = start_info;
    Ok(state)
}

/// Loads the modules and writes everything that the guest is told; returns the address of its
/// start.
pub(super) fn write_start_info(
    memory: &GuestMemory,
    placement: &mut Placement,
    images: &BootImages<'_>,
) -> Result<u64, BootError> {
    let text = images.command_line;
    let command_line = command_line::place(memory, placement, text, COMMAND_LINE_LIMIT)?;
    let modules = load_modules(memory, placement, images.modules)?;
    let memory_map = write_memory_map(memory, placement, images)?;
    place(
        memory,
        placement,
        &[StartInfo {
            magic: MAGIC,
            version: VERSION,
            flags: 0,
            module_count: images.modules.len() as u32,
            modules,
            command_line,
            rsdp: images.rsdp.map_or(0, GuestPhysAddr::as_u64),
            memory_map,
            memory_map_entries: images.memory_map.len() as u32,
            reserved: 0,
        }],
    )
}

fn load_kernel(
    memory: &GuestMemory,
    placement: &mut Placement,
    segments: &Segments<'_>,
    entry: u32,
) -> Result<(), BootError> {
    let (start, bytes) = segments.extent()?;
    segments.take(placement)?;
    if !(start..start + bytes).contains(&u64::from(entry)) {
        return Err(BootError::Malformed("its PVH entry point is not in what it loads"));
    }
    segments.write(memory, 0)
}

/// Loads modules as high as they fit below 4 GiB; returns the address of their list, zero if
/// there are none.
fn load_modules(
    memory: &GuestMemory,
    placement: &mut Placement,
    images: &[Module<'_>],
) -> Result<u64, BootError> {
    let mut modules = Vec::with_capacity(images.len());
    for image in images {
        let bytes = image.content.len() as u64;
        let address = placement.take_highest(bytes, FOUR_GIB).ok_or_else(|| {
            BootError::InitrdDoesNotFit { bytes, free: placement.longest_below(FOUR_GIB) }
        })?;
        write(memory, address, image.content)?;
        let text = image.command_line;
        let command_line = command_line::place(memory, placement, text, COMMAND_LINE_LIMIT)?;
        modules.push(ModuleEntry { address, bytes, command_line, reserved: 0 });
    }
    if modules.is_empty() { Ok(0) } else { place(memory, placement, &modules) }
}

fn write_memory_map(
    memory: &GuestMemory,
    placement: &mut Placement,
    images: &BootImages<'_>,
) -> Result<u64, BootError> {
    let entries: Vec<_> = images
        .memory_map
        .iter()
        .map(|range| MemoryMapEntry {
            start: range.start.as_u64(),
            bytes: range.bytes,
            kind: range.kind as u32,
            reserved: 0,
        })
        .collect();
    place(memory, placement, &entries)
}

/// Writes structures to low memory; returns their address.
fn place<T: IntoBytes + Immutable>(
    memory: &GuestMemory,
    placement: &mut Placement,
    structures: &[T],
) -> Result<u64, BootError> {
    let bytes = structures.as_bytes();
    let length = bytes.len() as u64;
    let at = placement
        .take_lowest(length, 16, 0..LOW_DATA_END)
        .ok_or(BootError::NoRoomForBootData { bytes: length })?;
    memory.write(GuestPhysAddr::new(at), bytes)?;
    Ok(at)
}

#[cfg(test)]
mod tests;
