// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads a Linux kernel that starts by the 64-bit boot protocol
//! (Linux, `Documentation/arch/x86/boot.rst` and `zero-page.rst`).

use anyhow::{Context, Result, ensure};

use crate::image::Entry;
use crate::memory::GuestMemory;
use crate::mp_table;

/// Where things are put in the first MiB.
const GDT: u64 = 0x500;
const ZERO_PAGE: u64 = 0x1_0000;
const COMMAND_LINE: u64 = 0x2_0000;
const PAGE_TABLES: u64 = 0x3_0000;

/// Ends of conventional memory, below the last KiB of which are the MP tables, and of the first
/// MiB.
const LOW_END: u64 = mp_table::ADDRESS;
const HIGH_START: u64 = 0x10_0000;

/// Fields of the setup header, by their place in file and zero page.
const SETUP_SECTORS: usize = 0x1F1;
const JUMP_DISPLACEMENT: usize = 0x201;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const COMMAND_LINE_POINTER: usize = 0x228;
const INITRD_MAX: usize = 0x22C;
const EXTENDED_LOAD_FLAGS: usize = 0x236;
const COMMAND_LINE_SIZE: usize = 0x238;
const PREFERRED_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// Fields of the zero page alone.
const E820_ENTRIES: usize = 0x1E8;
const E820_TABLE: usize = 0x2D0;
const ZERO_PAGE_BYTES: usize = 4096;

/// A kernel that is entered in 64-bit mode: version 2.12 on, and the flag that says so.
const OLDEST: u16 = 0x20C;
const KERNEL_64: u16 = 1;
/// A loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xFF;
/// The 64-bit entry is so far behind the start.
const ENTRY_64: u64 = 0x200;
/// Usable memory in the memory map.
const RAM: u32 = 1;

const SECTOR: usize = 512;
const PAGE: u64 = 4096;

/// Present, writable; and a page of 2 MiB.
const LINK: u64 = 3;
const LARGE: u64 = 1 << 7 | LINK;
/// GiB that the page tables map.
const MAPPED_GIB: u64 = 4;

/// The descriptors that the protocol wants at selectors 0x10 and 0x18: flat 64-bit code and data.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// A kernel's file.
struct Kernel<'a>(&'a [u8]);

impl<'a> Kernel<'a> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.0.get(at..at + N).context("the kernel is too short")?;
        Ok(bytes.try_into()?)
    }

    fn byte(&self, at: usize) -> Result<usize> {
        Ok(usize::from(self.bytes::<1>(at)?[0]))
    }

    fn half(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes(at)?))
    }

    fn word(&self, at: usize) -> Result<u64> {
        Ok(u32::from_le_bytes(self.bytes(at)?).into())
    }

    fn long(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(at)?))
    }

    /// The kernel proper, behind the boot sector and the setup code.
    fn protected_mode_part(&self) -> Result<&'a [u8]> {
        // Zero means four, for old kernels.
        let sectors = match self.byte(SETUP_SECTORS)? {
            0 => 4,
            sectors => sectors,
        };
        self.0.get((sectors + 1) * SECTOR..).context("the kernel ends in its setup code")
    }
}

/// Puts kernel, initial RAM disk, command line and tables into memory.
///
/// # Errors
/// When it is no such kernel or something does not fit.
pub fn load(
    file: &[u8],
    initrd: &[u8],
    command_line: &str,
    cpus: u64,
    memory: &mut GuestMemory,
) -> Result<Entry> {
    let kernel = Kernel(file);
    ensure!(kernel.bytes(HEADER_MAGIC)? == *b"HdrS", "the guest is neither ELF nor Linux");
    ensure!(
        kernel.half(VERSION)? >= OLDEST && kernel.half(EXTENDED_LOAD_FLAGS)? & KERNEL_64 != 0,
        "the kernel has no 64-bit entry point"
    );
    ensure!(
        (command_line.len() as u64) <= kernel.word(COMMAND_LINE_SIZE)?,
        "the kernel's command line is too long"
    );
    let start = kernel.long(PREFERRED_ADDRESS)?;
    let end = start.checked_add(kernel.word(INIT_SIZE)?).context("the kernel's size is wrong")?;
    ensure!(end <= memory.size(), "the kernel does not fit into memory");
    memory.write(start, kernel.protected_mode_part()?)?;
    let initrd_at = initrd_address(memory.size().min(kernel.word(INITRD_MAX)?), initrd.len(), end)?;
    memory.write(initrd_at, initrd)?;
    // Fresh memory is zero, which ends the command line.
    memory.write(COMMAND_LINE, command_line.as_bytes())?;
    memory.write(ZERO_PAGE, &zero_page(&kernel, initrd_at, initrd.len(), memory.size())?)?;
    memory.write(PAGE_TABLES, &page_tables())?;
    memory.write(GDT, &DESCRIPTORS.map(u64::to_le_bytes).concat())?;
    memory.write(mp_table::ADDRESS, &mp_table::make(cpus)?)?;
    Ok(Entry::Linux {
        rip: start + ENTRY_64,
        zero_page: ZERO_PAGE,
        page_tables: PAGE_TABLES,
        gdt: (GDT, u16::try_from(size_of_val(&DESCRIPTORS) - 1)?),
    })
}

/// As far up as it may be.
fn initrd_address(limit: u64, size: usize, kernel_end: u64) -> Result<u64> {
    let at = limit.checked_sub(size as u64).map(|at| at & !(PAGE - 1));
    at.filter(|&at| at >= kernel_end).context("the initial RAM disk does not fit into memory")
}

fn zero_page(kernel: &Kernel<'_>, initrd: u64, initrd_size: usize, memory: u64) -> Result<Vec<u8>> {
    let mut page = vec![0; ZERO_PAGE_BYTES];
    let header_end = HEADER_MAGIC + kernel.byte(JUMP_DISPLACEMENT)?;
    let header = kernel.0.get(SETUP_SECTORS..header_end).context("the header is cut off")?;
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in page.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(SETUP_SECTORS, header);
    put(TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    put(RAMDISK_IMAGE, &u32::try_from(initrd)?.to_le_bytes());
    put(RAMDISK_SIZE, &u32::try_from(initrd_size)?.to_le_bytes());
    put(COMMAND_LINE_POINTER, &u32::try_from(COMMAND_LINE)?.to_le_bytes());
    let map = [(0, LOW_END), (HIGH_START, memory)];
    put(E820_ENTRIES, &[u8::try_from(map.len())?]);
    for (index, (start, end)) in map.into_iter().enumerate() {
        let entry: [&[u8]; 3] =
            [&start.to_le_bytes(), &(end - start).to_le_bytes(), &RAM.to_le_bytes()];
        put(E820_TABLE + 20 * index, &entry.concat());
    }
    Ok(page)
}

/// Four levels that map the first 4 GiB as they are, with pages of 2 MiB.
fn page_tables() -> Vec<u8> {
    let directories = PAGE_TABLES + 2 * PAGE;
    let mut entries = vec![0; 2 * 512];
    entries[0] = PAGE_TABLES + PAGE + LINK;
    for gib in 0..MAPPED_GIB {
        entries[512 + gib as usize] = directories + gib * PAGE + LINK;
    }
    entries.extend((0..MAPPED_GIB * 512).map(|page| page << 21 | LARGE));
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: usize = 64 << 20;

    /// The smallest kernel with a 64-bit entry.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0; 3 * SECTOR];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(SETUP_SECTORS, &[1]);
        put(0x200, &[0xEB, 0x66]);
        put(HEADER_MAGIC, b"HdrS");
        put(VERSION, &0x20F_u16.to_le_bytes());
        put(INITRD_MAX, &0x7FFF_FFFF_u32.to_le_bytes());
        put(EXTENDED_LOAD_FLAGS, &[1]);
        put(COMMAND_LINE_SIZE, &255_u32.to_le_bytes());
        put(PREFERRED_ADDRESS, &0x100_0000_u64.to_le_bytes());
        put(INIT_SIZE, &0x10_0000_u32.to_le_bytes());
        put(2 * SECTOR, b"kernel");
        file
    }

    #[test]
    fn a_kernel_starts_at_its_64_bit_entry() {
        let mut memory = GuestMemory::allocate(MEMORY).unwrap();
        let entry = load(&kernel(), &[7; 5000], "quiet", 1, &mut memory).unwrap();
        let Entry::Linux { rip, zero_page, .. } = entry else { panic!("{entry:?}") };
        assert_eq!((rip, zero_page), (0x100_0200, ZERO_PAGE));
        assert_eq!(memory.read(0x100_0000, 6).unwrap(), b"kernel");
        let page = memory.read(ZERO_PAGE, ZERO_PAGE_BYTES).unwrap();
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from(word(RAMDISK_IMAGE)), MEMORY as u64 - 8192);
        assert_eq!((word(RAMDISK_SIZE), page[E820_ENTRIES]), (5000, 2));
        assert_eq!(memory.read(u64::from(word(COMMAND_LINE_POINTER)), 6).unwrap(), b"quiet\0");
        assert_eq!(memory.read(MEMORY as u64 - 8192, 1).unwrap(), [7]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |file: &[u8], initrd: usize, line: &str, complaint: &str| {
            let mut memory = GuestMemory::allocate(MEMORY).unwrap();
            let error = load(file, &vec![0; initrd], line, 1, &mut memory).unwrap_err();
            assert!(error.to_string().contains(complaint), "{error}");
        };
        refused(&kernel(), MEMORY, "", "RAM disk");
        refused(&kernel(), 0, &"x".repeat(256), "too long");
        refused(&[0; 600], 0, "", "neither ELF nor Linux");
        let mut large = kernel();
        large[INIT_SIZE + 3] = 0x10;
        refused(&large, 0, "", "kernel does not fit");
        let mut old = kernel();
        old[EXTENDED_LOAD_FLAGS] = 0;
        refused(&old, 0, "", "no 64-bit entry");
    }

    #[test]
    fn the_tables_map_addresses_to_themselves() {
        let bytes = page_tables();
        let entry =
            |index: usize| u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap());
        assert_eq!(bytes.len(), 6 * 4096);
        assert_eq!(entry(0), PAGE_TABLES + 0x1003);
        assert_eq!(entry(512 + 3), PAGE_TABLES + 0x5003);
        // The page of 2 MiB at 0xFEE00000, in the fourth directory.
        assert_eq!(entry((2 + 3) * 512 + 0x1F7), 0xFEE0_0083);
    }
}
