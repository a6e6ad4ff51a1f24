// SPDX-License-Identifier: MIT OR Apache-2.0
//! The setup header of a bzImage.

use super::{
    BootError,
    image::{bytes_at, number_at},
    zero_page::{SETUP_HEADER, SETUP_HEADER_END},
};

const SECTOR: usize = 512;

/// Offsets in the file.
const SETUP_SECTORS: usize = SETUP_HEADER;
const PAYLOAD_PARAGRAPHS: usize = 0x1F4;
const BOOT_FLAG: usize = 0x1FE;
const HEADER_LENGTH: usize = 0x201;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const INITRD_ADDR_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

/// The protocol that brought xloadflags, which tells 64-bit kernels from others.
const OLDEST_PROTOCOL: u64 = 0x020C;

/// The protected-mode kernel is loaded at 1 MiB or above: it is no zImage.
const LOADED_HIGH: u64 = 1 << 0;

/// There is a 64-bit entry point.
const XLF_KERNEL_64: u64 = 1 << 0;
/// Kernel, boot parameters, command line and RAM disk may lie above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u64 = 1 << 1;

/// Where old kernels take it for granted that there are four.
const DEFAULT_SETUP_SECTORS: u64 = 4;

/// Largest alignment that a kernel is granted: a page of 1 GiB.
const LARGEST_ALIGNMENT: u64 = 1 << 30;

const WHAT: &str = "the setup header";

/// In which mode a kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// In 64-bit mode, as 64-bit kernels are.
    Long,
    /// In protected mode without paging, as 32-bit kernels are.
    Protected,
}

/// What a bzImage says of itself.
pub(super) struct SetupHeader<'a> {
    /// The header, to be copied to the zero page.
    pub(super) bytes: &'a [u8],
    /// The protected-mode kernel.
    pub(super) payload: &'a [u8],
    /// How it is entered.
    pub(super) entry: Entry,
    /// Where it wants to lie.
    pub(super) preferred_address: u64,
    /// It may lie elsewhere, at a multiple of `alignment` not below the preferred address.
    pub(super) relocatable: bool,
    /// A power of two.
    pub(super) alignment: u64,
    /// Bytes that it uses before it has read the memory map.
    init_size: u64,
    /// Longest command line in bytes.
    pub(super) command_line_limit: usize,
    /// End of what it can reach of an initial RAM disk.
    pub(super) initrd_limit: u64,
    /// It finds its RAM disk anywhere.
    pub(super) any_address: bool,
}

/// True if the file has the boot sector and the signature of a Linux kernel.
pub(super) fn is_bzimage(file: &[u8]) -> bool {
    file.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xAA])
        && file.get(SIGNATURE..SIGNATURE + 4) == Some(b"HdrS")
}

impl<'a> SetupHeader<'a> {
    /// Reads and checks the header.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, BootError> {
        let field = |offset, bytes| number_at(file, offset, bytes, WHAT);
        let version = field(VERSION, 2)?;
        if version < OLDEST_PROTOCOL {
            return Err(BootError::ProtocolTooOld { version: version as u16 });
        }
        let flags = field(XLOADFLAGS, 2)?;
        let entry = match flags & XLF_KERNEL_64 {
            0 if field(LOADFLAGS, 1)? & LOADED_HIGH == 0 => return Err(BootError::LoadedLow),
            0 => Entry::Protected,
            _ => Entry::Long,
        };
        let alignment = field(KERNEL_ALIGNMENT, 4)?;
        if !alignment.is_power_of_two() || alignment > LARGEST_ALIGNMENT {
            return Err(BootError::Malformed("the alignment in its setup header is impossible"));
        }
        Ok(Self {
            bytes: header_bytes(file)?,
            payload: payload(file)?,
            entry,
            preferred_address: field(PREF_ADDRESS, 8)?,
            relocatable: field(RELOCATABLE, 1)? != 0,
            alignment,
            init_size: field(INIT_SIZE, 4)?,
            command_line_limit: field(CMDLINE_SIZE, 4)? as usize,
            initrd_limit: field(INITRD_ADDR_MAX, 4)? + 1,
            any_address: entry == Entry::Long && flags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
        })
    }

    /// Bytes of memory that the kernel needs where it is loaded.
    pub(super) fn memory_needed(&self) -> u64 {
        self.init_size.max(self.payload.len() as u64)
    }
}

/// The header, which ends where its second byte says, counted from the signature; what a
/// zero page cannot hold is left out.
fn header_bytes(file: &[u8]) -> Result<&[u8], BootError> {
    let length = number_at(file, HEADER_LENGTH, 1, WHAT)? as usize;
    let end = (SIGNATURE + length).min(SETUP_HEADER_END);
    if end < INIT_SIZE + 4 {
        return Err(BootError::Malformed("its setup header is shorter than its version says"));
    }
    bytes_at(file, SETUP_HEADER, end - SETUP_HEADER, WHAT)
}

fn payload(file: &[u8]) -> Result<&[u8], BootError> {
    const PARAGRAPH: usize = 16;
    let sectors = match number_at(file, SETUP_SECTORS, 1, WHAT)? {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let start = (sectors as usize + 1) * SECTOR;
    let bytes = number_at(file, PAYLOAD_PARAGRAPHS, 4, WHAT)? as usize * PARAGRAPH;
    if bytes <= SECTOR {
        return Err(BootError::Malformed("it is too short to hold an entry point"));
    }
    bytes_at(file, start, bytes, "the kernel proper")
}
