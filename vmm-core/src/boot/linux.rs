// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 64-bit and 32-bit Linux boot protocols (Linux `Documentation/arch/x86/boot.rst`).

use super::{
    BootError, BootImages, InitialState, Module, command_line,
    image::{write, write_zeroes},
    linux_header::{Entry, SetupHeader},
    page_tables,
    placement::{FOUR_GIB, LOW_DATA_END, Placement},
    zero_page::ZeroPage,
};
use crate::{
    GuestPhysAddr,
    memory::GuestMemory,
    state::{DescriptorTable, Gpr},
};

pub(super) use super::linux_header::is_bzimage;

/// The 64-bit entry point, from the start of the protected-mode kernel. The 32-bit one is that
/// start itself.
const ENTRY_64: u64 = 0x200;

/// Selectors that the protocol prescribes.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// Descriptors of flat segments, accessed already.
const CODE_64: u64 = 0x00AF_9B00_0000_FFFF;
const CODE_32: u64 = 0x00CF_9B00_0000_FFFF;
const DATA: u64 = 0x00CF_9300_0000_FFFF;

/// Initial RAM disks follow each other at multiples of this, as the kernel's unpacker wants.
const INITRD_ALIGNMENT: usize = 4;

/// Where things were put.
struct Loaded {
    kernel: u64,
    initrd: Option<(u64, u64)>,
    command_line: u64,
}

/// Loads a bzImage and its initial RAM disks.
pub(super) fn load(
    memory: &GuestMemory,
    images: &BootImages<'_>,
) -> Result<InitialState, BootError> {
    let header = SetupHeader::parse(images.kernel)?;
    let mut placement = Placement::new(images.memory_map);
    let loaded = Loaded {
        kernel: load_kernel(memory, &mut placement, &header)?,
        initrd: load_initrd(memory, &mut placement, &header, images.modules)?,
        command_line: command_line::place(
            memory,
            &mut placement,
            images.command_line,
            header.command_line_limit,
        )?,
    };
    let zero_page = zero_page(&header, images, &loaded)?.write(memory, &mut placement)?;
    let mut state = enter(memory, &mut placement, header.entry, loaded.kernel)?;
    state.gprs[Gpr::Rsi as usize] = zero_page;
    Ok(state)
}

/// The state in which the kernel loaded at `kernel` starts; registers that the protocol does not
/// name are zero.
fn enter(
    memory: &GuestMemory,
    placement: &mut Placement,
    entry: Entry,
    kernel: u64,
) -> Result<InitialState, BootError> {
    Ok(match entry {
        Entry::Long => {
            let page_tables = page_tables::identity(memory, placement)?;
            let gdtr = write_gdt(memory, placement, CODE_64)?;
            InitialState::long_mode(kernel + ENTRY_64, page_tables, gdtr, BOOT_CS, BOOT_DS)
        }
        Entry::Protected => {
            let gdtr = write_gdt(memory, placement, CODE_32)?;
            // Kernels are loaded below 4 GiB.
            InitialState::protected_mode_on(kernel as u32, gdtr, BOOT_CS, BOOT_DS)
        }
    })
}

fn load_kernel(
    memory: &GuestMemory,
    placement: &mut Placement,
    header: &SetupHeader<'_>,
) -> Result<u64, BootError> {
    let start = header.preferred_address;
    let bytes = header.memory_needed();
    let reachable = start.saturating_add(bytes) <= FOUR_GIB;
    let address = if reachable && placement.take(start, bytes) {
        Some(start)
    } else if header.relocatable {
        placement.take_lowest(bytes, header.alignment, start..FOUR_GIB)
    } else {
        None
    };
    let address = address.ok_or_else(|| BootError::KernelDoesNotFit {
        start,
        bytes,
        memory_end: placement.end_below(FOUR_GIB),
    })?;
    memory.write(GuestPhysAddr::new(address), header.payload)?;
    Ok(address)
}

/// Loads the RAM disks one after the other, as high as the kernel can reach them; returns
/// address and length.
fn load_initrd(
    memory: &GuestMemory,
    placement: &mut Placement,
    header: &SetupHeader<'_>,
    images: &[Module<'_>],
) -> Result<Option<(u64, u64)>, BootError> {
    let padded = |image: &Module<'_>| image.content.len().next_multiple_of(INITRD_ALIGNMENT) as u64;
    let bytes: u64 = images.iter().map(padded).sum();
    if bytes == 0 {
        return Ok(None);
    }
    let low = header.initrd_limit.min(FOUR_GIB);
    let start = placement
        .take_highest(bytes, low)
        .or_else(|| header.any_address.then(|| placement.take_highest(bytes, u64::MAX))?)
        .ok_or_else(|| {
            let limit = if header.any_address { u64::MAX } else { low };
            BootError::InitrdDoesNotFit { bytes, free: placement.longest_below(limit) }
        })?;
    let mut next = start;
    for image in images {
        let (content, whole) = (image.content.len() as u64, padded(image));
        write(memory, next, image.content)?;
        write_zeroes(memory, next + content, whole - content)?;
        next += whole;
    }
    Ok(Some((start, bytes)))
}

fn zero_page(
    header: &SetupHeader<'_>,
    images: &BootImages<'_>,
    loaded: &Loaded,
) -> Result<ZeroPage, BootError> {
    let mut page = ZeroPage::new(header.bytes);
    page.set_memory_map(images.memory_map)?;
    page.set_kernel(loaded.kernel);
    page.set_command_line(loaded.command_line);
    if let Some((start, bytes)) = loaded.initrd {
        page.set_initrd(start, bytes);
    }
    if let Some(rsdp) = images.rsdp {
        page.set_rsdp(rsdp);
    }
    Ok(page)
}

/// Writes the table: two unused entries, code, data.
fn write_gdt(
    memory: &GuestMemory,
    placement: &mut Placement,
    code: u64,
) -> Result<DescriptorTable, BootError> {
    let table = [0, 0, code, DATA];
    let bytes = size_of_val(&table) as u64;
    let base = placement
        .take_lowest(bytes, 16, 0..LOW_DATA_END)
        .ok_or(BootError::NoRoomForBootData { bytes })?;
    memory.write_plain(GuestPhysAddr::new(base), &table)?;
    Ok(DescriptorTable { base, limit: bytes as u16 - 1 })
}

#[cfg(test)]
mod tests;
