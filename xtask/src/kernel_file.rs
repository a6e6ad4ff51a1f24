// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at a kernel file before a machine is started for it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Enough of the file for every header that is looked at.
const HEAD: u64 = 64 << 10;

/// A kernel the VMM can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelFile {
    /// A Linux bzImage.
    Linux(BzImage),
    /// An ELF file with a PVH entry; `load_end` is the end of its highest segment.
    Pvh {
        /// End of the loaded image in guest-physical memory.
        load_end: u64,
    },
}

/// What the setup header of a bzImage says (Linux, Documentation/arch/x86/boot.rst).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BzImage {
    /// Where the kernel prefers to be loaded.
    pub preferred_address: u64,
    /// Memory it needs from there before it looks at the memory map.
    pub init_size: u64,
    /// Longest command line it takes.
    pub command_line_size: u64,
}

/// Checks that `path` is a kernel that can be started, whole and for this architecture.
///
/// # Errors
/// One line that names the file, what is wrong with it and what would do.
pub fn inspect(path: &Path) -> Result<KernelFile> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot read the kernel {name}"))?;
    let length = file.seek(SeekFrom::End(0)).with_context(|| format!("cannot read {name}"))?;
    ensure!(file.metadata()?.is_file(), "the kernel {name} is not a file");
    file.rewind()?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).with_context(|| format!("cannot read {name}"))?;
    parse(&head, length).with_context(|| format!("the kernel {name} cannot be started"))
}

fn parse(head: &[u8], length: u64) -> Result<KernelFile> {
    if head.starts_with(b"\x7fELF") {
        return parse_elf(head, length);
    }
    let bytes = Bytes(head);
    let magic = head.get(0x202..0x206);
    if magic != Some(b"HdrS") || bytes.u16(0x1FE) != Some(0xAA55) {
        bail!(
            "it is neither a Linux bzImage nor an ELF file; give the vmlinuz of a 64-bit x86 \
             Linux, 'cargo xtask image linux-image-amd64' fetches one"
        );
    }
    parse_bzimage(bytes, length).unwrap_or_else(|| bail!("it is truncated inside its header"))
}

fn parse_bzimage(bytes: Bytes<'_>, length: u64) -> Option<Result<KernelFile>> {
    let setup_sectors = match bytes.u8(0x1F1)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let protected_mode_size = u64::from(bytes.u32(0x1F4)?) * 16;
    let needed = (setup_sectors + 1) * 512 + protected_mode_size;
    let version = bytes.u16(0x206)?;
    let loaded_high = bytes.u8(0x211)? & 1 != 0;
    let has_64_bit_entry = bytes.u16(0x236)? & 1 != 0;
    let image = BzImage {
        preferred_address: bytes.u64(0x258)?,
        init_size: u64::from(bytes.u32(0x260)?),
        command_line_size: u64::from(bytes.u32(0x238)?),
    };
    Some(if version < 0x20C || !loaded_high || !has_64_bit_entry {
        Err(anyhow::anyhow!(
            "it has no 64-bit entry (boot protocol {}.{:02}); a 64-bit x86 kernel of Linux 3.8 or \
             later is needed",
            version >> 8,
            version & 0xFF
        ))
    } else if length < needed {
        Err(anyhow::anyhow!(
            "it is truncated: {length} bytes, but its header promises {needed}; fetch it again"
        ))
    } else {
        Ok(KernelFile::Linux(image))
    })
}

fn parse_elf(head: &[u8], length: u64) -> Result<KernelFile> {
    const EM_X86_64: u16 = 62;
    const CLASS_64: u8 = 2;
    let bytes = Bytes(head);
    if bytes.u8(4) != Some(CLASS_64) || bytes.u16(18) != Some(EM_X86_64) {
        bail!("it is an ELF file, but not one for 64-bit x86");
    }
    match pvh_load_end(bytes, length) {
        None => bail!("it is an ELF file that is truncated; build or fetch it again"),
        Some(None) => bail!(
            "it is an ELF file without a PVH entry; give a bzImage, or a kernel with a Xen note \
             of type 18"
        ),
        Some(Some(load_end)) => Ok(KernelFile::Pvh { load_end }),
    }
}

/// End of the loaded segments if there is a PVH note; the outer `None` means a file cut short.
fn pvh_load_end(bytes: Bytes<'_>, length: u64) -> Option<Option<u64>> {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    let table = usize::try_from(bytes.u64(32)?).ok()?;
    let entry_size = usize::from(bytes.u16(54)?);
    let entries = usize::from(bytes.u16(56)?);
    let mut load_end = 0;
    let mut found = false;
    for index in 0..entries {
        let header = table.checked_add(index.checked_mul(entry_size)?)?;
        let kind = bytes.u32(header)?;
        let offset = bytes.u64(header.checked_add(8)?)?;
        let physical = bytes.u64(header.checked_add(24)?)?;
        let file_size = bytes.u64(header.checked_add(32)?)?;
        let memory_size = bytes.u64(header.checked_add(40)?)?;
        if offset.checked_add(file_size)? > length {
            return None;
        }
        match kind {
            PT_LOAD => load_end = load_end.max(physical.checked_add(memory_size)?),
            // A note beyond the part that was read is left to the VMM to judge.
            PT_NOTE => {
                let notes = usize::try_from(offset).ok()?;
                let end = notes.checked_add(usize::try_from(file_size).ok()?)?;
                found |= bytes.0.get(notes..end).is_none_or(has_pvh_note);
            }
            _ => {}
        }
    }
    Some(found.then_some(load_end))
}

/// Whether there is a note of owner "Xen" and type `XEN_ELFNOTE_PHYS32_ENTRY`
/// (Xen, docs/misc/pvh.pandoc).
fn has_pvh_note(notes: &[u8]) -> bool {
    const PHYS32_ENTRY: u32 = 18;
    let bytes = Bytes(notes);
    let mut at = 0_usize;
    while let (Some(name_size), Some(size), Some(kind)) =
        (bytes.u32(at), bytes.u32(at + 4), bytes.u32(at + 8))
    {
        let name = notes.get(at + 12..at + 16);
        if kind == PHYS32_ENTRY && name_size == 4 && name == Some(b"Xen\0") {
            return true;
        }
        let padded = |length: u32| (length as usize).next_multiple_of(4);
        at += 12 + padded(name_size) + padded(size);
    }
    false
}

/// Little-endian reads that end with the data.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.array(at).map(u8::from_le_bytes)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
        head[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn bzimage() -> Vec<u8> {
        let mut head = vec![0; 1024];
        put(&mut head, 0x1F1, &[1]);
        put(&mut head, 0x1F4, &100_u32.to_le_bytes());
        put(&mut head, 0x1FE, &[0x55, 0xAA]);
        put(&mut head, 0x202, b"HdrS");
        put(&mut head, 0x206, &0x20F_u16.to_le_bytes());
        put(&mut head, 0x211, &[1]);
        put(&mut head, 0x236, &1_u16.to_le_bytes());
        put(&mut head, 0x238, &2047_u32.to_le_bytes());
        put(&mut head, 0x258, &0x100_0000_u64.to_le_bytes());
        put(&mut head, 0x260, &0x200_0000_u32.to_le_bytes());
        head
    }

    fn pvh_elf() -> Vec<u8> {
        let mut head = vec![0; 512];
        put(&mut head, 0, b"\x7fELF\x02");
        put(&mut head, 18, &62_u16.to_le_bytes());
        put(&mut head, 32, &64_u64.to_le_bytes());
        put(&mut head, 54, &56_u16.to_le_bytes());
        put(&mut head, 56, &2_u16.to_le_bytes());
        for (at, kind, offset, physical, size) in
            [(64, 1_u32, 0_u64, 0x10_0000_u64, 512_u64), (120, 4, 256, 0, 20)]
        {
            put(&mut head, at, &kind.to_le_bytes());
            put(&mut head, at + 8, &offset.to_le_bytes());
            put(&mut head, at + 24, &physical.to_le_bytes());
            put(&mut head, at + 32, &size.to_le_bytes());
            put(&mut head, at + 40, &size.to_le_bytes());
        }
        put(&mut head, 256, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
        put(&mut head, 268, b"Xen\0");
        head
    }

    fn complaint(head: &[u8], length: u64) -> String {
        format!("{:#}", parse(head, length).unwrap_err())
    }

    #[test]
    fn takes_a_whole_bzimage() {
        let expected = BzImage {
            preferred_address: 0x100_0000,
            init_size: 0x200_0000,
            command_line_size: 2047,
        };
        assert_eq!(parse(&bzimage(), 1024 + 1600).unwrap(), KernelFile::Linux(expected));
    }

    #[test]
    fn refuses_truncated_and_foreign_files() {
        assert!(complaint(&bzimage(), 2000).contains("truncated"));
        assert!(complaint(&bzimage()[..0x240], 0x240).contains("truncated inside its header"));
        assert!(complaint(b"", 0).contains("neither"));
        assert!(complaint(&[b'x'; 4096], 4096).contains("neither"));
        let mut kernel_32 = bzimage();
        put(&mut kernel_32, 0x236, &[0]);
        assert!(complaint(&kernel_32, 1 << 20).contains("no 64-bit entry"));
    }

    #[test]
    fn takes_elf_files_with_a_pvh_note_only() {
        let elf = pvh_elf();
        assert_eq!(parse(&elf, 512).unwrap(), KernelFile::Pvh { load_end: 0x10_0200 });
        assert!(complaint(&elf, 300).contains("truncated"));
        let mut no_note = elf.clone();
        put(&mut no_note, 264, &[1]);
        assert!(complaint(&no_note, 512).contains("without a PVH entry"));
        let mut other_machine = elf;
        put(&mut other_machine, 18, &[3]);
        assert!(complaint(&other_machine, 512).contains("not one for 64-bit"));
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(
            mut head in proptest::collection::vec(any::<u8>(), 0..1024),
            elf: bool,
            length: u64,
        ) {
            if elf && head.len() > 20 {
                put(&mut head, 0, b"\x7fELF\x02");
                put(&mut head, 18, &62_u16.to_le_bytes());
            }
            let _ = parse(&head, length);
        }
    }
}
