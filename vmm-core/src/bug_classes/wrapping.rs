// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lengths, counts and offsets whose sum wraps around the end of an address space or a register.

use std::sync::Arc;

use host_iface::PageRequest;
use host_mock::MockHost;
use proptest::prelude::*;

use crate::{
    AccessWidth, GuestPhysAddr, PAGE_SIZE,
    bus::{Answer, MmioBus, PortBus},
    emulate::{
        Outcome,
        tests::machine::{DATA, Event, Machine},
    },
    memory::{GuestMemory, LiveMemory, MemoryError, OwnedPages},
    pvclock::{SystemClock, write_wall_clock},
    state::{Gpr, SegmentRegister, rflags},
    time::VmClock,
    vcpu::tests::devices::Recorder,
};

/// Two pages at the start of guest-physical space and two at the end of what is memory there.
fn memory() -> (&'static MockHost, GuestMemory) {
    let host = MockHost::leak(1);
    let mut memory = GuestMemory::new();
    for start in [0, TOP] {
        let pages = OwnedPages::zeroed(host, PageRequest::contiguous(2)).unwrap();
        memory.add(GuestPhysAddr::new(start), pages).unwrap();
    }
    (host, memory)
}

/// The last page of guest-physical space stays empty: the end of what lies there would wrap.
const TOP: u64 = 0u64.wrapping_sub(3 * PAGE_SIZE);

#[test]
fn memory_at_the_top_of_the_address_space_has_an_end() {
    let (host, mut memory) = memory();
    let last = GuestPhysAddr::new(TOP + 2 * PAGE_SIZE - 8);
    memory.write_u64(last, 7).unwrap();
    assert_eq!(memory.read_u64(last), Ok(7));
    for (start, bytes) in [(last.as_u64() + 1, 8), (TOP + 2 * PAGE_SIZE, 1), (u64::MAX, 2)] {
        let address = GuestPhysAddr::new(start);
        let error = Err(MemoryError::OutOfRange { address, bytes });
        assert_eq!(memory.read(address, &mut vec![0; bytes]), error);
        assert_eq!(memory.write(address, &vec![0xA5; bytes]), error);
    }
    // What would run on over the end does not come out at address zero.
    let long = vec![0xA5; 5 * PAGE_SIZE as usize];
    assert!(memory.write(GuestPhysAddr::new(TOP), &long).is_err());
    assert_eq!(memory.read_u64(GuestPhysAddr::new(0)), Ok(0));
    let pages = OwnedPages::zeroed(host, PageRequest::contiguous(2)).unwrap();
    let wrapping = GuestPhysAddr::new(u64::MAX - PAGE_SIZE + 1);
    assert_eq!(memory.add(wrapping, pages), Err(MemoryError::Misaligned(wrapping)));
}

proptest! {
    #[test]
    fn no_range_of_memory_reaches_beyond_its_region(
        near in prop::sample::select(vec![0, PAGE_SIZE, 2 * PAGE_SIZE, TOP, TOP + 2 * PAGE_SIZE, u64::MAX]),
        offset in -20_i64..20,
        bytes in 0_usize..40,
    ) {
        let (_, memory) = memory();
        let start = near.wrapping_add_signed(offset);
        let end = u128::from(start) + bytes as u128;
        let inside = [0, TOP].into_iter().any(|region| {
            let region = u128::from(region);
            u128::from(start) >= region && end <= region + 2 * u128::from(PAGE_SIZE)
        });
        let result = memory.read(GuestPhysAddr::new(start), &mut vec![0; bytes]);
        prop_assert_eq!(result.is_ok(), inside || bytes == 0, "{:#x} {}", start, bytes);
    }
}

#[test]
fn a_wide_access_to_the_last_ports_reaches_none_of_the_first() {
    let (first, last) = (Arc::<Recorder>::default(), Arc::<Recorder>::default());
    let mut bus = PortBus::default();
    bus.claim(0..=3, first.clone()).unwrap();
    bus.claim(0xFFFE..=0xFFFF, last.clone()).unwrap();
    assert_eq!(bus.write(0xFFFE, AccessWidth::Dword, 0x4433_2211), Answer::Nobody);
    assert_eq!(last.take(), [(0, AccessWidth::Byte, 0x11), (1, AccessWidth::Byte, 0x22)]);
    assert_eq!(bus.read(0xFFFE, AccessWidth::Dword), (0xFFFF_1111, Answer::Nobody));
    assert_eq!(bus.read(0xFFFF, AccessWidth::Word).1, Answer::Nobody);
    assert_eq!(first.take(), []);
}

#[test]
fn an_access_beyond_the_last_address_reaches_no_device() {
    let (first, last) = (Arc::<Recorder>::default(), Arc::<Recorder>::default());
    let mut bus = MmioBus::default();
    bus.claim(GuestPhysAddr::new(0), 0x1000, first.clone()).unwrap();
    bus.claim(GuestPhysAddr::new(u64::MAX - 0xFFF), 0x1000, last.clone()).unwrap();
    let end = GuestPhysAddr::new(u64::MAX - 3);
    assert_eq!(bus.write(end, AccessWidth::Dword, 1), Answer::Device);
    assert_eq!(last.take(), [(0xFFC, AccessWidth::Dword, 1)]);
    assert_eq!(bus.write(end, AccessWidth::Qword, 1), Answer::Nobody);
    assert_eq!(bus.read(end, AccessWidth::Qword), (u64::MAX, Answer::Nobody));
    assert!(first.take().is_empty() && last.take().is_empty());
}

/// REP STOSB, LODSB, INSB, OUTSB, MOVSB, SCASB and CMPSB.
const REPEATED: [&[u8]; 7] = [
    &[0xF3, 0xAA],
    &[0xF3, 0xAC],
    &[0xF3, 0x6C],
    &[0xF3, 0x6E],
    &[0xF3, 0xA4],
    &[0xF3, 0xAE],
    &[0xF3, 0xA6],
];

#[test]
fn a_count_of_all_ones_ends_after_a_page() {
    for code in REPEATED {
        let mut machine = Machine::long(code)
            .set(Gpr::Rcx, u64::MAX)
            .set(Gpr::Rsi, DATA)
            .set(Gpr::Rdi, DATA)
            .set(Gpr::Rdx, 0x80);
        let outcome = machine.run();
        assert_eq!(outcome, Outcome::Repeat { debug_trap: false }, "{code:02x?}");
        let for_ports = code.last().is_some_and(|opcode| (0x6C..=0x6F).contains(opcode));
        let elements = if for_ports { 64 } else { 0x1000 };
        assert_eq!(machine.get(Gpr::Rcx), u64::MAX - elements, "{code:02x?}");
        assert!(machine.bus.log.len() <= 0x1000);
    }
}

#[test]
fn strings_at_the_end_of_the_address_space_fault_or_wrap_as_the_mode_says() {
    // 64 bits: the first byte beyond the canonical addresses faults.
    let mut machine =
        Machine::long(&[0xF3, 0xAA]).set(Gpr::Rcx, 8).set(Gpr::Rdi, 0x0000_7FFF_FFFF_FFFE);
    assert!(matches!(machine.run(), Outcome::Fault(fault) if fault.fault_address.is_some()));
    for rdi in [0x0000_7FFF_FFFF_FFFF, u64::MAX] {
        let mut machine = Machine::long(&[0xF3, 0xAB]).set(Gpr::Rcx, 2).set(Gpr::Rdi, rdi);
        machine.bus.map(0, 0, 7);
        assert!(matches!(machine.run(), Outcome::Fault(_)), "{rdi:#x}");
        assert_eq!((machine.get(Gpr::Rdi), machine.get(Gpr::Rcx)), (rdi, 2));
    }
    // 16 bits: DI wraps within the segment, and nothing beyond it is written.
    let mut machine = Machine::real(&[0xF3, 0xAA]).set(Gpr::Rax, 0x5A);
    machine.bus.add(0xF000);
    machine = machine.set(Gpr::Rdi, 0xFFFF).set(Gpr::Rcx, 2);
    assert_eq!(machine.run(), Outcome::Done { debug_trap: false });
    assert_eq!((machine.bus.load(0xFFFF, 1), machine.bus.load(0, 1)), (0x5A, 0x5A));
    assert_eq!((machine.get(Gpr::Rdi), machine.get(Gpr::Rcx)), (1, 0));
    // 32-bit addresses in 64-bit code: EDI wraps, and its upper half is not carried into.
    let mut machine = Machine::long(&[0x67, 0xF3, 0x6C]).set(Gpr::Rcx, 2).set(Gpr::Rdx, 0x60);
    machine.bus.add(0xFFFF_F000);
    machine.bus.map(0xFFFF_F000, 0xFFFF_F000, 7);
    machine.bus.map(0, 0, 7);
    machine = machine.set(Gpr::Rdi, 0xFFFF_FFFF);
    assert_eq!(machine.run(), Outcome::Done { debug_trap: false });
    assert_eq!((machine.get(Gpr::Rdi), machine.get(Gpr::Rcx)), (1, 0));
    assert_eq!(machine.bus.log, [Event::In(0x60, AccessWidth::Byte); 2]);
}

#[test]
fn strings_that_go_down_wrap_below_zero() {
    let mut machine = Machine::real(&[0xF3, 0xAA]).set(Gpr::Rax, 0x77);
    machine.bus.add(0xF000);
    machine = machine.set(Gpr::Rdi, 0).set(Gpr::Rcx, 2);
    machine.cpu.rflags |= rflags::DF;
    assert_eq!(machine.run(), Outcome::Done { debug_trap: false });
    assert_eq!((machine.bus.load(0, 1), machine.bus.load(0xFFFF, 1)), (0x77, 0x77));
    assert_eq!(machine.get(Gpr::Rdi), 0xFFFE);
}

#[test]
fn a_segment_whose_base_and_offset_wrap_stays_in_32_bits() {
    let mut machine = Machine::protected(&[0x8B, 0x03]).set(Gpr::Rbx, 0xFFFF_FFF0);
    machine.cpu.segment_mut(SegmentRegister::Ds).base = DATA + 0x10;
    machine.bus.store(DATA, 4, 0x1234_5678);
    assert_eq!(machine.run(), Outcome::Done { debug_trap: false });
    assert_eq!(machine.get(Gpr::Rax), 0x1234_5678);
}

#[test]
fn a_clock_page_at_the_edge_of_memory_harms_nothing() {
    let (host, memory) = memory();
    let live = LiveMemory::new(&memory, None);
    let clock = VmClock::start(host);
    let mut registered = SystemClock::default();
    let edges = [2 * PAGE_SIZE, TOP + 2 * PAGE_SIZE, u64::MAX];
    for address in edges.into_iter().flat_map(|edge| (0..40).map(move |n| edge - n)) {
        registered.set_register(address | 1);
        registered.publish(live, &clock, 0);
        write_wall_clock(live, address, host, &clock);
    }
    assert_eq!(memory.read_u64(GuestPhysAddr::new(0)), Ok(0), "nothing came out at zero");
}
