// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page walker against the reference, and its corners.

use proptest::prelude::*;

use super::memory::Sparse;
use super::reference;
use crate::paging::walk::{
    Access, AccessKind, AddressSpace, PageSize, PagingFeatures, Privilege, TranslateError,
    page_fault, translate,
};
use crate::state::{ControlRegisters, cr0, cr4, efer};
use crate::{GuestPhysAddr, GuestVirtAddr};

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Legacy,
    Pae,
    Long,
}

/// Tables at 0x1000, 0x2000, … and one path through them.
#[derive(Clone, Debug)]
struct Scenario {
    mode: Mode,
    space: AddressSpace,
    address: u64,
    access: Access,
    memory_of: Vec<u64>,
}

impl Scenario {
    fn memory(&self) -> Sparse {
        let memory = Sparse::default();
        let indices: &[(u32, u64)] = match self.mode {
            Mode::Legacy => &[(22, 0x3FF), (12, 0x3FF)],
            Mode::Pae => &[(30, 3), (21, 0x1FF), (12, 0x1FF)],
            Mode::Long => &[(39, 0x1FF), (30, 0x1FF), (21, 0x1FF), (12, 0x1FF)],
        };
        let bytes = if self.mode == Mode::Legacy { 4 } else { 8 };
        for (number, (shift, mask)) in (1..).zip(indices) {
            let at = number * 0x1000 + ((self.address >> shift) & mask) * bytes;
            memory.store(at, bytes, self.memory_of[number as usize - 1]);
        }
        memory
    }
}

/// An entry that leads to `next`, usually present and permissive. Large pages lie at 1 GiB, so
/// that they are aligned whatever their size. Some entries have a bit set at the edge of a
/// reserved field.
fn entry(next: u64) -> impl Strategy<Value = u64> {
    const EDGES: [u32; 15] = [1, 2, 5, 6, 7, 8, 13, 20, 21, 29, 36, 48, 51, 52, 62];
    let rare = prop_oneof![
        10 => Just(0),
        2 => prop::sample::select(&EDGES[..]).prop_map(|bit| 1 << bit),
        1 => Just(1 << 63),
        1 => (0..0x100u64).prop_map(|field| field << 13),
        1 => (12..52u32).prop_map(|bit| 1 << bit),
    ];
    (any::<u16>(), any::<u16>(), rare).prop_map(move |(usual, flip, rare)| {
        let mut low = PRESENT | WRITE | USER | u64::from(usual) & (ACCESSED | DIRTY | 0x118);
        for (position, bit) in [PRESENT, WRITE, USER].into_iter().enumerate() {
            // Each is turned over once in sixteen times.
            let chosen = (flip >> (4 * position)) & 15;
            low ^= if chosen == 0 { bit } else { 0 };
        }
        if flip >> 14 == 0 { 0x4000_0000 | low | LARGE | rare } else { next | low | rare }
    })
}

fn access() -> impl Strategy<Value = Access> {
    const KINDS: [AccessKind; 3] = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
    const PRIVILEGES: [Privilege; 3] =
        [Privilege::User, Privilege::Supervisor, Privilege::ImplicitSupervisor];
    (prop::sample::select(&KINDS[..]), prop::sample::select(&PRIVILEGES[..]))
        .prop_map(|(kind, privilege)| Access { kind, privilege })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let mode = prop::sample::select(&[Mode::Legacy, Mode::Pae, Mode::Long][..]);
    let entries = (entry(0x2000), entry(0x3000), entry(0x4000), entry(0x5000));
    let width = prop::sample::select(&[32u8, 36, 39, 40, 48, 52][..]);
    (mode, entries, any::<u64>(), access(), any::<u8>(), width).prop_map(
        |(mode, entries, address, access, switches, width)| {
            let on = |bit: u32, value: u64| if (switches >> bit) & 1 == 1 { value } else { 0 };
            let long = mode == Mode::Long;
            let control = ControlRegisters {
                cr0: cr0::PE | cr0::PG | on(0, cr0::WP),
                cr3: 0x1000,
                cr4: on(1, cr4::PSE)
                    | on(2, cr4::SMEP)
                    | on(3, cr4::SMAP)
                    | if mode == Mode::Legacy { 0 } else { cr4::PAE },
                efer: on(4, efer::NXE) | if long { efer::LME | efer::LMA } else { 0 },
                ..ControlRegisters::default()
            };
            let features = PagingFeatures {
                physical_address_bits: width,
                gigabyte_pages: (switches >> 5) & 1 == 1,
                table_global_reserved: false,
            };
            let alignment_check = (switches >> 6) & 1 == 1;
            let address =
                if long { ((address << 16) as i64 >> 16) as u64 } else { address & 0xFFFF_FFFF };
            let (mut a, b, c, d) = entries;
            // The bits that are rights elsewhere are reserved in the top entries of PAE paging.
            if mode == Mode::Pae && (switches >> 7) & 1 == 1 {
                a = (a & !0x1E6 & !0x4000_0000) | 0x2000;
            }
            Scenario {
                mode,
                space: AddressSpace {
                    control,
                    alignment_check,
                    features,
                    page_directory_pointers: None,
                },
                address,
                access,
                memory_of: vec![a, b, c, d],
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_reference(scenario in scenario()) {
        let (memory, expected_memory) = (scenario.memory(), scenario.memory());
        let Scenario { space, address, access, .. } = scenario;
        let found = translate(&memory, &space, GuestVirtAddr::new(address), access);
        match reference::walk(&expected_memory, &space, address, access) {
            Err(code) => prop_assert_eq!(found, Err(TranslateError::PageFault(code))),
            Ok(answer) => {
                let found = found.expect("the reference translates it");
                prop_assert_eq!(found.address, GuestPhysAddr::new(answer.address));
                prop_assert_eq!(found.page_size.bytes(), answer.page);
                let rights = found.rights;
                prop_assert_eq!((rights.write, rights.user, rights.execute), answer.rights);
                for (at, bytes, value) in answer.updates {
                    if expected_memory.load(at, bytes).is_some() {
                        expected_memory.store(at, bytes, value);
                    }
                }
            }
        }
        prop_assert_eq!(memory.cells, expected_memory.cells);
    }
}

const FEATURES: PagingFeatures = PagingFeatures {
    physical_address_bits: 48,
    gigabyte_pages: true,
    table_global_reserved: false,
};
const WRITE_ACCESS: Access = Access { kind: AccessKind::Write, privilege: Privilege::Supervisor };

fn long(extra_cr4: u64) -> AddressSpace {
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::PG,
        cr3: 0x1000,
        cr4: cr4::PAE | extra_cr4,
        efer: efer::LMA | efer::LME,
        ..ControlRegisters::default()
    };
    AddressSpace {
        control,
        alignment_check: false,
        features: FEATURES,
        page_directory_pointers: None,
    }
}

fn one_page() -> Sparse {
    let memory = Sparse::default();
    for table in 1..=4 {
        memory.store(table * 0x1000, 8, ((table + 1) * 0x1000) | PRESENT | WRITE);
    }
    memory
}

#[test]
fn without_paging_addresses_stay_and_wrap_at_4_gib() {
    let mut space = long(0);
    space.control = ControlRegisters::default();
    let address = GuestVirtAddr::new(0x1_2345_6789);
    let found = translate(&Sparse::default(), &space, address, WRITE_ACCESS).unwrap();
    assert_eq!(found.address, GuestPhysAddr::new(0x2345_6789));
    assert_eq!(found.page_size, PageSize::Size4K);
}

#[test]
fn refuses_what_it_cannot_walk() {
    let walk = |space, address| {
        translate(&one_page(), &space, GuestVirtAddr::new(address), WRITE_ACCESS).map(drop)
    };
    assert_eq!(walk(long(cr4::LA57), 0), Err(TranslateError::UnsupportedMode));
    assert_eq!(walk(long(cr4::PKE), 0), Err(TranslateError::UnsupportedMode));
    assert_eq!(walk(long(0), 1 << 47), Err(TranslateError::NonCanonical));
    assert_eq!(walk(long(0), 0), Ok(()));
}

#[test]
fn tables_where_no_memory_is_read_as_all_ones() {
    let mut space = long(0);
    space.control.cr3 = 0x7777_0000;
    let reserved = page_fault::PRESENT | page_fault::RESERVED | page_fault::WRITE;
    let found = translate(&one_page(), &space, GuestVirtAddr::new(0), WRITE_ACCESS);
    assert_eq!(found, Err(TranslateError::PageFault(reserved)));
    // In 32-bit paging nothing is reserved, and the walk ends at the top of memory.
    space.control.efer = 0;
    space.control.cr4 = 0;
    let found = translate(&one_page(), &space, GuestVirtAddr::new(0x123), WRITE_ACCESS).unwrap();
    assert_eq!(found.address, GuestPhysAddr::new(0xFFFF_F123));
}

#[test]
fn tables_in_rom_are_used_without_update() {
    let memory = Sparse { read_only: true, ..one_page() };
    let found = translate(&memory, &long(0), GuestVirtAddr::new(0x10), WRITE_ACCESS).unwrap();
    assert_eq!(found.address, GuestPhysAddr::new(0x5010));
    assert_eq!(memory.load(0x4000, 8), Some(0x5000 | PRESENT | WRITE));
}

#[test]
fn an_entry_that_changes_during_the_walk_is_read_again() {
    let memory = one_page();
    memory.races.set(1);
    let found = translate(&memory, &long(0), GuestVirtAddr::new(0), WRITE_ACCESS);
    assert_eq!(found, Err(TranslateError::PageFault(page_fault::WRITE)));
}

#[test]
fn reads_leave_the_dirty_bit_and_say_so() {
    let memory = one_page();
    let read = Access { kind: AccessKind::Read, privilege: Privilege::Supervisor };
    let found = translate(&memory, &long(0), GuestVirtAddr::new(0), read).unwrap();
    assert!(!found.dirty);
    assert_eq!(memory.load(0x4000, 8), Some(0x5000 | PRESENT | WRITE | ACCESSED));
    let found = translate(&memory, &long(0), GuestVirtAddr::new(0), WRITE_ACCESS).unwrap();
    assert!(found.dirty);
    assert_eq!(memory.load(0x4000, 8), Some(0x5000 | PRESENT | WRITE | ACCESSED | DIRTY));
}
