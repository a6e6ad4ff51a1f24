// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading a Multiboot2 kernel (Multiboot2 2.0).

use super::{
    v2_header::{self, Header, Preference, Relocation},
    v2_information,
};
use crate::{
    boot::{
        BootError, BootImages, InitialState,
        elf::{self, Elf},
        placement::{FOUR_GIB, Placement},
        segments::Segments,
    },
    memory::GuestMemory,
    state::Gpr,
};

/// What EAX holds at the entry point (3.2).
const LOADER_MAGIC: u64 = 0x36D7_6289;

/// A kernel before it has its place.
struct Kernel<'a> {
    segments: Segments<'a>,
    /// Physical address where it was linked to lie.
    entry: u64,
    relocation: Option<Relocation>,
}

/// True if there is a Multiboot2 header.
pub(in crate::boot) fn is_kernel(file: &[u8]) -> bool {
    v2_header::find(file).is_some()
}

/// Loads a kernel and its modules.
pub(in crate::boot) fn load(
    memory: &GuestMemory,
    images: &BootImages<'_>,
) -> Result<InitialState, BootError> {
    let kernel = take_apart(images.kernel)?;
    let mut placement = Placement::new(images.memory_map);
    let (linked_at, _) = kernel.segments.extent()?;
    let load_base = place_kernel(&mut placement, &kernel)?;
    let moved_by = load_base.wrapping_sub(linked_at);
    kernel.segments.write(memory, moved_by)?;
    let relocated = kernel.relocation.is_some().then_some(load_base);
    let information = v2_information::write(memory, &mut placement, images, relocated)?;
    // What was placed ends below 4 GiB, and the entry point lies in it.
    let entry = kernel.entry.wrapping_add(moved_by) as u32;
    let mut state = InitialState::protected_mode(entry);
    state.gprs[Gpr::Rax as usize] = LOADER_MAGIC;
    state.gprs[Gpr::Rbx as usize] = information.into();
    Ok(state)
}

/// The header's tags come before what an ELF file says (3.1.5, 3.1.6).
fn take_apart(file: &[u8]) -> Result<Kernel<'_>, BootError> {
    let header = Header::parse(file)?;
    let (segments, entry, relocation) = match header.addresses {
        Some(fields) => (fields.segments(file, header.offset)?, None, None),
        None if elf::is_elf(file) => {
            let Elf { entry, segments, .. } = Elf::parse(file)?;
            (segments, Some(entry), header.relocation)
        }
        None => return Err(BootError::NoLoadAddress),
    };
    let entry = match (header.entry, entry) {
        // A physical address, which is not translated.
        (Some(entry), _) => {
            let (start, bytes) = segments.extent()?;
            Some(u64::from(entry)).filter(|entry| (start..start + bytes).contains(entry))
        }
        (None, Some(entry)) => segments.physical(entry),
        (None, None) => return Err(BootError::NoEntry),
    };
    Ok(Kernel { segments, entry: entry.ok_or(BootError::EntryOutside)?, relocation })
}

/// Takes memory for the kernel; returns its address.
fn place_kernel(placement: &mut Placement, kernel: &Kernel<'_>) -> Result<u64, BootError> {
    let (linked_at, bytes) = kernel.segments.extent()?;
    let Some(relocation) = kernel.relocation else {
        kernel.segments.take(placement)?;
        return Ok(linked_at);
    };
    let bounds = u64::from(relocation.min)..(u64::from(relocation.max) + 1).min(FOUR_GIB);
    let alignment = u64::from(relocation.alignment);
    let stays = relocation.preference == Preference::None
        && linked_at.is_multiple_of(alignment)
        && bounds.contains(&linked_at)
        && linked_at.saturating_add(bytes) <= bounds.end
        && placement.take(linked_at, bytes);
    if stays {
        return Ok(linked_at);
    }
    let start = bounds.start;
    let placed = match relocation.preference {
        Preference::Highest => placement.take_highest_in(bytes, alignment, bounds),
        Preference::None | Preference::Lowest => placement.take_lowest(bytes, alignment, bounds),
    };
    let memory_end = placement.end_below(FOUR_GIB);
    placed.ok_or(BootError::KernelDoesNotFit { start, bytes, memory_end })
}
