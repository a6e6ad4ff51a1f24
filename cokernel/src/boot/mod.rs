// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the boot loader hands over, normalised from two protocols.

#[cfg(target_os = "none")]
pub(crate) mod entry;
pub mod multiboot2;
pub mod pvh;

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::PhysAddr;

/// How the co-kernel was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootProtocol {
    /// Xen PVH direct boot, as QEMU's `-kernel` does it.
    Pvh,
    /// Multiboot2, as GRUB does it.
    Multiboot2,
}

/// What a range of physical memory is good for; E820 types (ACPI 6.5, table 15.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// Free for the operating system.
    Usable,
    /// Holds ACPI tables.
    AcpiTables,
    /// Must be kept for firmware.
    AcpiNonVolatile,
    /// Defective.
    Defective,
    /// Anything else: firmware, devices.
    Reserved,
}

impl MemoryKind {
    /// Translates an E820 address range type.
    pub const fn from_e820(kind: u32) -> Self {
        match kind {
            1 => Self::Usable,
            3 => Self::AcpiTables,
            4 => Self::AcpiNonVolatile,
            5 => Self::Defective,
            _ => Self::Reserved,
        }
    }
}

/// A range of physical memory from the boot memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// First byte.
    pub start: u64,
    /// Length in bytes; `start + length` does not wrap.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// A file that the boot loader placed in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootModule {
    /// First byte.
    pub start: PhysAddr,
    /// Length in bytes.
    pub length: u64,
    /// The command line that the loader gave it.
    pub command_line: String,
}

#[cfg(target_os = "none")]
impl BootModule {
    /// The file, in place. Its memory is never handed out.
    pub fn bytes(&self) -> &'static [u8] {
        // SAFETY: the memory map excludes modules from allocation and the direct map covers
        // them; nothing writes them.
        unsafe {
            core::slice::from_raw_parts(
                crate::memory::phys_to_virt(self.start).as_ptr(),
                self.length as usize,
            )
        }
    }
}

/// Everything the boot loader said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootInfo {
    /// Which protocol was used.
    pub protocol: BootProtocol,
    /// The kernel's command line.
    pub command_line: String,
    /// The memory map, as given.
    pub memory_map: Vec<MemoryRegion>,
    /// The files loaded beside the kernel.
    pub modules: Vec<BootModule>,
    /// Where the ACPI root pointer is, if the loader knows: a copy of it or its address.
    pub rsdp: Option<Rsdp>,
}

/// The ACPI root pointer as a boot loader passes it on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rsdp {
    /// Its physical address.
    Address(PhysAddr),
    /// A copy of its bytes.
    Copy(Vec<u8>),
}

impl BootInfo {
    /// The value of `name=value` on the command line; of several, the last.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.words().filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).last()
    }

    /// True if the bare word `name` is on the command line.
    pub fn flag(&self, name: &str) -> bool {
        self.words().any(|word| word == name)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.command_line.split_ascii_whitespace()
    }
}

/// Why what the boot loader left cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BootError {
    /// The structure lacks its magic number.
    BadMagic,
    /// The structure, or what it points to, ends early or lies out of reach.
    Truncated,
    /// There is no memory map.
    NoMemoryMap,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadMagic => "the boot loader's information has no valid magic number",
            Self::Truncated => "the boot loader's information ends early or is out of reach",
            Self::NoMemoryMap => "the boot loader gave no memory map",
        })
    }
}

impl core::error::Error for BootError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_words_are_matched_whole() {
        let info = BootInfo {
            protocol: BootProtocol::Pvh,
            command_line: String::from("loglevel=info panic  xlog=e9 loglevel=debug"),
            memory_map: Vec::new(),
            modules: Vec::new(),
            rsdp: None,
        };
        assert_eq!(info.option("loglevel"), Some("debug"));
        assert_eq!(info.option("log"), None);
        assert!(info.flag("panic"));
        assert!(!info.flag("pan"));
    }
}
