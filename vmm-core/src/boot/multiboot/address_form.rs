// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address fields of a multiboot header, which say where a file goes in place of ELF headers
//! (Multiboot 0.6.96, 3.1.3; Multiboot2 2.0, 3.1.5).

use alloc::vec;

use crate::boot::{
    BootError,
    image::bytes_at,
    segments::{LoadSegment, Segments},
};

/// The fields; all are physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AddressFields {
    /// Where the header itself comes to lie, which ties file offsets to addresses.
    pub(super) header: u32,
    /// Where what is loaded starts.
    pub(super) load: u32,
    /// Where it ends; zero for all of the file.
    pub(super) load_end: u32,
    /// Where the zeroes behind it end; zero if there are none.
    pub(super) bss_end: u32,
}

impl AddressFields {
    /// What is to be loaded of `file`, whose header is at `header_offset`.
    pub(super) fn segments<'a>(
        &self,
        file: &'a [u8],
        header_offset: usize,
    ) -> Result<Segments<'a>, BootError> {
        const WHAT: &str = "what its multiboot header loads";
        let before_header = self
            .header
            .checked_sub(self.load)
            .ok_or(BootError::Malformed("its multiboot header loads from behind itself on"))?;
        let offset = header_offset
            .checked_sub(before_header as usize)
            .ok_or(BootError::Malformed("its multiboot header loads what lies before the file"))?;
        let bytes = match self.load_end {
            0 => file.len().saturating_sub(offset),
            end => end.checked_sub(self.load).ok_or(BootError::Malformed(
                "its multiboot header ends loading before where it starts",
            ))? as usize,
        };
        let content = bytes_at(file, offset, bytes, WHAT)?;
        let start = u64::from(self.load);
        let content_end = start + content.len() as u64;
        let end = match self.bss_end {
            0 => content_end,
            end if u64::from(end) < content_end => {
                return Err(BootError::Malformed(
                    "its multiboot header ends zeroing before where loading ends",
                ));
            }
            end => u64::from(end),
        };
        let segment = LoadSegment { start, linked_at: start, content, bytes: end - start };
        Segments::new(vec![segment])
    }
}
