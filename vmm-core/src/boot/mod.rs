// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading guest images: images and guest memory in, initial CPU state out.
//!
//! Nothing in an image is trusted: every length and address is checked against the image and
//! against the memory map before it is used. Loaders know no devices.

mod command_line;
mod elf;
mod error;
mod image;
mod initial_state;
mod linux;
mod linux_header;
mod page_tables;
mod placement;
mod pvh;
#[cfg(test)]
mod test_memory;
mod zero_page;

pub use error::BootError;
pub use initial_state::InitialState;

use crate::{GuestPhysAddr, memory::GuestMemory};

/// What a stretch of the guest's address space is to its operating system; the numbers are
/// those of the BIOS memory map (ACPI 6.5, table 15.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MemoryKind {
    /// Memory for the guest to use.
    Usable = 1,
    /// Not to be used.
    Reserved = 2,
    /// Memory that holds ACPI tables until the guest has read them.
    AcpiReclaimable = 3,
    /// Memory that the guest has to preserve while it sleeps.
    AcpiNonVolatile = 4,
}

/// One entry of a guest's memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// First address.
    pub start: GuestPhysAddr,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// What a guest is started from.
#[derive(Clone, Copy, Debug)]
pub struct BootImages<'a> {
    /// The kernel file.
    pub kernel: &'a [u8],
    /// Initial RAM disks: one after the other for Linux, a module each for PVH.
    pub initrd: &'a [&'a [u8]],
    /// Command line for the kernel.
    pub command_line: &'a str,
    /// The guest's memory map, in ascending order.
    pub memory_map: &'a [MemoryRange],
    /// Where the ACPI tables start.
    pub rsdp: Option<GuestPhysAddr>,
}

/// Format of a kernel file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageFormat {
    /// Linux bzImage, started by the 64-bit boot protocol.
    LinuxBzImage,
    /// ELF file with a PVH entry point.
    Pvh,
}

impl ImageFormat {
    /// Recognizes a kernel file.
    ///
    /// # Errors
    /// [`BootError::UnknownFormat`], or [`BootError::NoPvhEntry`] for other ELF files.
    pub fn detect(kernel: &[u8]) -> Result<Self, BootError> {
        if linux::is_bzimage(kernel) {
            Ok(Self::LinuxBzImage)
        } else if elf::is_elf(kernel) {
            elf::Elf::parse(kernel).map(|_| Self::Pvh)
        } else {
            Err(BootError::UnknownFormat { bytes: kernel.len() })
        }
    }
}

/// Loads the images into `memory`.
///
/// Returns the state in which the first vCPU starts.
///
/// # Errors
/// [`BootError`]; part of the memory may have been written then.
pub fn load(memory: &GuestMemory, images: &BootImages<'_>) -> Result<InitialState, BootError> {
    match ImageFormat::detect(images.kernel)? {
        ImageFormat::LinuxBzImage => linux::load(memory, images),
        ImageFormat::Pvh => pvh::load(memory, images),
    }
}
