// SPDX-License-Identifier: MIT OR Apache-2.0
//! The multiboot header (Multiboot 0.6.96, 3.1).

use super::address_form::AddressFields;
use crate::boot::{BootError, image::number_at};

const MAGIC: u64 = 0x1BAD_B002;
/// The header lies whole in this part of the file, at a multiple of four.
const SEARCH_END: usize = 8192;
const ALIGNMENT: usize = 4;
/// Magic number, flags and checksum.
const FIXED_BYTES: usize = 12;

const FLAGS: usize = 4;
const CHECKSUM: usize = 8;
const ADDRESS_FIELDS: usize = 12;
const ENTRY: usize = 28;

/// The loader must understand these, or refuse.
const REQUIREMENTS: u64 = 0xFFFF;
/// Modules at page boundaries; memory information. Always so here.
const UNDERSTOOD: u64 = 1 << 0 | 1 << 1;
/// A video mode.
const VIDEO: u64 = 1 << 2;
const HAS_ADDRESSES: u64 = 1 << 16;

const WHAT: &str = "its multiboot header";

/// What a header asks for.
pub(super) struct Header {
    /// Where the header is in the file.
    pub(super) offset: usize,
    /// Where the file goes, and where it starts, if the header says so.
    pub(super) addresses: Option<(AddressFields, u32)>,
}

/// Where the header is, if there is one.
pub(super) fn find(file: &[u8]) -> Option<usize> {
    let end = file.len().min(SEARCH_END).checked_sub(FIXED_BYTES)?;
    (0..=end).step_by(ALIGNMENT).find(|&at| {
        let field = |offset| number_at(file, at + offset, 4, WHAT).unwrap_or_default();
        let sum = field(0) + field(FLAGS) + field(CHECKSUM);
        field(0) == MAGIC && sum as u32 == 0
    })
}

impl Header {
    /// Reads the header and checks that all it requires can be had.
    pub(super) fn parse(file: &[u8]) -> Result<Self, BootError> {
        let offset = find(file).ok_or(BootError::Malformed("it has no multiboot header"))?;
        let field = |at: usize| number_at(file, offset + at, 4, WHAT);
        let flags = field(FLAGS)?;
        if flags & VIDEO != 0 {
            return Err(BootError::NeedsDisplay);
        }
        let unknown = flags & REQUIREMENTS & !UNDERSTOOD;
        if unknown != 0 {
            let what = "flag";
            return Err(BootError::UnknownRequirement { what, number: unknown.trailing_zeros() });
        }
        let addresses = match flags & HAS_ADDRESSES {
            0 => None,
            _ => {
                let address = |at| field(at).map(|value| value as u32);
                let fields = AddressFields {
                    header: address(ADDRESS_FIELDS)?,
                    load: address(ADDRESS_FIELDS + 4)?,
                    load_end: address(ADDRESS_FIELDS + 8)?,
                    bss_end: address(ADDRESS_FIELDS + 12)?,
                };
                Some((fields, address(ENTRY)?))
            }
        };
        Ok(Self { offset, addresses })
    }
}
