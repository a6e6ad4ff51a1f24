// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::{
    boot::{
        ImageFormat, load as load_any,
        test_memory::{TestGuest, garbage, modules},
    },
    state::SegmentRegister,
};

const START: u32 = 0x10_0000;
const ENTRY: u32 = START + 0x40;
const CONTENT: usize = 0x1800;
const BSS: u32 = 0x2345;

const HEADERS_32: usize = 52 + 2 * 32;
const HEADERS_64: usize = 64 + 2 * 56;
/// Length of the Xen note: header, name, entry.
const NOTE: usize = 12 + 4 + 4;

fn note() -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, 4, 18] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"Xen\0");
    note.extend(ENTRY.to_le_bytes());
    note
}

fn content() -> impl Iterator<Item = u8> {
    (0..CONTENT).map(|i| (i % 251) as u8)
}

/// The fields of an ELF file that are as wide as its class says.
fn word(wide: bool, value: u64) -> Vec<u8> {
    if wide { value.to_le_bytes().to_vec() } else { (value as u32).to_le_bytes().to_vec() }
}

/// One program header (System V ABI, chapter 5).
fn program_header(wide: bool, kind: u32, at: usize, sizes: (u64, u64), start: u32) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    if wide {
        header.extend(7u32.to_le_bytes());
    }
    header.extend(word(wide, at as u64));
    header.extend(word(wide, 0xFFFF_FFFF_8000_0000));
    header.extend(word(wide, u64::from(start)));
    header.extend(word(wide, sizes.0));
    header.extend(word(wide, sizes.1));
    if !wide {
        header.extend(7u32.to_le_bytes());
    }
    header.extend(word(wide, 4));
    header
}

/// An ELF kernel with one segment and the PVH note.
fn kernel(wide: bool) -> Vec<u8> {
    let (class, machine, header, program) =
        if wide { (2, 62u16, 64u16, 56u16) } else { (1, 3, 52, 32) };
    let mut file = vec![0x7F, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(word(wide, 0xDEAD));
    file.extend(word(wide, u64::from(header)));
    file.extend(word(wide, 0));
    file.extend(0u32.to_le_bytes());
    for field in [header, program, 2, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    let headers = if wide { HEADERS_64 } else { HEADERS_32 };
    let sizes = (CONTENT as u64, CONTENT as u64 + u64::from(BSS));
    file.extend(program_header(wide, 1, headers + NOTE, sizes, START));
    file.extend(program_header(wide, 4, headers, (NOTE as u64, NOTE as u64), 0));
    assert_eq!(file.len(), headers);
    file.extend(note());
    file.extend(content());
    file
}

fn images<'a>(kernel: &'a [u8], guest: &'a TestGuest) -> BootImages<'a> {
    BootImages {
        command_line: "loglevel=7",
        rsdp: Some(GuestPhysAddr::new(0xE_0000)),
        ..BootImages::of(kernel, &guest.map)
    }
}

#[test]
fn both_classes_load_where_they_say_and_start_at_the_note() {
    for wide in [false, true] {
        let guest = TestGuest::with_mib(4);
        garbage(&guest.memory, 0..0x20_0000);
        let file = kernel(wide);
        assert_eq!(ImageFormat::detect(&file), Ok(ImageFormat::Pvh));
        let state = load_any(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!(state.rip, u64::from(ENTRY));
        let start = u64::from(START);
        assert!(guest.bytes(start, CONTENT).into_iter().eq(content()));
        let bss = guest.bytes(start + CONTENT as u64, BSS as usize + 1);
        assert_eq!(bss.iter().position(|&byte| byte != 0), Some(BSS as usize));
        assert_eq!(state.control.cr0, 0x11);
        assert_eq!(state.segments[SegmentRegister::Cs as usize].base, 0);
    }
}

#[test]
fn start_info_leads_to_everything() {
    let guest = TestGuest::with_mib(4);
    garbage(&guest.memory, 0..0x9_0000);
    let file = kernel(true);
    let contents: [&[u8]; 3] = [b"one", b"", &[9; 0x1001]];
    let images = BootImages { modules: &modules(&contents), ..images(&file, &guest) };
    let state = load(&guest.memory, &images).unwrap();
    let at = GuestPhysAddr::new(state.gprs[Gpr::Rbx as usize]);
    let info: StartInfo = guest.memory.read_plain(at).unwrap();
    assert_eq!((info.magic, info.version, info.flags), (0x336E_C578, 1, 0));
    assert_eq!(info.rsdp, 0xE_0000);
    assert_eq!(guest.bytes(info.command_line, 11), b"loglevel=7\0");
    assert_eq!(info.module_count, 3);
    for (index, content) in contents.iter().enumerate() {
        let at = GuestPhysAddr::new(info.modules + 32 * index as u64);
        let module: ModuleEntry = guest.memory.read_plain(at).unwrap();
        assert_eq!(module.bytes, content.len() as u64);
        if !content.is_empty() {
            assert_eq!(guest.bytes(module.address, content.len()), *content);
        }
    }
    assert_eq!(info.memory_map_entries, 3);
    for (index, range) in guest.map.iter().enumerate() {
        let at = GuestPhysAddr::new(info.memory_map + 24 * index as u64);
        let entry: MemoryMapEntry = guest.memory.read_plain(at).unwrap();
        assert_eq!((entry.start, entry.bytes), (range.start.as_u64(), range.bytes));
        assert_eq!(entry.kind, range.kind as u32);
    }
}

#[test]
fn says_what_is_wrong_with_an_elf_file() {
    let without_note = {
        let mut file = kernel(true);
        file[HEADERS_64 + 8] = 19;
        file
    };
    assert_eq!(ImageFormat::detect(&without_note), Err(BootError::NoBootProtocol));
    let for_arm = {
        let mut file = kernel(true);
        file[18] = 183;
        file
    };
    assert!(matches!(ImageFormat::detect(&for_arm), Err(BootError::Malformed(_))));
    let file = kernel(false);
    let cut = ImageFormat::detect(&file[..file.len() - 1]);
    assert_eq!(cut, Err(BootError::Malformed("a segment reaches beyond the end of the file")));
    let guest = TestGuest::with_mib(1);
    let result = load(&guest.memory, &images(&file, &guest));
    assert!(matches!(result, Err(BootError::KernelDoesNotFit { start: 0x10_0000, .. })));
}

#[test]
fn entry_must_lie_in_what_is_loaded() {
    let guest = TestGuest::with_mib(4);
    let mut file = kernel(true);
    file[HEADERS_64 + 19] = 0x70;
    let result = load(&guest.memory, &images(&file, &guest));
    let error = BootError::Malformed("its PVH entry point is not in what it loads");
    assert_eq!(result, Err(error));
}

#[test]
fn module_that_does_not_fit_is_named_by_its_size() {
    let guest = TestGuest::with_mib(4);
    let file = kernel(true);
    let module = vec![0; 4 << 20];
    let images = BootImages { modules: &modules(&[&module]), ..images(&file, &guest) };
    let result = load(&guest.memory, &images);
    assert!(matches!(result, Err(BootError::InitrdDoesNotFit { bytes: 0x40_0000, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_files_never_panic_or_load_outside_of_usable_memory(
        wide: bool,
        changes in prop::collection::vec((4usize..HEADERS_64 + NOTE, any::<u8>()), 0..10),
        length in 0usize..0x2000,
    ) {
        let guest = TestGuest::with_mib(2);
        garbage(&guest.memory, 0x9_FC00..0x10_0000);
        let mut file = kernel(wide);
        for (at, value) in changes {
            file[at] = value;
        }
        file.truncate(length);
        let _ = load_any(&guest.memory, &images(&file, &guest));
        let reserved = guest.bytes(0x9_FC00, 0x10_0000 - 0x9_FC00);
        prop_assert!(reserved.iter().all(|&byte| byte == 0xA5));
    }
}
