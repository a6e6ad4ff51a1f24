// SPDX-License-Identifier: MIT OR Apache-2.0
//! ELF kernels with a PVH entry point.

use alloc::vec::Vec;

use elf::{
    ElfBytes,
    abi::{ELFMAGIC, EM_386, EM_X86_64, PT_LOAD, PT_NOTE},
    endian::AnyEndian,
    file::Class,
    note::Note,
    segment::ProgramHeader,
};

use super::BootError;

/// The note that holds the 32-bit physical entry point: XEN_ELFNOTE_PHYS32_ENTRY of Xen's
/// `public/elfnote.h`.
const NOTE_NAME: &[u8] = b"Xen";
const NOTE_PHYS32_ENTRY: u64 = 18;

/// A part of the file with a place in memory.
pub(super) struct LoadSegment<'a> {
    /// Physical address.
    pub(super) start: u64,
    /// What the file holds of it.
    pub(super) content: &'a [u8],
    /// Its length in memory, not less than the content's; the rest is zero.
    pub(super) bytes: u64,
}

/// What is to be loaded of an ELF file, and where it starts.
pub(super) struct Elf<'a> {
    pub(super) entry: u32,
    pub(super) segments: Vec<LoadSegment<'a>>,
}

pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(&ELFMAGIC)
}

impl<'a> Elf<'a> {
    /// Takes a file apart.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, BootError> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file)
            .map_err(|_| BootError::Malformed("its ELF header leads outside of the file"))?;
        let machine = match elf.ehdr.class {
            Class::ELF32 => EM_386,
            Class::ELF64 => EM_X86_64,
        };
        if elf.ehdr.e_machine != machine {
            return Err(BootError::Malformed("it is an ELF file, but not for x86"));
        }
        let headers = elf.segments().ok_or(BootError::NoPvhEntry)?;
        let entry = headers
            .iter()
            .filter(|header| header.p_type == PT_NOTE)
            .find_map(|header| pvh_entry(&elf, &header))
            .ok_or(BootError::NoPvhEntry)?;
        let segments = headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
            .map(|header| load_segment(&elf, &header))
            .collect::<Result<Vec<_>, _>>()?;
        if segments.is_empty() {
            return Err(BootError::Malformed("it has nothing to load"));
        }
        Ok(Self { entry, segments })
    }

    /// First address, and length up to the end of the last segment.
    pub(super) fn extent(&self) -> Result<(u64, u64), BootError> {
        let start = self.segments.iter().map(|segment| segment.start).min().unwrap_or(0);
        let ends = self.segments.iter().map(|segment| segment.start.checked_add(segment.bytes));
        let end = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        end.map(|end| (start, end - start))
            .ok_or(BootError::Malformed("a segment wraps around the end of memory"))
    }
}

fn pvh_entry(elf: &ElfBytes<'_, AnyEndian>, header: &ProgramHeader) -> Option<u32> {
    elf.segment_data_as_notes(header).ok()?.find_map(|note| match note {
        Note::Unknown(note) if note.n_type == NOTE_PHYS32_ENTRY && is_xen(note.name) => {
            note.desc.first_chunk().map(|entry| u32::from_le_bytes(*entry))
        }
        _ => None,
    })
}

/// Names end with a zero byte, which some readers strip.
fn is_xen(name: &[u8]) -> bool {
    name.strip_suffix(&[0]).unwrap_or(name) == NOTE_NAME
}

fn load_segment<'a>(
    elf: &ElfBytes<'a, AnyEndian>,
    header: &ProgramHeader,
) -> Result<LoadSegment<'a>, BootError> {
    let content = elf
        .segment_data(header)
        .map_err(|_| BootError::Malformed("a segment reaches beyond the end of the file"))?;
    if content.len() as u64 > header.p_memsz {
        return Err(BootError::Malformed("a segment is longer in the file than in memory"));
    }
    Ok(LoadSegment { start: header.p_paddr, content, bytes: header.p_memsz })
}
