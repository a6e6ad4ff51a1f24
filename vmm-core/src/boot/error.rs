// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a guest image could not be loaded.

use core::fmt;

use host_iface::HostError;

use super::MAX_FIRMWARE;
use crate::{PAGE_SIZE, memory::MemoryError};

/// Why a guest image could not be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BootError {
    /// The kernel file is of no known format.
    UnknownFormat {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The kernel file is an ELF file of no known boot protocol.
    NoBootProtocol,
    /// A boot protocol was recognized, but the file has no entry point for it.
    NoEntry,
    /// The multiboot header does not say where the file goes, and it is no ELF file.
    NoLoadAddress,
    /// The entry point lies outside of what is loaded.
    EntryOutside,
    /// The multiboot header demands a display.
    NeedsDisplay,
    /// The multiboot header demands what is not known here.
    UnknownRequirement {
        /// What carries the number.
        what: &'static str,
        /// Number of the flag, tag or type.
        number: u32,
    },
    /// A flat image would be entered behind its end.
    RawEntryOutside {
        /// Offset of the entry point.
        offset: u64,
        /// Length of the image.
        bytes: u64,
    },
    /// A flat image cannot lie where it shall.
    RawNotInMemory {
        /// First address.
        start: u64,
        /// Length of the image.
        bytes: u64,
    },
    /// A flat image would be entered where real mode does not reach.
    RealModeEntry {
        /// Address of the entry point.
        entry: u64,
    },
    /// A firmware image has no whole pages, or too many.
    FirmwareSize {
        /// Its length in bytes.
        bytes: u64,
    },
    /// The host could not give what is needed.
    Host(HostError),
    /// The kernel file ends too early.
    Truncated {
        /// What is missing from it.
        what: &'static str,
        /// Length in bytes that the file should have at least.
        needed: u64,
        /// Length that it has.
        present: u64,
    },
    /// A field of the kernel file has a value that cannot be.
    Malformed(&'static str),
    /// The boot protocol of the Linux kernel is too old.
    ProtocolTooOld {
        /// Its version: major in the high byte, minor in the low.
        version: u16,
    },
    /// The Linux kernel is a zImage, which runs below 1 MiB.
    LoadedLow,
    /// The command line holds a zero byte.
    CommandLineZero,
    /// The command line is longer than the kernel accepts.
    CommandLineTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The longest that the kernel accepts.
        limit: usize,
    },
    /// There is no usable memory where the kernel must be.
    KernelDoesNotFit {
        /// First address that it may use.
        start: u64,
        /// Bytes that it needs from there.
        bytes: u64,
        /// End of usable memory below 4 GiB.
        memory_end: u64,
    },
    /// The initial RAM disk does not fit beside the kernel.
    InitrdDoesNotFit {
        /// Its length in bytes.
        bytes: u64,
        /// Largest length that would fit.
        free: u64,
    },
    /// No room for page tables, command line or boot parameters.
    NoRoomForBootData {
        /// Bytes that were wanted.
        bytes: u64,
    },
    /// The memory map has more entries than the boot protocol can carry.
    MemoryMapTooLong {
        /// Number of entries.
        entries: usize,
        /// Most that can be carried.
        limit: usize,
    },
    /// The memory map promises memory that the guest does not have.
    Memory(MemoryError),
}

/// Bytes in MiB, rounded up.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownFormat { bytes } => write!(
                f,
                "the kernel file ({bytes} bytes) is neither a Linux bzImage nor an ELF file with \
                 a PVH entry, and it has no multiboot header; give one of these, or say where a \
                 flat image goes"
            ),
            Self::NoBootProtocol => write!(
                f,
                "the kernel file is an x86 ELF file with neither a PVH entry note nor a \
                 multiboot header; build it with one (Linux: CONFIG_PVH) or give a bzImage"
            ),
            Self::NoEntry => {
                write!(f, "the kernel file has no entry point; build it with one")
            }
            Self::NoLoadAddress => write!(
                f,
                "the kernel file has a multiboot header without load addresses, and it is no \
                 ELF file; build it with one or the other"
            ),
            Self::EntryOutside => write!(
                f,
                "the kernel file's entry point is not in what is loaded of it; build it anew"
            ),
            Self::NeedsDisplay => write!(
                f,
                "the kernel's multiboot header demands a display, which VMs do not have; \
                 give a kernel for the serial port"
            ),
            Self::UnknownRequirement { what, number } => write!(
                f,
                "the kernel's multiboot header demands {what} {number}, which is not known here; \
                 give a kernel that does without"
            ),
            Self::RawEntryOutside { offset, bytes } => write!(
                f,
                "the flat image has {bytes} bytes, its entry point would be at offset \
                 {offset:#x}; choose one inside of it"
            ),
            Self::RawNotInMemory { start, bytes } => write!(
                f,
                "the flat image's {bytes} bytes from {start:#x} on are not all usable memory of \
                 the VM below 4 GiB; choose another load address or give the VM more memory"
            ),
            Self::RealModeEntry { entry } => write!(
                f,
                "the flat image's entry point {entry:#x} is out of reach for real mode; \
                 load it below 1 MiB or enter it in protected mode"
            ),
            Self::FirmwareSize { bytes } => write!(
                f,
                "the firmware image has {bytes} bytes; give one of a multiple of {PAGE_SIZE} \
                 bytes, at most {MAX_FIRMWARE}"
            ),
            Self::Host(error) => write!(f, "{error}"),
            Self::Truncated { what, needed, present } => write!(
                f,
                "the kernel file is cut short: {what} needs {needed} bytes, the file has \
                 {present}; fetch it again"
            ),
            Self::Malformed(what) => {
                write!(f, "the kernel file is damaged: {what}; fetch it again")
            }
            Self::ProtocolTooOld { version } => write!(
                f,
                "the Linux kernel speaks boot protocol {}.{:02}; give one with 2.12 or newer \
                 (Linux 3.8)",
                version >> 8,
                version & 0xFF
            ),
            Self::LoadedLow => {
                write!(f, "the Linux kernel is a zImage, to be loaded below 1 MiB; give a bzImage")
            }
            Self::CommandLineZero => {
                write!(f, "the kernel command line holds a zero byte; remove it")
            }
            Self::CommandLineTooLong { bytes, limit } => write!(
                f,
                "the kernel command line has {bytes} bytes, this kernel takes {limit}; shorten it"
            ),
            Self::KernelDoesNotFit { start, bytes, memory_end } => write!(
                f,
                "the kernel needs {} of memory from {start:#x} on, the VM's memory ends at \
                 {memory_end:#x}; give the VM at least {}",
                Mib(bytes),
                Mib(start.saturating_add(bytes))
            ),
            Self::InitrdDoesNotFit { bytes, free } => write!(
                f,
                "the initial RAM disk has {}, the VM has room for {} beside the kernel; \
                 give the VM more memory",
                Mib(bytes),
                Mib(free)
            ),
            Self::NoRoomForBootData { bytes } => write!(
                f,
                "no {bytes} bytes of low memory are left for boot data; \
                 give a kernel that loads at 1 MiB or above"
            ),
            Self::MemoryMapTooLong { entries, limit } => write!(
                f,
                "the VM's memory map has {entries} ranges, its boot protocol carries {limit}; \
                 give its memory in fewer pieces"
            ),
            Self::Memory(error) => write!(f, "the VM's memory map is wrong: {error}"),
        }
    }
}

impl core::error::Error for BootError {}

impl From<HostError> for BootError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<MemoryError> for BootError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
