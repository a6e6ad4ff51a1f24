// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads a guest: Linux, or an ELF file that starts by the PVH boot protocol (Xen,
//! `docs/misc/pvh.pandoc`).

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::{ELFMAGIC, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;

use crate::linux;
use crate::memory::GuestMemory;
use crate::options::Options;

/// Type of the note with the entry point (Xen, `elfnote.h`: `XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u64 = 18;
const OWNER: &[u8] = b"Xen\0";

/// Where the start info and the command line are put, below the guest's image at 1 MiB.
const START_INFO: u64 = 0x6000;
const COMMAND_LINE: u64 = 0x7000;
const COMMAND_LINE_LIMIT: usize = 0x1000;

/// The start info's magic number and version.
const MAGIC: u32 = 0x336E_C578;
const VERSION: u32 = 1;

/// How the first vCPU begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// In 32-bit protected mode, flat, without paging.
    Pvh {
        /// First instruction.
        rip: u64,
        /// The start info, for EBX.
        start_info: u64,
    },
    /// In 64-bit mode, by Linux's boot protocol.
    Linux {
        /// First instruction.
        rip: u64,
        /// The zero page, for RSI.
        zero_page: u64,
        /// The top-level page table.
        page_tables: u64,
        /// Address and limit of the descriptor table.
        gdt: (u64, u16),
    },
}

/// Puts the guest, its initial RAM disk and its command line into memory.
///
/// # Errors
/// When it is no guest or does not fit.
pub fn load(
    file: &[u8],
    initrd: &[u8],
    options: &Options,
    memory: &mut GuestMemory,
) -> Result<Entry> {
    let command_line = options.append.join(" ");
    if file.starts_with(&ELFMAGIC) {
        pvh(file, &command_line, memory)
    } else {
        linux::load(file, initrd, &command_line, options.cpus, memory)
    }
}

fn pvh(file: &[u8], command_line: &str, memory: &mut GuestMemory) -> Result<Entry> {
    let image =
        ElfBytes::<LittleEndian>::minimal_parse(file).context("the guest is no ELF file")?;
    let segments = image.segments().context("the guest has no segments")?;
    let mut rip = None;
    for segment in segments {
        match segment.p_type {
            PT_LOAD => {
                // Fresh memory is zero already, as what the file does not fill must be.
                memory.write(segment.p_paddr, image.segment_data(&segment)?)?;
            }
            PT_NOTE => {
                rip = rip.or_else(|| entry_note(image.segment_data_as_notes(&segment).ok()?))
            }
            _ => {}
        }
    }
    let Some(rip) = rip else { bail!("the guest has no PVH entry point") };
    if command_line.len() >= COMMAND_LINE_LIMIT {
        bail!("the guest's command line is too long");
    }
    memory.write(COMMAND_LINE, command_line.as_bytes())?;
    memory.write(START_INFO, &start_info())?;
    Ok(Entry::Pvh { rip, start_info: START_INFO })
}

fn entry_note<'data>(mut notes: impl Iterator<Item = Note<'data>>) -> Option<u64> {
    notes.find_map(|note| match note {
        Note::Unknown(note) if note.n_type == PHYS32_ENTRY && note.name == OWNER => {
            let bytes: [u8; 4] = note.desc.get(..4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes).into())
        }
        _ => None,
    })
}

/// `struct hvm_start_info` (Xen, `arch-x86/hvm/start_info.h`) without modules, ACPI or map.
fn start_info() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [0, COMMAND_LINE, 0, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_guest_is_refused() {
        let mut memory = GuestMemory::allocate(2 << 20).unwrap();
        let options = Options::parse(std::iter::empty()).unwrap();
        assert!(load(b"not an ELF file", &[], &options, &mut memory).is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(load(&own, &[], &options, &mut memory).is_err());
    }

    #[test]
    fn the_start_info_has_its_defined_size() {
        assert_eq!(start_info().len(), 56);
    }
}
