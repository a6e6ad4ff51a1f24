// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the headers of an ELF file say.

use anyhow::{Result, bail};

use super::Bytes;
use crate::architecture::Architecture;

/// What has to be known of an ELF file before it is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// What it is made for.
    pub architecture: Architecture,
    /// End of the highest segment.
    pub load_end: u64,
    /// It has a PVH entry.
    pub has_pvh_entry: bool,
    /// It is a Linux kernel.
    pub is_linux: bool,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Where the fields are that are wider in 64-bit files (System V ABI, chapters 4 and 5).
#[derive(Clone, Copy)]
struct Layout {
    architecture: Architecture,
    /// Offsets in the file header: address of the program headers, their size, their number.
    table: [usize; 3],
    /// Offsets in a program header: place in the file, physical address, size in the file, size
    /// in memory.
    program: [usize; 4],
}

const LAYOUT_32: Layout =
    Layout { architecture: Architecture::I386, table: [28, 42, 44], program: [4, 12, 16, 20] };
const LAYOUT_64: Layout =
    Layout { architecture: Architecture::Amd64, table: [32, 54, 56], program: [8, 24, 32, 40] };

/// Looks at the headers of a file of `length` bytes that begins with `head`; `None` if it is cut
/// short.
///
/// # Errors
/// When the file is for another machine.
pub fn summarize(head: &[u8], length: u64) -> Result<Option<Summary>> {
    const EM_386: u16 = 3;
    const EM_X86_64: u16 = 62;
    let bytes = Bytes(head);
    let layout = match (bytes.u8(4), bytes.u16(18)) {
        (Some(1), Some(EM_386)) => LAYOUT_32,
        (Some(2), Some(EM_X86_64)) => LAYOUT_64,
        _ => bail!("it is an ELF file, but not for x86"),
    };
    Ok(read(bytes, length, layout))
}

fn read(bytes: Bytes<'_>, length: u64, layout: Layout) -> Option<Summary> {
    let word = |at: usize| match layout.architecture {
        Architecture::Amd64 => bytes.u64(at),
        Architecture::I386 => bytes.u32(at).map(u64::from),
    };
    let table = usize::try_from(word(layout.table[0])?).ok()?;
    let entry_size = usize::from(bytes.u16(layout.table[1])?);
    let entries = usize::from(bytes.u16(layout.table[2])?);
    let mut summary = Summary {
        architecture: layout.architecture,
        load_end: 0,
        has_pvh_entry: false,
        is_linux: false,
    };
    for index in 0..entries {
        let header = table.checked_add(index.checked_mul(entry_size)?)?;
        let kind = bytes.u32(header)?;
        let field = |index: usize| word(header.checked_add(layout.program[index])?);
        let (offset, physical) = (field(0)?, field(1)?);
        let (file_size, memory_size) = (field(2)?, field(3)?);
        if offset.checked_add(file_size)? > length {
            return None;
        }
        match kind {
            PT_LOAD => {
                summary.load_end = summary.load_end.max(physical.checked_add(memory_size)?);
            }
            PT_NOTE => {
                let notes = usize::try_from(offset).ok()?;
                let end = notes.checked_add(usize::try_from(file_size).ok()?)?;
                summary.take_notes(bytes.0.get(notes..end)?);
            }
            _ => {}
        }
    }
    Some(summary)
}

impl Summary {
    /// A PVH entry is a note of owner "Xen" and type `XEN_ELFNOTE_PHYS32_ENTRY` (Xen,
    /// docs/misc/pvh.pandoc); all notes of owner "Linux" are in Linux kernels (Linux,
    /// include/linux/elfnote.h).
    fn take_notes(&mut self, notes: &[u8]) {
        const PHYS32_ENTRY: u32 = 18;
        let bytes = Bytes(notes);
        let mut at = 0_usize;
        while let (Some(name_size), Some(size), Some(kind)) =
            (bytes.u32(at), bytes.u32(at + 4), bytes.u32(at + 8))
        {
            let padded = |length: u32| (length as usize).next_multiple_of(4);
            let name = notes.get(at + 12..at + 12 + name_size as usize);
            self.has_pvh_entry |= kind == PHYS32_ENTRY && name == Some(b"Xen\0");
            self.is_linux |= name == Some(b"Linux\0");
            at += 12 + padded(name_size) + padded(size);
        }
    }
}
