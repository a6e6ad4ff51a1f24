// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Multiboot2 header and its tags (Multiboot2 2.0, 3.1).

use super::{address_form::AddressFields, v2_information::can_inform};
use crate::boot::{
    BootError,
    image::{bytes_at, number_at},
};

const MAGIC: u64 = 0xE852_50D6;
/// The header lies whole in this part of the file, at a multiple of eight.
const SEARCH_END: usize = 32768;
const ALIGNMENT: usize = 8;
/// Magic number, architecture, length and checksum.
const FIXED_BYTES: usize = 16;
/// 32-bit protected mode of i386.
const ARCHITECTURE_I386: u64 = 0;

/// Types of tags.
mod tag {
    pub(super) const END: u64 = 0;
    pub(super) const INFORMATION_REQUEST: u64 = 1;
    pub(super) const ADDRESS: u64 = 2;
    pub(super) const ENTRY_ADDRESS: u64 = 3;
    pub(super) const CONSOLE: u64 = 4;
    pub(super) const FRAME_BUFFER: u64 = 5;
    pub(super) const MODULE_ALIGNMENT: u64 = 6;
    pub(super) const EFI_BOOT_SERVICES: u64 = 7;
    pub(super) const EFI_I386_ENTRY: u64 = 8;
    pub(super) const EFI_AMD64_ENTRY: u64 = 9;
    pub(super) const RELOCATABLE: u64 = 10;
}

/// A tag's flag: a loader that cannot do what it asks may ignore it.
const OPTIONAL: u64 = 1;
/// Of the console tag: one of the consoles that it names has to be there.
const CONSOLE_REQUIRED: u64 = 1;

/// Type, flags and size.
const TAG_BYTES: usize = 8;
const WHAT: &str = "its Multiboot2 header";

/// Where a relocatable kernel may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Relocation {
    /// First address.
    pub(super) min: u32,
    /// Last address that any part of it may have.
    pub(super) max: u32,
    /// A power of two.
    pub(super) alignment: u32,
    /// Where it would rather be.
    pub(super) preference: Preference,
}

/// Where a relocatable kernel would rather be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preference {
    /// Where it was linked to lie, if possible.
    None,
    Lowest,
    Highest,
}

/// What a header asks for.
#[derive(Default)]
pub(super) struct Header {
    /// Where the header is in the file.
    pub(super) offset: usize,
    /// Where the file goes, if the header says so.
    pub(super) addresses: Option<AddressFields>,
    /// Its entry point, if the header says so.
    pub(super) entry: Option<u32>,
    /// That it may be moved, and where.
    pub(super) relocation: Option<Relocation>,
}

/// Where the header is, if there is one.
pub(super) fn find(file: &[u8]) -> Option<usize> {
    let end = file.len().min(SEARCH_END).checked_sub(FIXED_BYTES)?;
    (0..=end).step_by(ALIGNMENT).find(|&at| {
        let field = |offset| number_at(file, at + offset, 4, WHAT).unwrap_or_default();
        let sum = field(0) + field(4) + field(8) + field(12);
        field(0) == MAGIC && sum as u32 == 0
    })
}

impl Header {
    /// Reads the header and checks that all it requires can be had.
    pub(super) fn parse(file: &[u8]) -> Result<Self, BootError> {
        let offset = find(file).ok_or(BootError::Malformed("it has no Multiboot2 header"))?;
        if number_at(file, offset + 4, 4, WHAT)? != ARCHITECTURE_I386 {
            return Err(BootError::Malformed("its Multiboot2 header is not for x86"));
        }
        let length = number_at(file, offset + 8, 4, WHAT)? as usize;
        let bytes = bytes_at(file, offset, length, WHAT)?;
        let mut header = Self { offset, ..Self::default() };
        let mut at = FIXED_BYTES;
        loop {
            let kind = number_at(bytes, at, 2, WHAT)?;
            let optional = number_at(bytes, at + 2, 2, WHAT)? & OPTIONAL != 0;
            let size = number_at(bytes, at + 4, 4, WHAT)? as usize;
            let content = size
                .checked_sub(TAG_BYTES)
                .ok_or(BootError::Malformed("a tag of its Multiboot2 header is too short"))?;
            if kind == tag::END {
                return Ok(header);
            }
            let content = bytes_at(bytes, at + TAG_BYTES, content, WHAT)?;
            header.take_tag(kind, optional, content)?;
            at = (at + size).next_multiple_of(ALIGNMENT);
        }
    }

    fn take_tag(&mut self, kind: u64, optional: bool, content: &[u8]) -> Result<(), BootError> {
        let field = |at| number_at(content, at, 4, WHAT).map(|value| value as u32);
        match kind {
            tag::INFORMATION_REQUEST if !optional => check_request(content)?,
            tag::ADDRESS => {
                let (header, load) = (field(0)?, field(4)?);
                let (load_end, bss_end) = (field(8)?, field(12)?);
                self.addresses = Some(AddressFields { header, load, load_end, bss_end });
            }
            tag::ENTRY_ADDRESS => self.entry = Some(field(0)?),
            tag::CONSOLE if !optional && u64::from(field(0)?) & CONSOLE_REQUIRED != 0 => {
                return Err(BootError::NeedsDisplay);
            }
            tag::FRAME_BUFFER if !optional => return Err(BootError::NeedsDisplay),
            // Modules always lie at page boundaries; the entries for EFI count on EFI only.
            tag::INFORMATION_REQUEST
            | tag::CONSOLE
            | tag::FRAME_BUFFER
            | tag::MODULE_ALIGNMENT
            | tag::EFI_BOOT_SERVICES
            | tag::EFI_I386_ENTRY
            | tag::EFI_AMD64_ENTRY => {}
            tag::RELOCATABLE => self.relocation = Some(relocation(content)?),
            _ if optional => {}
            _ => {
                let what = "header tag";
                return Err(BootError::UnknownRequirement { what, number: kind as u32 });
            }
        }
        Ok(())
    }
}

/// The kernel will not do without the information of these types.
fn check_request(types: &[u8]) -> Result<(), BootError> {
    for one in types.chunks_exact(4) {
        let number = number_at(one, 0, 4, WHAT)? as u32;
        if !can_inform(number) {
            return Err(BootError::UnknownRequirement { what: "information of type", number });
        }
    }
    Ok(())
}

fn relocation(content: &[u8]) -> Result<Relocation, BootError> {
    let field = |at| number_at(content, at, 4, WHAT).map(|value| value as u32);
    let alignment = field(8)?;
    if !alignment.is_power_of_two() {
        return Err(BootError::Malformed("the alignment in its Multiboot2 header is impossible"));
    }
    let preference = match field(12)? {
        1 => Preference::Lowest,
        2 => Preference::Highest,
        _ => Preference::None,
    };
    Ok(Relocation { min: field(0)?, max: field(4)?, alignment, preference })
}
