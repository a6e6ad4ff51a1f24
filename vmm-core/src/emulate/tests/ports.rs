// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O and its permissions.

use super::machine::{DATA, Event, Machine, flat};
use crate::access::AccessWidth::{Byte, Dword, Word};
use crate::emulate::{Outcome, io_permission};
use crate::state::{Exception, Gpr, Segment, SegmentAttributes, SegmentRegister, rflags};

const DONE: Outcome = Outcome::Done { debug_trap: false };
const DENIED: Outcome = Outcome::Fault(Exception::GENERAL_PROTECTION);
/// Where the TSS lies; its I/O map begins 0x68 bytes on.
const TSS: u64 = DATA + 0x1000;

#[test]
fn in_and_out_of_all_widths() {
    // in al, 0xF0; in ax, dx; in eax, dx: only the last clears the upper half.
    let cases: [(&[u8], Event, u64); 3] = [
        (&[0xE4, 0xF0], Event::In(0xF0, Byte), 0xFFFF_FFFF_FFFF_FF78),
        (&[0x66, 0xED], Event::In(0x3F8, Word), 0xFFFF_FFFF_FFFF_5678),
        (&[0xED], Event::In(0x3F8, Dword), 0x1234_5678),
    ];
    for (code, event, rax) in cases {
        let mut machine = Machine::long(code).set(Gpr::Rax, u64::MAX).set(Gpr::Rdx, 0x1_03F8);
        assert_eq!(machine.run(), DONE);
        assert_eq!((machine.bus.log, machine.cpu.gprs[0]), (vec![event], rax));
    }
    // out 0xF0, al; out dx, eax.
    let cases: [(&[u8], Event); 2] = [
        (&[0xE6, 0xF0], Event::Out(0xF0, Byte, 0x44)),
        (&[0xEF], Event::Out(0x3F8, Dword, 0x1122_3344)),
    ];
    for (code, event) in cases {
        let mut machine = Machine::long(code).set(Gpr::Rax, 0x99_1122_3344).set(Gpr::Rdx, 0x3F8);
        assert_eq!(machine.run(), DONE);
        assert_eq!(machine.bus.log, [event]);
    }
}

#[test]
fn string_output_reads_memory_and_honours_segment_and_direction() {
    // rep outsw with DF; fs: outsb.
    let mut machine = Machine::long(&[0xF3, 0x66, 0x6F])
        .set(Gpr::Rcx, 2)
        .set(Gpr::Rdx, 0x1F0)
        .set(Gpr::Rsi, DATA + 2);
    machine.cpu.rflags |= rflags::DF;
    machine.bus.store(DATA, 4, 0x2222_1111);
    assert_eq!(machine.run(), DONE);
    let events = [Event::Out(0x1F0, Word, 0x2222), Event::Out(0x1F0, Word, 0x1111)];
    assert_eq!(machine.bus.log, events);
    assert_eq!((machine.get(Gpr::Rcx), machine.get(Gpr::Rsi)), (0, DATA - 2));
    let mut machine = Machine::long(&[0x64, 0x6E]).set(Gpr::Rdx, 0x80).set(Gpr::Rsi, 8);
    machine.cpu.segment_mut(SegmentRegister::Fs).base = DATA;
    machine.bus.store(DATA + 8, 1, 0x5A);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.bus.log, [Event::Out(0x80, Byte, 0x5A)]);
}

#[test]
fn string_input_reads_no_port_before_its_memory_is_known_good() {
    // rep insd over the end of the mapped pages: two elements, then #PF.
    let end = DATA + 0x2000;
    let mut machine =
        Machine::long(&[0xF3, 0x6D]).set(Gpr::Rcx, 5).set(Gpr::Rdx, 0x1F0).set(Gpr::Rdi, end - 8);
    assert_eq!(machine.run(), Outcome::Fault(Exception::page_fault(end, 2)));
    assert_eq!(machine.bus.log, [Event::In(0x1F0, Dword); 2]);
    assert_eq!((machine.get(Gpr::Rcx), machine.get(Gpr::Rdi)), (3, end));
    assert_eq!(machine.bus.load(end - 4, 4), 0x1234_5678);
}

#[test]
fn string_input_with_32_bit_addresses_clears_the_upper_halves() {
    // a32 rep insb in 64-bit mode.
    let mut machine = Machine::long(&[0x67, 0xF3, 0x6C])
        .set(Gpr::Rcx, 0x7_0000_0001)
        .set(Gpr::Rdi, 0x5_0000_0000 | DATA);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.get(Gpr::Rcx), machine.get(Gpr::Rdi)), (0, DATA + 1));
    assert_eq!(machine.bus.load(DATA, 1), 0x78);
}

/// CPL 3 with a TSS that permits ports 0x80 to 0x83 only.
fn user() -> Machine {
    let mut machine = Machine::long(&[0xEC]);
    let attributes = SegmentAttributes::new().with_kind(11).with_present(true);
    *machine.cpu.segment_mut(SegmentRegister::Tr) =
        Segment { base: TSS, limit: 0x68 + 0x20, ..flat(attributes) };
    machine.bus.store(TSS + 102, 2, 0x68);
    for byte in 0..0x40 {
        machine.bus.store(TSS + 0x68 + byte, 1, 0xFF);
    }
    machine.bus.store(TSS + 0x68 + 0x80 / 8, 1, 0xF0);
    machine.cpu.cpl = 3;
    machine
}

#[test]
fn the_permission_bitmap_decides_where_iopl_does_not() {
    let cases = [
        (0x80, Byte, true),
        (0x80, Dword, true),
        (0x83, Byte, true),
        (0x83, Word, false),
        (0x81, Dword, false),
        (0x84, Byte, false),
        (0x7F, Word, false),
        // The byte after the one with the port's bit lies beyond the limit.
        (0x100, Byte, false),
        (0xFFFF, Dword, false),
    ];
    for (port, size, allowed) in cases {
        let mut machine = user();
        let answer = io_permission(&mut machine.cpu, &mut machine.bus, port, size);
        assert_eq!(answer, if allowed { Ok(()) } else { Err(DENIED) }, "{port:#x} {size:?}");
        machine.cpu.rflags |= rflags::IOPL;
        let Machine { cpu, bus } = &mut machine;
        assert_eq!(io_permission(cpu, bus, port, size), Ok(()));
    }
}

#[test]
fn denied_instructions_do_not_reach_the_port() {
    // in al, dx; rep outsb.
    for code in [&[0xEC][..], &[0xF3, 0x6E]] {
        let mut machine = user().set(Gpr::Rdx, 0x99).set(Gpr::Rcx, 1).set(Gpr::Rsi, DATA);
        machine.bus.store_bytes(machine.cpu.rip, code);
        assert_eq!(machine.run(), DENIED);
        assert!(machine.bus.log.is_empty());
    }
}

#[test]
fn the_tss_may_be_a_supervisor_page_but_must_be_mapped_and_of_the_right_type() {
    let ask = |mut machine: Machine| io_permission(&mut machine.cpu, &mut machine.bus, 0x80, Byte);
    let mut machine = user();
    machine.bus.map(TSS, TSS, 3);
    assert_eq!(ask(machine), Ok(()));
    let mut machine = user();
    machine.bus.map(TSS, TSS, 0);
    let fault = Outcome::Fault(Exception::page_fault(TSS + 102, 0));
    assert_eq!(ask(machine), Err(fault));
    let mut machine = user();
    let tss = machine.cpu.segment_mut(SegmentRegister::Tr);
    tss.attributes = tss.attributes.with_kind(3);
    assert_eq!(ask(machine), Err(DENIED));
}

#[test]
fn virtual_8086_mode_always_asks_the_bitmap() {
    let mut machine = user();
    machine.cpu.control =
        crate::state::ControlRegisters { cr0: crate::state::cr0::PE, ..Default::default() };
    machine.cpu.rflags |= rflags::VM | rflags::IOPL;
    let Machine { cpu, bus } = &mut machine;
    assert_eq!(io_permission(cpu, bus, 0x80, Byte), Ok(()));
    assert_eq!(io_permission(cpu, bus, 0x90, Byte), Err(DENIED));
}
