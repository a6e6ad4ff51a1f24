// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading guest images: images and guest memory in, initial CPU state out.
//!
//! Nothing in an image is trusted: every length and address is checked against the image and
//! against the memory map before it is used. Loaders know no devices.

mod command_line;
mod elf;
mod error;
mod firmware;
mod image;
mod initial_state;
mod linux;
mod linux_header;
mod multiboot;
mod page_tables;
mod placement;
mod pvh;
mod raw;
mod segments;
#[cfg(test)]
pub(crate) mod test_memory;
mod zero_page;

pub use error::BootError;
pub use firmware::{MAX_FIRMWARE, map_firmware};
pub use initial_state::InitialState;
pub use raw::{RawMode, RawStart};

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

/// How a kernel file is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// By the protocol that [`ImageFormat::detect`] finds in it.
    #[default]
    Detect,
    /// As a flat image.
    Raw(RawStart),
}

/// A file that is loaded beside the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Module<'a> {
    /// What it holds.
    pub content: &'a [u8],
    /// A text for the kernel, usually the file's name; not for Linux.
    pub command_line: &'a str,
}

/// What a guest is started from.
#[derive(Clone, Copy, Debug)]
pub struct BootImages<'a> {
    /// The kernel file.
    pub kernel: &'a [u8],
    /// How it is started.
    pub start: Start,
    /// Modules; for Linux they are initial RAM disks and make one, in this order.
    pub modules: &'a [Module<'a>],
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
    /// Linux bzImage, started by the 64-bit boot protocol, or by the 32-bit one if it is a 32-bit
    /// kernel.
    LinuxBzImage,
    /// ELF file with a PVH entry point.
    Pvh,
    /// Multiboot kernel, an ELF file or one with load addresses in its header.
    Multiboot,
    /// Multiboot2 kernel, likewise.
    Multiboot2,
}

impl ImageFormat {
    /// Recognizes a kernel file. Of one that can be started in several ways, the first in this
    /// order is taken: bzImage, PVH, Multiboot2, multiboot.
    ///
    /// # Errors
    /// [`BootError::UnknownFormat`], or for ELF files [`BootError::NoBootProtocol`] and what
    /// is wrong with their headers.
    pub fn detect(kernel: &[u8]) -> Result<Self, BootError> {
        if linux::is_bzimage(kernel) {
            return Ok(Self::LinuxBzImage);
        }
        let is_elf = elf::is_elf(kernel);
        if is_elf && elf::Elf::parse(kernel)?.pvh_entry.is_some() {
            Ok(Self::Pvh)
        } else if multiboot::v2::is_kernel(kernel) {
            Ok(Self::Multiboot2)
        } else if multiboot::v1::is_kernel(kernel) {
            Ok(Self::Multiboot)
        } else if is_elf {
            Err(BootError::NoBootProtocol)
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
    if let Start::Raw(start) = images.start {
        return raw::load(memory, images, start);
    }
    match ImageFormat::detect(images.kernel)? {
        ImageFormat::LinuxBzImage => linux::load(memory, images),
        ImageFormat::Pvh => pvh::load(memory, images),
        ImageFormat::Multiboot => multiboot::v1::load(memory, images),
        ImageFormat::Multiboot2 => multiboot::v2::load(memory, images),
    }
}
