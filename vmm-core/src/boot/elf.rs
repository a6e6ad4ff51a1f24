// SPDX-License-Identifier: MIT OR Apache-2.0
//! ELF kernels.

use alloc::vec::Vec;

use elf::{
    ElfBytes,
    abi::{ELFMAGIC, EM_386, EM_X86_64, PT_LOAD, PT_NOTE},
    endian::AnyEndian,
    file::Class,
    note::Note,
    segment::ProgramHeader,
};

use super::{
    BootError,
    segments::{LoadSegment, Segments},
};

/// The note that holds the 32-bit physical entry point: XEN_ELFNOTE_PHYS32_ENTRY of Xen's
/// `public/elfnote.h`.
const NOTE_NAME: &[u8] = b"Xen";
const NOTE_PHYS32_ENTRY: u64 = 18;

/// Most program headers of a file. Kernels have a few; a file of headers that all name the same
/// megabytes would be read for minutes.
const MAX_PROGRAM_HEADERS: usize = 128;

/// What is to be loaded of an ELF file, and where it starts.
pub(super) struct Elf<'a> {
    /// Entry point of its header, an address that its own code knows.
    pub(super) entry: u64,
    /// Physical entry point of its PVH note, if it has one.
    pub(super) pvh_entry: Option<u32>,
    pub(super) segments: Segments<'a>,
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
        let headers = elf.segments().ok_or(BootError::Malformed("it has nothing to load"))?;
        if headers.len() > MAX_PROGRAM_HEADERS {
            return Err(BootError::Malformed("it has more program headers than any kernel"));
        }
        let pvh_entry = headers
            .iter()
            .filter(|header| header.p_type == PT_NOTE)
            .find_map(|header| pvh_entry(&elf, &header));
        let segments = headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
            .map(|header| load_segment(&elf, &header))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { entry: elf.ehdr.e_entry, pvh_entry, segments: Segments::new(segments)? })
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
    let (start, linked_at) = (header.p_paddr, header.p_vaddr);
    Ok(LoadSegment { start, linked_at, content, bytes: header.p_memsz })
}
