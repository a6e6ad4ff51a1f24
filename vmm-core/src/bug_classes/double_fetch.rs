// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is checked is what is used, though another CPU changes it in between: nothing is fetched
//! twice, or the second fetch cannot do harm.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;

use crate::{
    GuestPhysAddr, GuestVirtAddr,
    emulate::{
        Outcome, emulate,
        tests::{
            machine::{DATA, Machine, TestBus, TestCpu, code, flat},
            race::Race,
        },
    },
    paging::walk::{
        Access, AccessKind, AddressSpace, BusError, PagingFeatures, PhysicalMemory, Privilege,
        TranslateError, translate,
    },
    state::{
        ControlRegisters, DescriptorTable, Gpr, Segment, SegmentAttributes, SegmentRegister, cr0,
        cr4, efer,
    },
};

const DONE: Outcome = Outcome::Done { debug_trap: false };

/// Executes the instruction of `machine` while the bytes in `raced` change.
fn run(machine: Machine, raced: Range<u64>) -> (Outcome, TestCpu, TestBus) {
    race(machine, raced, false)
}

fn race(machine: Machine, raced: Range<u64>, always: bool) -> (Outcome, TestCpu, TestBus) {
    let Machine { mut cpu, mut bus } = machine;
    bus.race = RefCell::new(Race { range: raced, always, ..Race::default() });
    let outcome = emulate(&mut cpu, &mut bus, None);
    (outcome, cpu, bus)
}

#[test]
fn an_instruction_is_executed_as_it_was_decoded() {
    // mov [rbx], eax; complemented it would be another.
    let machine = Machine::long(&[0x89, 0x03]).set(Gpr::Rbx, DATA).set(Gpr::Rax, 0x1234);
    let rip = machine.cpu.rip;
    let (outcome, cpu, bus) = run(machine, rip..rip + 15);
    assert_eq!((outcome, cpu.rip, bus.race.borrow().most_reads()), (DONE, rip + 2, 1));
    assert_eq!(bus.load(DATA, 4), 0x1234);
}

#[test]
fn an_instruction_across_pages_has_each_byte_fetched_once() {
    let mut machine = Machine::long(&[]).set(Gpr::Rbx, DATA);
    machine.bus.store_bytes(DATA + 0xFFD, &[0xC7, 0x03, 0x78, 0x56, 0x34, 0x12]);
    machine.cpu.rip = DATA + 0xFFD;
    let (outcome, _, bus) = run(machine, DATA + 0xFFD..DATA + 0x1003);
    assert_eq!((outcome, bus.race.borrow().most_reads()), (DONE, 1));
    assert_eq!(bus.load(DATA, 4), 0x1234_5678);
}

#[test]
fn operands_in_memory_are_read_once() {
    // lgdt [rbx]; push [rbx]; jmp [rbx]; cmp [rbx], rax; lss eax, [rbx] is below.
    let codes: [&[u8]; 4] =
        [&[0x0F, 0x01, 0x13], &[0xFF, 0x33], &[0xFF, 0x23], &[0x48, 0x39, 0x03]];
    for code in codes {
        let machine = Machine::long(code).set(Gpr::Rbx, DATA).set(Gpr::Rsp, DATA + 0x800);
        machine.bus.store_bytes(DATA, &[0x2F, 0x00, 0x00, 0x10, 0, 0, 0, 0, 0, 0]);
        let (outcome, cpu, bus) = run(machine, DATA..DATA + 16);
        assert_eq!((outcome, bus.race.borrow().most_reads()), (DONE, 1), "{code:02x?}");
        match code {
            [0x0F, ..] => assert_eq!(cpu.gdtr, DescriptorTable { base: 0x1000, limit: 0x2F }),
            [0xFF, 0x33] => assert_eq!(bus.load(DATA + 0x7F8, 8), 0x1000_002F),
            [0xFF, 0x23] => assert_eq!(cpu.rip, 0x1000_002F),
            _ => {}
        }
    }
}

/// A descriptor of 32-bit data that was not accessed yet; its complement is not present.
const DESCRIPTOR: u64 = 0x00CF_9200_0000_FFFF;
const TABLE: u64 = DATA + 0x1000;

fn with_descriptor(code: &[u8]) -> Machine {
    let mut machine = Machine::protected(code).set(Gpr::Rax, 8).set(Gpr::Rbx, DATA);
    machine.cpu.gdtr = DescriptorTable { base: TABLE, limit: 0xF };
    machine.bus.store(TABLE + 8, 8, DESCRIPTOR);
    machine
}

#[test]
fn a_segment_is_loaded_from_the_descriptor_that_was_checked() {
    // mov es, ax.
    let (outcome, cpu, bus) = run(with_descriptor(&[0x8E, 0xC0]), TABLE + 8..TABLE + 16);
    assert_eq!(outcome, DONE);
    let es = cpu.segments[SegmentRegister::Es as usize];
    assert_eq!((es.base, es.limit, es.attributes.dpl()), (0, u32::MAX, 0));
    assert!(es.attributes.present());
    // Marking it accessed reads the byte with the type again, and sets that bit alone.
    assert_eq!(bus.load(TABLE + 13, 1), !0x92 & 0xFF | 1);
    let race = bus.race.borrow();
    assert!(race.reads.iter().all(|(at, count)| *count <= 1 + u32::from(*at == TABLE + 13)));
}

#[test]
fn a_descriptor_that_never_stays_the_same_is_tried_again_and_not_loaded() {
    let machine = with_descriptor(&[0x8E, 0xC0]);
    let before = machine.cpu.clone();
    let (outcome, cpu, bus) = race(machine, TABLE + 8..TABLE + 16, true);
    assert_eq!((outcome, cpu), (Outcome::Repeat { debug_trap: false }, before));
    assert!(bus.race.borrow().most_reads() <= 65, "{}", bus.race.borrow().most_reads());
}

#[test]
fn a_call_that_is_tried_again_has_pushed_nothing() {
    const CODE_32: u64 = 0x00CF_9A00_0000_FFFF;
    // callf 8:0x1234; int 0x20, through a gate there.
    for code in [&[0x9A, 0x34, 0x12, 0, 0, 8, 0][..], &[0xCD, 0x20]] {
        let mut machine = with_descriptor(code).set(Gpr::Rsp, DATA + 0x800);
        machine.bus.store(TABLE + 8, 8, CODE_32);
        machine.cpu.idtr = DescriptorTable { base: DATA, limit: 0x107 };
        machine.bus.store(DATA + 0x100, 8, 0x0000_8E00_0008_1234);
        let before = machine.cpu.clone();
        let (outcome, cpu, bus) = race(machine, TABLE + 8..TABLE + 16, true);
        assert_eq!((outcome, cpu), (Outcome::Repeat { debug_trap: false }, before), "{code:02x?}");
        assert_eq!(bus.load(DATA + 0x7F8, 8), 0);
    }
}

#[test]
fn a_far_pointer_is_read_once() {
    // lss ecx, [ebx].
    let machine = with_descriptor(&[0x0F, 0xB2, 0x0B]);
    machine.bus.store_bytes(DATA, &[0x78, 0x56, 0x34, 0x12, 0x08, 0x00]);
    let (outcome, cpu, bus) = run(machine, DATA..DATA + 6);
    assert_eq!((outcome, bus.race.borrow().most_reads()), (DONE, 1));
    assert_eq!(cpu.gprs[Gpr::Rcx as usize], 0x1234_5678);
    assert_eq!(cpu.segments[SegmentRegister::Ss as usize].selector, 8);
}

#[test]
fn a_port_is_allowed_by_the_map_whose_place_was_checked() {
    // in al, 0x60 at privilege level 3. The map lies at 104; were its place read twice, the
    // second look would lead beyond the limit, or to ones.
    let mut machine = Machine::protected(&[0xE4, 0x60]);
    machine.cpu.cpl = 3;
    let attributes = SegmentAttributes::new().with_kind(11).with_present(true);
    *machine.cpu.segment_mut(SegmentRegister::Tr) =
        Segment { selector: 0x28, limit: 0x2067, base: DATA - 0x1000, attributes };
    *machine.cpu.segment_mut(SegmentRegister::Cs) = flat(code().with_dpl(3));
    let task = DATA - 0x1000;
    machine.bus.store(task + 102, 2, 104);
    let map = task + 104 + 0x60 / 8;
    machine.bus.store(map, 2, 0);
    let raced = task + 102..map + 2;
    machine.cpu.rip = DATA;
    machine.bus.store_bytes(DATA, &[0xE4, 0x60]);
    let (outcome, _, bus) = run(machine, raced);
    assert_eq!((outcome, bus.race.borrow().most_reads()), (DONE, 1));
}

/// Page tables whose entries change as soon as they were read: to another page, and back.
struct Alternating {
    reads: Cell<u32>,
    entries: RefCell<HashMap<u64, u64>>,
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Bits by which an entry differs from one read to the next: its frame, and its rights.
const CHANGE: u64 = 0x80_0000 | WRITABLE | USER;

impl Alternating {
    /// One page, mapped at address zero by entries with `flags`.
    fn one_page(flags: u64) -> Self {
        let entries = (1..=4).map(|table| (table * 0x1000, ((table + 1) * 0x1000) | flags));
        // The other tables lead to the same page by entries that change in the same way.
        let others =
            (2..=4).map(|table| ((table * 0x1000) | 0x80_0000, ((table + 1) * 0x1000) | flags));
        let entries = entries.chain(others).collect();
        Self { reads: Cell::new(0), entries: RefCell::new(entries) }
    }
}

impl PhysicalMemory for Alternating {
    fn read_u32(&self, _: GuestPhysAddr) -> Result<u32, BusError> {
        Err(BusError)
    }
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        self.reads.set(self.reads.get() + 1);
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&address.as_u64()).ok_or(BusError)?;
        let value = *entry;
        *entry ^= CHANGE;
        Ok(value)
    }
    fn compare_exchange_u32(&self, _: GuestPhysAddr, _: u32, _: u32) -> Result<bool, BusError> {
        Err(BusError)
    }
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&address.as_u64()).ok_or(BusError)?;
        let same = *entry == expected;
        if same {
            *entry = new;
        }
        Ok(same)
    }
}

fn long_mode() -> AddressSpace {
    AddressSpace {
        control: ControlRegisters {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: 0x1000,
            cr4: cr4::PAE,
            efer: efer::LMA | efer::LME,
            ..ControlRegisters::default()
        },
        alignment_check: false,
        features: PagingFeatures {
            physical_address_bits: 48,
            gigabyte_pages: true,
            table_global_reserved: false,
        },
        page_directory_pointers: None,
    }
}

const WRITE: Access = Access { kind: AccessKind::Write, privilege: Privilege::User };

#[test]
fn a_walk_reads_each_entry_once_and_uses_what_it_checked() {
    let flags = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
    let memory = Alternating::one_page(flags);
    let found = translate(&memory, &long_mode(), GuestVirtAddr::new(0x123), WRITE).unwrap();
    assert_eq!(found.address, GuestPhysAddr::new(0x5123));
    assert_eq!(memory.reads.get(), 4);
}

#[test]
fn a_walk_marks_no_entry_that_changed_and_gives_up_in_the_end() {
    let flags = PRESENT | WRITABLE | USER;
    let memory = Alternating::one_page(flags);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(translate(&memory, &long_mode(), GuestVirtAddr::new(0), WRITE).map(drop));
    }
    assert!(memory.reads.get() <= 4 * 4 * 32, "{} reads", memory.reads.get());
    let marked = memory.entries.borrow().values().any(|entry| entry & (ACCESSED | DIRTY) != 0);
    assert!(!marked, "only an entry that is as it was checked is marked");
    let allowed = |outcome: &Result<(), TranslateError>| {
        matches!(outcome, Err(TranslateError::Contended | TranslateError::PageFault(_)))
    };
    assert!(outcomes.iter().all(allowed), "{outcomes:?}");
}
