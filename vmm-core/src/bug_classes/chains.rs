// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chains and lists that are endless, lead back to themselves, or are longer than anything real:
//! they end in a bounded number of steps, and within what was given.

use crate::{
    GuestVirtAddr,
    boot::{BootError, BootImages, ImageFormat, load, test_memory::TestGuest},
    paging::{
        tests::memory::Sparse,
        walk::{
            Access, AccessKind, AddressSpace, PagingFeatures, Privilege, TranslateError, translate,
        },
    },
    state::{ControlRegisters, cr0, cr4, efer},
};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A Multiboot2 file whose header has these tags, without an end tag.
fn multiboot2(tags: &[u8]) -> Vec<u8> {
    let (magic, length) = (0xE852_50D6_u32, 16 + tags.len() as u32);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(length);
    [words(&[magic, 0, length, checksum]), tags.to_vec()].concat()
}

fn load_error(kernel: &[u8]) -> BootError {
    let guest = TestGuest::with_mib(4);
    load(&guest.memory, &BootImages::of(kernel, &guest.map)).map(drop).unwrap_err()
}

#[test]
fn a_tag_that_leads_to_itself_is_refused() {
    for size in 0..8 {
        let error = load_error(&multiboot2(&words(&[1, size, 0, 0])));
        assert!(error.to_string().contains("too short"), "{size}: {error}");
    }
}

#[test]
fn tags_without_an_end_are_refused() {
    let endless = words(&[1 | 1 << 16, 8]).repeat(4000);
    assert!(matches!(load_error(&multiboot2(&endless)), BootError::Truncated { .. }));
    for size in [0x7FFF_FFF9, 0xFFFF_FFF9, 0xFFFF_FFFF] {
        let error = load_error(&multiboot2(&words(&[1 | 1 << 16, size])));
        assert!(matches!(error, BootError::Truncated { .. }), "{error}");
    }
}

const PROGRAM_HEADER: u16 = 56;
const HEADER: u16 = 64;

/// A 64-bit ELF file with `count` program headers of these fields: type, offset, address, bytes in
/// the file and in memory.
fn elf(count: u16, fields: [u64; 5], rest: &[u8]) -> Vec<u8> {
    let [kind, offset, address, file_bytes, memory_bytes] = fields;
    let mut file = vec![0x7F, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2_u16, 62].map(u16::to_le_bytes).concat());
    file.extend(words(&[1]));
    file.extend([0x10_0000, u64::from(HEADER), 0].map(u64::to_le_bytes).concat());
    file.extend(words(&[0]));
    file.extend([HEADER, PROGRAM_HEADER, count, 0, 0, 0].map(u16::to_le_bytes).concat());
    let mut header = words(&[kind as u32, 7]);
    let numbers = [offset, address, address, file_bytes, memory_bytes, 4];
    header.extend(numbers.map(u64::to_le_bytes).concat());
    file.extend(header.repeat(count.into()));
    file.extend(rest);
    file
}

const LOAD: u64 = 1;
const NOTE: u64 = 4;

#[test]
fn a_list_of_program_headers_has_a_limit() {
    // Each names all of the file as notes: read in turn, that would be billions of them.
    let file = elf(u16::MAX - 1, [NOTE, 0, 0, 0x38_0000, 0], &[0; 0x1000]);
    assert!(ImageFormat::detect(&file).unwrap_err().to_string().contains("program headers"));
}

#[test]
fn segments_on_top_of_each_other_are_no_more_than_a_kernel_can_have() {
    // Each is within memory; cleared one after the other, they are half a terabyte.
    let count = 100;
    let start = u64::from(HEADER) + u64::from(PROGRAM_HEADER) * u64::from(count);
    let file = elf(count, [LOAD, start, 0x10_0000, 0, 1 << 32], &[]);
    assert!(ImageFormat::detect(&file).unwrap_err().to_string().contains("larger"));
}

#[test]
fn notes_without_length_or_longer_than_the_file_end() {
    let start = u64::from(HEADER + PROGRAM_HEADER);
    for note in [[0, 0, 0], [0, 0, 18], [u32::MAX, u32::MAX, 18], [4, u32::MAX - 3, 18]] {
        let notes = words(&note).repeat(2000);
        let file = elf(1, [NOTE, start, 0, notes.len() as u64, 0], &notes);
        assert!(ImageFormat::detect(&file).is_err(), "{note:x?}");
    }
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;

#[test]
fn page_tables_that_lead_to_themselves_end_at_the_last_level() {
    let memory = Sparse::default();
    for entry in 0..512 {
        memory.store(0x1000 + entry * 8, 8, 0x1000 | PRESENT | WRITABLE);
    }
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::PG,
        cr3: 0x1000,
        cr4: cr4::PAE,
        efer: efer::LMA | efer::LME,
        ..ControlRegisters::default()
    };
    let features = PagingFeatures {
        physical_address_bits: 48,
        gigabyte_pages: true,
        table_global_reserved: false,
    };
    let space =
        AddressSpace { control, alignment_check: false, features, page_directory_pointers: None };
    let access = Access { kind: AccessKind::Write, privilege: Privilege::Supervisor };
    let found = |address| translate(&memory, &space, GuestVirtAddr::new(address), access);
    // The table is its own page; marking it as the page dirties the entries of all levels.
    assert_eq!(found(0x123).unwrap().address.as_u64(), 0x1123);
    assert_eq!(found(0xFFFF_FFFF_FFFF_F008).unwrap().address.as_u64(), 0x1008);
    // And with four bytes an entry.
    let legacy = Sparse::default();
    for entry in 0..1024 {
        legacy.store(0x1000 + entry * 4, 4, 0x1000 | PRESENT | WRITABLE);
    }
    let control = ControlRegisters { cr4: 0, efer: 0, ..control };
    let space = AddressSpace { control, ..space };
    let found = translate(&legacy, &space, GuestVirtAddr::new(0xFFFF_F004), access);
    assert_eq!(found.map(|found| found.address.as_u64()), Ok::<_, TranslateError>(0x1004));
}
