// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at a kernel file before a machine is started for it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::architecture::Architecture;

mod elf;

/// Enough of the file for every header that is looked at; an ELF file's notes may be anywhere.
const HEAD: u64 = 64 << 10;

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// A file the VMM can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelFile {
    /// A Linux bzImage.
    Linux(BzImage),
    /// An ELF file with a PVH entry.
    Pvh {
        /// End of the loaded image in guest-physical memory.
        load_end: u64,
        /// It is a Linux kernel.
        linux: bool,
        /// What the file is made for.
        architecture: Architecture,
    },
    /// A multiboot or Multiboot2 kernel.
    Multiboot {
        /// End of the loaded image, if it is an ELF file, or else zero.
        load_end: u64,
        /// It is of the second version.
        second: bool,
    },
    /// A flat image, of which nothing but its place is known.
    Raw {
        /// End of the loaded image in guest-physical memory.
        load_end: u64,
    },
    /// Firmware.
    Firmware,
}

impl KernelFile {
    /// True for Linux kernels, which get a command line and a user space of ours.
    pub fn is_linux(self) -> bool {
        matches!(self, Self::Linux(_) | Self::Pvh { linux: true, .. })
    }

    /// What programs a Linux kernel runs at least; 64-bit ones may run others, too.
    pub fn architecture(self) -> Architecture {
        match self {
            Self::Linux(BzImage { architecture, .. }) | Self::Pvh { architecture, .. } => {
                architecture
            }
            Self::Multiboot { .. } | Self::Raw { .. } | Self::Firmware => Architecture::Amd64,
        }
    }
}

/// Most bytes of a firmware image.
const MOST_FIRMWARE: u64 = 16 << 20;
/// Firmware comes in pages of so many bytes.
const FIRMWARE_PAGE: u64 = 4096;

/// End of what real mode reaches.
const REAL_MODE_END: u64 = 1 << 20;

/// What the setup header of a bzImage says (Linux, Documentation/arch/x86/boot.rst).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BzImage {
    /// What the kernel is made for.
    pub architecture: Architecture,
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
    let unread = || format!("cannot read {name}");
    file.by_ref().take(HEAD).read_to_end(&mut head).with_context(unread)?;
    if head.starts_with(ELF_MAGIC) {
        file.read_to_end(&mut head).with_context(unread)?;
    }
    parse(&head, length).with_context(|| format!("the kernel {name} cannot be started"))
}

/// Checks a flat image.
///
/// # Errors
/// One line that names the file or the option at fault.
pub fn inspect_raw(path: &Path, place: &RawPlace) -> Result<KernelFile> {
    let length = length_of(path, "the kernel")?;
    let RawPlace { load_address, entry_offset, real_mode } = *place;
    ensure!(
        entry_offset < length,
        "--entry-offset {entry_offset:#x}: {} has {length} bytes only",
        path.display()
    );
    ensure!(
        !real_mode || load_address.saturating_add(entry_offset) < REAL_MODE_END,
        "--real-mode: the entry point {:#x} is out of its reach; give a --load-address below 1 MiB",
        load_address.saturating_add(entry_offset)
    );
    let load_end = load_address.checked_add(length).filter(|&end| end <= 1 << 32);
    let load_end = load_end
        .with_context(|| format!("--load-address {load_address:#x}: it would end above 4 GiB"))?;
    Ok(KernelFile::Raw { load_end })
}

/// Checks a firmware image.
///
/// # Errors
/// One line that names the file at fault.
pub fn inspect_firmware(path: &Path) -> Result<KernelFile> {
    let length = length_of(path, "the firmware")?;
    ensure!(
        length > 0 && length <= MOST_FIRMWARE && length.is_multiple_of(FIRMWARE_PAGE),
        "--bios: {} has {length} bytes; firmware comes in multiples of {FIRMWARE_PAGE} bytes, at \
         most {MOST_FIRMWARE}",
        path.display()
    );
    Ok(KernelFile::Firmware)
}

fn length_of(path: &Path, what: &str) -> Result<u64> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {what} {name}"))?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "{what} {name} is not a file");
    Ok(metadata.len())
}

/// Where a flat image goes and how it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawPlace {
    /// Guest-physical address of its first byte.
    pub load_address: u64,
    /// Where it is entered, from its start.
    pub entry_offset: u64,
    /// It is entered in real mode.
    pub real_mode: bool,
}

fn parse(head: &[u8], length: u64) -> Result<KernelFile> {
    let multiboot = multiboot(head);
    if head.starts_with(ELF_MAGIC) {
        return parse_elf(head, length, multiboot);
    }
    let bytes = Bytes(head);
    let magic = head.get(0x202..0x206);
    if magic != Some(b"HdrS") || bytes.u16(0x1FE) != Some(0xAA55) {
        if let Some(version) = multiboot {
            return Ok(KernelFile::Multiboot { load_end: 0, second: version == 2 });
        }
        bail!(
            "it is neither a Linux bzImage nor an ELF file and has no multiboot header; give the \
             vmlinuz of an x86 Linux, 'cargo xtask image linux-image-amd64' fetches one, or \
             the --load-address of a flat image"
        );
    }
    parse_bzimage(bytes, length).unwrap_or_else(|| bail!("it is truncated inside its header"))
}

/// In `xloadflags`: the kernel has a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;

fn parse_bzimage(bytes: Bytes<'_>, length: u64) -> Option<Result<KernelFile>> {
    let setup_sectors = match bytes.u8(0x1F1)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let protected_mode_size = u64::from(bytes.u32(0x1F4)?) * 16;
    let needed = (setup_sectors + 1) * 512 + protected_mode_size;
    let version = bytes.u16(0x206)?;
    let loaded_high = bytes.u8(0x211)? & 1 != 0;
    let architecture = match bytes.u16(0x236)? & XLF_KERNEL_64 {
        0 => Architecture::I386,
        _ => Architecture::Amd64,
    };
    let image = BzImage {
        architecture,
        preferred_address: bytes.u64(0x258)?,
        init_size: u64::from(bytes.u32(0x260)?),
        command_line_size: u64::from(bytes.u32(0x238)?),
    };
    Some(if version < 0x20C || !loaded_high {
        Err(anyhow::anyhow!(
            "it is a zImage, or too old (boot protocol {}.{:02}); a bzImage of Linux 3.8 or later \
             is needed",
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

/// Version of the multiboot header, if there is one; what it says is left to the VMM to judge.
fn multiboot(head: &[u8]) -> Option<u32> {
    let sums_to_zero = |at: usize, magic: u32, fields: usize| {
        let field = |index| Bytes(head).u32(at + 4 * index);
        let sum = (0..fields).try_fold(0_u32, |sum, index| Some(sum.wrapping_add(field(index)?)));
        field(0) == Some(magic) && sum == Some(0)
    };
    let second = (0..32768).step_by(8).any(|at| sums_to_zero(at, 0xE852_50D6, 4));
    let first = (0..8192).step_by(4).any(|at| sums_to_zero(at, 0x1BAD_B002, 3));
    second.then_some(2).or(first.then_some(1))
}

fn parse_elf(head: &[u8], length: u64, multiboot: Option<u32>) -> Result<KernelFile> {
    let Some(elf) = elf::summarize(head, length)? else {
        bail!("it is an ELF file that is truncated; build or fetch it again");
    };
    let load_end = elf.load_end;
    match (elf.has_pvh_entry, multiboot) {
        (true, _) => {
            Ok(KernelFile::Pvh { load_end, linux: elf.is_linux, architecture: elf.architecture })
        }
        (false, Some(version)) => Ok(KernelFile::Multiboot { load_end, second: version == 2 }),
        (false, None) => bail!(
            "it is an ELF file without a PVH entry and without a multiboot header; give a \
             bzImage, or a kernel with a Xen note of type 18"
        ),
    }
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

    fn pvh(linux: bool) -> KernelFile {
        KernelFile::Pvh { load_end: 0x10_0200, linux, architecture: Architecture::Amd64 }
    }

    fn complaint(head: &[u8], length: u64) -> String {
        format!("{:#}", parse(head, length).unwrap_err())
    }

    #[test]
    fn takes_a_whole_bzimage() {
        let expected = BzImage {
            architecture: Architecture::Amd64,
            preferred_address: 0x100_0000,
            init_size: 0x200_0000,
            command_line_size: 2047,
        };
        assert_eq!(parse(&bzimage(), 1024 + 1600).unwrap(), KernelFile::Linux(expected));
        let mut kernel_32 = bzimage();
        put(&mut kernel_32, 0x236, &[0]);
        let expected = BzImage { architecture: Architecture::I386, ..expected };
        assert_eq!(parse(&kernel_32, 1024 + 1600).unwrap(), KernelFile::Linux(expected));
    }

    #[test]
    fn refuses_truncated_and_foreign_files() {
        assert!(complaint(&bzimage(), 2000).contains("truncated"));
        assert!(complaint(&bzimage()[..0x240], 0x240).contains("truncated inside its header"));
        assert!(complaint(b"", 0).contains("neither"));
        assert!(complaint(&[b'x'; 4096], 4096).contains("neither"));
        for (at, value) in [(0x206, 0x0B), (0x211, 0)] {
            let mut unfit = bzimage();
            put(&mut unfit, at, &[value]);
            assert!(complaint(&unfit, 1 << 20).contains("a zImage, or too old"));
        }
    }

    #[test]
    fn takes_elf_files_with_a_pvh_note_only() {
        let elf = pvh_elf();
        assert_eq!(parse(&elf, 512).unwrap(), pvh(false));
        assert!(complaint(&elf, 300).contains("truncated"));
        let mut no_note = elf.clone();
        put(&mut no_note, 264, &[1]);
        assert!(complaint(&no_note, 512).contains("without a PVH entry"));
        let mut other_machine = elf;
        put(&mut other_machine, 18, &[183]);
        assert!(complaint(&other_machine, 512).contains("but not for x86"));
    }

    #[test]
    fn linux_is_known_by_its_notes() {
        let mut elf = pvh_elf();
        put(&mut elf, 120 + 32, &48_u64.to_le_bytes());
        put(&mut elf, 276, &[6, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        put(&mut elf, 288, b"Linux\0");
        assert_eq!(parse(&elf, 512).unwrap(), pvh(true));
    }

    #[test]
    fn multiboot_headers_are_found_where_they_may_be() {
        let first = [0x1BAD_B002_u32, 3, 0xE452_4FFB].map(u32::to_le_bytes).concat();
        let second = [0xE852_50D6_u32, 0, 24, 0x17AD_AF12].map(u32::to_le_bytes).concat();
        for (at, header, is_second) in [(4, &first, false), (4096, &second, true)] {
            let mut head = vec![0; 8192];
            put(&mut head, at, header);
            let expected = KernelFile::Multiboot { load_end: 0, second: is_second };
            assert_eq!(parse(&head, 8192).unwrap(), expected);
            head[at + 4] ^= 1;
            assert!(complaint(&head, 8192).contains("no multiboot header"));
        }
        let mut elf = pvh_elf();
        put(&mut elf, 264, &[1]);
        put(&mut elf, 400, &first);
        let expected = KernelFile::Multiboot { load_end: 0x10_0200, second: false };
        assert_eq!(parse(&elf, 512).unwrap(), expected);
    }

    #[test]
    fn flat_images_and_firmware_are_judged_by_their_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(0x1000).unwrap();
        let path = file.path();
        let place = RawPlace { load_address: 0x7C00, entry_offset: 0, real_mode: true };
        assert_eq!(inspect_raw(path, &place).unwrap(), KernelFile::Raw { load_end: 0x8C00 });
        for (wrong, complaint) in [
            (RawPlace { entry_offset: 0x1000, ..place }, "--entry-offset 0x1000"),
            (RawPlace { load_address: 1 << 20, ..place }, "--real-mode"),
            (RawPlace { load_address: u64::MAX, real_mode: false, ..place }, "--load-address"),
        ] {
            let error = inspect_raw(path, &wrong).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert_eq!(inspect_firmware(path).unwrap(), KernelFile::Firmware);
        for bytes in [0, 0x1001, MOST_FIRMWARE + FIRMWARE_PAGE] {
            file.as_file().set_len(bytes).unwrap();
            assert!(inspect_firmware(path).unwrap_err().to_string().contains("multiples"));
        }
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
