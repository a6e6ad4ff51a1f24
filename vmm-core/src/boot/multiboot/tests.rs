// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels of both versions, whole and damaged.

use proptest::prelude::*;

use super::v1::{Information, MemoryMapEntry, ModuleEntry};
use crate::{
    GuestPhysAddr,
    boot::{
        BootError, BootImages, ImageFormat, Module, load,
        test_memory::{TestGuest, garbage},
    },
    state::{Gpr, SegmentRegister},
};

const START: u32 = 0x10_0000;
const ENTRY: u32 = START + 0x20;
/// Where the kernel's own code believes that it is.
const LINKED_AT: u32 = 0xC010_0000;
const CONTENT: usize = 0x1800;
const BSS: u32 = 0x345;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A multiboot header with its checksum.
fn header_1(flags: u32, rest: &[u32]) -> Vec<u8> {
    let magic = 0x1BAD_B002_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    words(&[&[magic, flags, checksum], rest].concat())
}

/// A tag of a Multiboot2 header, padded.
fn tag(kind: u16, flags: u16, content: &[u32]) -> Vec<u8> {
    let size = 8 + 4 * content.len() as u32;
    let mut tag = words(&[u32::from(kind) | u32::from(flags) << 16, size]);
    tag.extend(words(content));
    tag.resize(tag.len().next_multiple_of(8), 0);
    tag
}

/// A Multiboot2 header with its checksum and end tag.
fn header_2(tags: &[Vec<u8>]) -> Vec<u8> {
    let tags = [tags.concat(), tag(0, 0, &[])].concat();
    let (magic, length) = (0xE852_50D6_u32, 16 + tags.len() as u32);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(length);
    [words(&[magic, 0, length, checksum]), tags].concat()
}

/// An ELF file of one segment at `START` that begins with `header`.
fn elf(wide: bool, header: &[u8]) -> Vec<u8> {
    let word = |value: u32| match wide {
        true => u64::from(value).to_le_bytes().to_vec(),
        false => value.to_le_bytes().to_vec(),
    };
    let (class, machine, header_bytes, program_bytes) =
        if wide { (2, 62_u16, 64_u16, 56_u16) } else { (1, 3, 52, 32) };
    let mut file = vec![0x7F, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2_u16, machine].iter().flat_map(|field| field.to_le_bytes()));
    file.extend(words(&[1]));
    file.extend([LINKED_AT + 0x20, u32::from(header_bytes), 0].map(word).concat());
    file.extend(words(&[0]));
    file.extend([header_bytes, program_bytes, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    file.extend(words(if wide { &[1, 7] } else { &[1] }));
    let (content, offset) =
        (CONTENT as u32, u32::from(header_bytes + program_bytes).next_multiple_of(8));
    file.extend([offset, LINKED_AT, START, content, content + BSS].map(word).concat());
    file.extend(if wide { word(8) } else { words(&[7, 8]) });
    file.resize(offset as usize, 0);
    let mut body = header.to_vec();
    body.resize(CONTENT, 0x3C);
    file.extend(body);
    file
}

/// A file without ELF headers whose header, at `at`, says where it goes.
fn flat(at: usize, header: &[u8]) -> Vec<u8> {
    let mut file = vec![0x3C; at];
    file.extend(header);
    file.resize(CONTENT, 0x3C);
    file
}

fn images<'a>(kernel: &'a [u8], guest: &'a TestGuest) -> BootImages<'a> {
    BootImages {
        modules: &[
            Module { content: b"first", command_line: "one 1" },
            Module { content: &[9; 0x1001], command_line: "" },
        ],
        command_line: "a=b c",
        rsdp: Some(GuestPhysAddr::new(0xE_0000)),
        ..BootImages::of(kernel, &guest.map)
    }
}

/// A guest with rubbish where a loader must not rely on zeroes, and an RSDP of revision 2.
fn guest() -> TestGuest {
    let guest = TestGuest::with_mib(4);
    garbage(&guest.memory, 0..0x9_0000);
    garbage(&guest.memory, 0x10_0000..0x20_0000);
    let rsdp = GuestPhysAddr::new(0xE_0000);
    guest.memory.write(rsdp, b"RSD PTR \xAAOEMID_\x02\0\0\0\0").unwrap();
    guest.memory.write(GuestPhysAddr::new(0xE_0014), &[0x77; 16]).unwrap();
    guest
}

fn text(guest: &TestGuest, at: u32) -> String {
    let bytes = guest.bytes(at.into(), 64);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

/// What is at the kernel's place: what was in the file, zeroes, and what was there before.
fn check_kernel(guest: &TestGuest, start: u32, content: &[u8]) {
    let start = u64::from(start);
    assert_eq!(guest.bytes(start, content.len()), content);
    let bss = guest.bytes(start + content.len() as u64, BSS as usize + 1);
    assert_eq!(bss.iter().position(|&byte| byte != 0), Some(BSS as usize));
}

#[test]
fn multiboot_elf_files_start_at_their_translated_entry() {
    for wide in [false, true] {
        let (guest, file) = (guest(), elf(wide, &header_1(3, &[])));
        assert_eq!(ImageFormat::detect(&file), Ok(ImageFormat::Multiboot));
        let state = load(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!((state.rip, state.control.cr0), (ENTRY.into(), 0x11));
        assert_eq!(state.gprs[Gpr::Rax as usize], 0x2BAD_B002);
        assert_eq!(state.segments[SegmentRegister::Cs as usize].limit, u32::MAX);
        check_kernel(&guest, START, &file[file.len() - CONTENT..]);
    }
}

#[test]
fn multiboot_information_leads_to_everything() {
    let (guest, file) = (guest(), elf(false, &header_1(0, &[])));
    let state = load(&guest.memory, &images(&file, &guest)).unwrap();
    let at = GuestPhysAddr::new(state.gprs[Gpr::Rbx as usize]);
    let information: Information = guest.memory.read_plain(at).unwrap();
    assert_eq!(information.flags, 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_eq!((information.memory_lower, information.memory_upper), (639, 3 * 1024));
    assert_eq!(text(&guest, information.command_line), "a=b c");
    assert_eq!(text(&guest, information.loader_name), "Alcazar");
    assert_eq!(information.module_count, 2);
    for (index, (content, name)) in
        [(&b"first"[..], "one 1"), (&[9; 0x1001], "")].into_iter().enumerate()
    {
        let at = GuestPhysAddr::new(u64::from(information.modules) + 16 * index as u64);
        let module: ModuleEntry = guest.memory.read_plain(at).unwrap();
        assert!(module.start.is_multiple_of(0x1000) && module.start > START + CONTENT as u32);
        assert_eq!((module.end - module.start) as usize, content.len());
        assert_eq!(guest.bytes(module.start.into(), content.len()), content);
        assert_eq!(text(&guest, module.text), name);
    }
    assert_eq!(information.memory_map_bytes as usize, 24 * guest.map.len());
    for (index, range) in guest.map.iter().enumerate() {
        let at = GuestPhysAddr::new(u64::from(information.memory_map) + 24 * index as u64);
        let entry: MemoryMapEntry = guest.memory.read_plain(at).unwrap();
        let MemoryMapEntry { size, start, bytes, kind } = entry;
        assert_eq!((size, start, bytes), (20, range.start.as_u64(), range.bytes));
        assert_eq!(kind, range.kind as u32);
    }
}

#[test]
fn address_fields_win_over_elf_headers_and_need_none() {
    let bss_end = START + CONTENT as u32 + BSS;
    for at in [0, 0x40] {
        let fields = [START + at, START, 0, bss_end, ENTRY];
        let (guest, file) = (guest(), flat(at as usize, &header_1(1 << 16, &fields)));
        let state = load(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!(state.rip, ENTRY.into());
        check_kernel(&guest, START, &file);
        let fields = tag(2, 0, &[START + at, START, 0, bss_end]);
        let header = header_2(&[fields, tag(3, 0, &[ENTRY])]);
        let file = flat(at as usize, &header);
        assert_eq!(ImageFormat::detect(&file), Ok(ImageFormat::Multiboot2));
        let state = load(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!(state.rip, ENTRY.into());
        check_kernel(&guest, START, &file);
    }
    // An ELF file, of which the header picks a piece from the header on.
    let pick = [0x20_0000, 0x20_0000, 0x20_0100, 0, 0x20_0010];
    let (guest, file) = (guest(), elf(true, &header_1(1 << 16, &pick)));
    let images = BootImages { modules: &[], ..images(&file, &guest) };
    let state = load(&guest.memory, &images).unwrap();
    assert_eq!(state.rip, 0x20_0010);
    assert_eq!(guest.bytes(0x20_0000, 0x100), file[file.len() - CONTENT..][..0x100]);
    assert_eq!(guest.bytes(START.into(), 4), [0xA5; 4], "not where the ELF headers say");
}

/// The tags of the information: type and content.
fn tags(guest: &TestGuest, at: u64) -> Vec<(u32, Vec<u8>)> {
    let total = u64::from(guest.u32(at));
    let (mut next, mut tags) = (at + 8, Vec::new());
    loop {
        let (kind, size) = (guest.u32(next), guest.u32(next + 4));
        tags.push((kind, guest.bytes(next + 8, size as usize - 8)));
        next += u64::from(size.next_multiple_of(8));
        if kind == 0 {
            assert_eq!(next - at, total);
            return tags;
        }
    }
}

#[test]
fn multiboot2_information_has_what_a_loader_gives() {
    for wide in [false, true] {
        let request = tag(1, 0, &[1, 2, 3, 4, 6, 8, 14, 15, 21]);
        let (guest, file) = (guest(), elf(wide, &header_2(&[request, tag(6, 0, &[])])));
        let state = load(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!((state.rip, state.control.cr0), (ENTRY.into(), 0x11));
        assert_eq!(state.gprs[Gpr::Rax as usize], 0x36D7_6289);
        check_kernel(&guest, START, &file[file.len() - CONTENT..]);
        let at = state.gprs[Gpr::Rbx as usize];
        assert!(at.is_multiple_of(8));
        let tags = tags(&guest, at);
        let find = |kind| tags.iter().filter(move |tag| tag.0 == kind).map(|tag| &tag.1[..]);
        assert_eq!(find(1).next(), Some(&b"a=b c\0"[..]));
        assert_eq!(find(2).next(), Some(&b"Alcazar\0"[..]));
        let modules: Vec<_> = find(3).collect();
        assert_eq!(modules.len(), 2);
        assert_eq!(&modules[0][8..], b"one 1\0");
        let start = u32::from_le_bytes(modules[0][..4].try_into().unwrap());
        assert_eq!(guest.bytes(start.into(), 5), b"first");
        assert_eq!(find(4).next(), Some(&words(&[639, 3 * 1024])[..]));
        let map = find(6).next().unwrap();
        assert_eq!(map[..8], words(&[24, 0]));
        assert_eq!(map.len(), 8 + 24 * guest.map.len());
        assert_eq!(map[8 + 24..][..24], words(&[0x9_FC00, 0, 0x6_0400, 0, 2, 0]));
        // The table of version 2 has no RSDT.
        assert_eq!(find(14).next(), None);
        assert_eq!(find(15).next(), Some(&guest.bytes(0xE_0000, 36)[..]));
        assert_eq!(find(21).next(), None);
    }
}

#[test]
fn relocatable_kernels_go_where_they_may() {
    const MIN: u32 = 0x18_0000;
    for (preference, max, expected) in [
        (0, u32::MAX, MIN),
        (1, u32::MAX, MIN),
        (2, u32::MAX, 0x3F_E000),
        (2, 0x2F_FFFF, 0x2F_E000),
    ] {
        let (guest, relocatable) = (guest(), tag(10, 0, &[MIN, max, 0x1000, preference]));
        let file = elf(true, &header_2(&[relocatable]));
        let state = load(&guest.memory, &images(&file, &guest)).unwrap();
        assert_eq!(state.rip, u64::from(expected + 0x20), "{preference} {max:#x}");
        assert_eq!(guest.bytes(expected.into(), 4), file[file.len() - CONTENT..][..4]);
        let tags = tags(&guest, state.gprs[Gpr::Rbx as usize]);
        let base = tags.iter().find(|tag| tag.0 == 21).unwrap();
        assert_eq!(base.1, expected.to_le_bytes());
    }
    let guest = guest();
    for (tag_content, stays) in
        [([0, u32::MAX, 0x1000, 0], true), ([START, 0x10_0FFF, 1, 0], false)]
    {
        let file = elf(true, &header_2(&[tag(10, 0, &tag_content)]));
        let result = load(&guest.memory, &images(&file, &guest));
        assert_eq!(result.map(|state| state.rip).ok(), Some(u64::from(ENTRY)).filter(|_| stays));
    }
}

#[test]
fn what_a_header_demands_is_given_or_refused() {
    let refusal = |header: &[u8]| {
        let (guest, file) = (guest(), elf(true, header));
        load(&guest.memory, &images(&file, &guest)).err()
    };
    let unknown = |what, number| Some(BootError::UnknownRequirement { what, number });
    assert_eq!(refusal(&header_1(1 << 2, &[])), Some(BootError::NeedsDisplay));
    assert_eq!(refusal(&header_1(1 << 7, &[])), unknown("flag", 7));
    assert_eq!(refusal(&header_1(1 << 20, &[])), None, "flags above 15 are optional");
    assert_eq!(refusal(&header_2(&[tag(1, 0, &[9])])), unknown("information of type", 9));
    assert_eq!(refusal(&header_2(&[tag(1, 0, &[99])])), unknown("information of type", 99));
    assert_eq!(refusal(&header_2(&[tag(1, 1, &[99])])), None);
    assert_eq!(refusal(&header_2(&[tag(5, 0, &[0, 0, 0])])), Some(BootError::NeedsDisplay));
    assert_eq!(refusal(&header_2(&[tag(5, 1, &[0, 0, 0])])), None);
    assert_eq!(refusal(&header_2(&[tag(4, 0, &[1])])), Some(BootError::NeedsDisplay));
    assert_eq!(refusal(&header_2(&[tag(4, 0, &[2])])), None);
    assert_eq!(refusal(&header_2(&[tag(77, 0, &[])])), unknown("header tag", 77));
    assert_eq!(refusal(&header_2(&[tag(77, 1, &[])])), None);
}

#[test]
fn hostile_headers_are_told_from_each_other() {
    let try_one = |file: &[u8]| {
        let guest = guest();
        load(&guest.memory, &images(file, &guest)).map(|state| state.rip)
    };
    let flat_1 = |fields: [u32; 5]| try_one(&flat(0x40, &header_1(1 << 16, &fields)));
    let header = START + 0x40;
    assert_eq!(flat_1([header, START, 0, 0, ENTRY]), Ok(ENTRY.into()));
    for fields in [
        [START - 1, START, 0, 0, ENTRY],
        [START + 0x41, START, 0, 0, ENTRY],
        [header, START, START - 1, 0, ENTRY],
        [header, START, START + 0x100, START + 0xFF, ENTRY],
    ] {
        assert!(matches!(flat_1(fields), Err(BootError::Malformed(_))), "{fields:x?}");
    }
    let too_long = flat_1([header, START, START + CONTENT as u32 + 1, 0, ENTRY]);
    assert!(matches!(too_long, Err(BootError::Truncated { .. })));
    for entry in [START - 1, START + CONTENT as u32, 0, u32::MAX] {
        assert_eq!(flat_1([header, START, 0, 0, entry]), Err(BootError::EntryOutside));
    }
    for load in [0, 0x9_F000, 0x3F_F000, 0xFFFF_F000] {
        let result = flat_1([load + 0x40, load, 0, 0, load]);
        assert!(matches!(result, Err(BootError::KernelDoesNotFit { .. })), "{load:#x}");
    }
    assert_eq!(try_one(&flat(0, &header_1(0, &[]))), Err(BootError::NoLoadAddress));
    assert_eq!(try_one(&flat(0, &header_2(&[]))), Err(BootError::NoLoadAddress));
    let addresses = tag(2, 0, &[START, START, 0, 0]);
    assert_eq!(try_one(&flat(0, &header_2(&[addresses]))), Err(BootError::NoEntry));
    let mut no_end = header_2(&[]);
    no_end[16] = 6;
    assert!(matches!(try_one(&elf(true, &no_end)), Err(BootError::Truncated { .. })));
    let mut short_tag = header_2(&[tag(6, 0, &[])]);
    short_tag[20] = 7;
    assert!(matches!(try_one(&elf(true, &short_tag)), Err(BootError::Malformed(_))));
    // Beyond the part that is searched, or misaligned, it is no header.
    for at in [2, 8192 - 8] {
        let file = flat(at, &header_1(1 << 16, &[START, START, 0, 0, ENTRY]));
        assert!(matches!(try_one(&file), Err(BootError::UnknownFormat { .. })), "{at}");
    }
}

#[test]
fn no_command_line_with_a_zero_byte() {
    let guest = guest();
    for file in [elf(true, &header_1(0, &[])), elf(true, &header_2(&[]))] {
        let images = BootImages { command_line: "a\0b", ..images(&file, &guest) };
        assert_eq!(load(&guest.memory, &images).err(), Some(BootError::CommandLineZero));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_files_never_panic_or_load_outside_of_usable_memory(
        kind in 0..4,
        changes in prop::collection::vec((4_usize..0x100, any::<u8>()), 0..6),
        fields: [u32; 5],
        moved in prop::collection::vec(0_u32..0x100, 5),
        length in 0_usize..0x2000,
    ) {
        let guest = TestGuest::with_mib(2);
        garbage(&guest.memory, 0x9_FC00..0x10_0000);
        let near = [START + moved[0], START + moved[1] / 2, 0, 0, START + moved[4]];
        let mut file = match kind {
            0 => elf(length & 1 == 0, &header_1(fields[0] & 0x1_0003, &fields)),
            1 => flat(moved[2] as usize & !3, &header_1(1 << 16, &near)),
            2 => elf(length & 1 == 0, &header_2(&[tag(10, 0, &fields[..4]), tag(1, 1, &fields)])),
            _ => flat(
                moved[2] as usize & !7,
                &header_2(&[tag(2, 0, &near[..4]), tag(3, 0, &fields[..1])]),
            ),
        };
        for (at, value) in changes {
            file[at] = value;
        }
        file.truncate(length);
        let _ = load(&guest.memory, &images(&file, &guest));
        let reserved = guest.bytes(0x9_FC00, 0x10_0000 - 0x9_FC00);
        prop_assert!(reserved.iter().all(|&byte| byte == 0xA5));
    }
}
