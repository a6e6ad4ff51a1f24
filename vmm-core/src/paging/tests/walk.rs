// SPDX-License-Identifier: MIT OR Apache-2.0
//! Corners of the page walker.

use super::memory::Sparse;
use crate::paging::walk::{
    Access, AccessKind, AddressSpace, PageSize, PagingFeatures, Privilege, TranslateError,
    page_fault, translate,
};
use crate::state::{ControlRegisters, cr0, cr4, efer};
use crate::{GuestPhysAddr, GuestVirtAddr};

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

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
    let memory = Sparse { rom: 0..0x10000, ..one_page() };
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
