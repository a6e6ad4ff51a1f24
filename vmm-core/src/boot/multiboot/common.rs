// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both versions tell a kernel.

use alloc::{ffi::CString, vec::Vec};

use crate::{
    GuestPhysAddr, PAGE_SIZE,
    boot::{
        BootError, MemoryKind, MemoryRange, Module,
        image::write,
        placement::{FOUR_GIB, LOW_DATA_END, Placement},
    },
    memory::GuestMemory,
};

/// How the boot loader calls itself.
pub(super) const LOADER_NAME: &str = "Alcazar";

const KIB: u64 = 1024;
const MIB: u64 = 1 << 20;

/// A module in memory.
pub(super) struct PlacedModule<'a> {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) text: &'a str,
}

/// Loads modules at page boundaries, as low above 1 MiB as they fit: kernels often map little
/// of memory at first.
pub(super) fn load_modules<'a>(
    memory: &GuestMemory,
    placement: &mut Placement,
    modules: &[Module<'a>],
) -> Result<Vec<PlacedModule<'a>>, BootError> {
    let mut placed = Vec::with_capacity(modules.len());
    for module in modules {
        let bytes = module.content.len() as u64;
        let start = placement.take_lowest(bytes, PAGE_SIZE, MIB..FOUR_GIB).ok_or_else(|| {
            BootError::InitrdDoesNotFit { bytes, free: placement.longest_below(FOUR_GIB) }
        })?;
        write(memory, start, module.content)?;
        let end = start + bytes;
        // Below 4 GiB by its place; memory below 4 GiB ends well before.
        placed.push(PlacedModule {
            start: start as u32,
            end: end as u32,
            text: module.command_line,
        });
    }
    Ok(placed)
}

/// KiB of usable memory from address zero, and from 1 MiB up to the first hole; what the fields
/// `mem_lower` and `mem_upper` hold.
pub(super) fn basic_memory(map: &[MemoryRange]) -> (u32, u32) {
    let usable_from = |start: u64| {
        let mut end = start;
        for range in map.iter().filter(|range| range.kind == MemoryKind::Usable) {
            let (first, bytes) = (range.start.as_u64(), range.bytes);
            if first <= end && end < first.saturating_add(bytes) {
                end = first.saturating_add(bytes);
            }
        }
        u32::try_from((end - start) / KIB).unwrap_or(u32::MAX)
    };
    (usable_from(0).min(640), usable_from(MIB))
}

/// The bytes of a text with the zero at its end.
pub(super) fn c_string(text: &str) -> Result<Vec<u8>, BootError> {
    let text = CString::new(text).map_err(|_| BootError::CommandLineZero)?;
    Ok(text.into_bytes_with_nul())
}

/// Writes `bytes` to low memory; returns their address.
pub(super) fn place(
    memory: &GuestMemory,
    placement: &mut Placement,
    bytes: &[u8],
) -> Result<u32, BootError> {
    let length = bytes.len() as u64;
    let at = placement
        .take_lowest(length, 16, 0..LOW_DATA_END)
        .ok_or(BootError::NoRoomForBootData { bytes: length })?;
    memory.write(GuestPhysAddr::new(at), bytes)?;
    // Low memory ends far below 4 GiB.
    Ok(at as u32)
}
