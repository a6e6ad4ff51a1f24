// SPDX-License-Identifier: MIT OR Apache-2.0
//! Repetition: bounds, faults, single steps, address sizes.

use super::machine::{CODE, DATA, DEVICE, Event, Machine};
use crate::access::AccessWidth::Dword;
use crate::emulate::Outcome;
use crate::state::{Exception, Gpr, rflags};

const DONE: Outcome = Outcome::Done { debug_trap: false };
const REPEAT: Outcome = Outcome::Repeat { debug_trap: false };

#[test]
fn a_long_repetition_pauses_and_goes_on() {
    // rep stosd into the device, 1500 elements: 1024, then the rest.
    let mut machine = Machine::long(&[0xF3, 0xAB])
        .set(Gpr::Rcx, 1500)
        .set(Gpr::Rdi, DEVICE)
        .set(Gpr::Rax, 0x1_2345_6789);
    machine.bus.map(DEVICE + 0x1000, DEVICE + 0x1000, 7);
    assert_eq!(machine.run(), REPEAT);
    assert_eq!((machine.get(Gpr::Rcx), machine.get(Gpr::Rdi)), (476, DEVICE + 0x1000));
    assert_eq!(machine.cpu.rip, CODE);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.get(Gpr::Rcx), machine.cpu.rip), (0, CODE + 2));
    assert_eq!(machine.bus.log.len(), 1500);
    assert_eq!(machine.bus.log[1499], Event::Write(DEVICE + 1499 * 4, Dword, 0x2345_6789));
}

/// A page full of line feeds for a console that is a log would keep the vCPU for seconds.
#[test]
fn ports_are_accessed_a_few_times_only() {
    for (opcode, size) in [(0x6C, 1), (0x6D, 4), (0x6E, 1), (0x6F, 4)] {
        let mut machine = Machine::long(&[0xF3, opcode])
            .set(Gpr::Rcx, 100)
            .set(Gpr::Rsi, DATA)
            .set(Gpr::Rdi, DATA)
            .set(Gpr::Rdx, 0x3F8);
        let pointer = if opcode < 0x6E { Gpr::Rdi } else { Gpr::Rsi };
        assert_eq!(machine.run(), REPEAT);
        let state = |machine: &Machine| [Gpr::Rcx, pointer].map(|register| machine.get(register));
        assert_eq!((state(&machine), machine.cpu.rip), ([36, DATA + 64 * size], CODE));
        assert_eq!(machine.run(), DONE);
        assert_eq!((state(&machine), machine.cpu.rip), ([0, DATA + 100 * size], CODE + 2));
    }
}

#[test]
fn a_fault_leaves_the_completed_iterations() {
    // rep movsb that runs off the mapped pages after 3 bytes.
    let end = DATA + 0x2000;
    let mut machine =
        Machine::long(&[0xF3, 0xA4]).set(Gpr::Rcx, 8).set(Gpr::Rsi, DATA).set(Gpr::Rdi, end - 3);
    machine.bus.store(DATA, 4, 0x4433_2211);
    assert_eq!(machine.run(), Outcome::Fault(Exception::page_fault(end, 2)));
    assert_eq!(machine.bus.load(end - 3, 3), 0x33_2211);
    let pointers = [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi].map(|register| machine.get(register));
    assert_eq!(pointers, [5, DATA + 3, end]);
    assert_eq!(machine.cpu.rip, CODE);
}

#[test]
fn flags_of_a_faulting_scan_are_those_before_it() {
    // repne scasb over mapped zeros looking for 1.
    let end = DATA + 0x2000;
    let mut machine =
        Machine::long(&[0xF2, 0xAE]).set(Gpr::Rcx, 8).set(Gpr::Rdi, end - 2).set(Gpr::Rax, 1);
    let flags = machine.cpu.rflags;
    assert_eq!(machine.run(), Outcome::Fault(Exception::page_fault(end, 0)));
    assert_eq!(machine.cpu.rflags, flags);
    assert_eq!(machine.get(Gpr::Rcx), 6);
}

#[test]
fn single_step_stops_after_each_iteration() {
    let mut machine =
        Machine::long(&[0xF3, 0xAA]).set(Gpr::Rcx, 2).set(Gpr::Rdi, DATA).set(Gpr::Rax, 9);
    machine.cpu.rflags |= rflags::TF;
    assert_eq!(machine.run(), Outcome::Repeat { debug_trap: true });
    assert_eq!((machine.get(Gpr::Rcx), machine.cpu.rip), (1, CODE));
    assert_eq!(machine.run(), Outcome::Done { debug_trap: true });
    assert_eq!((machine.get(Gpr::Rcx), machine.cpu.rip), (0, CODE + 2));
}

#[test]
fn a_count_of_zero_does_nothing() {
    // a32 rep stosb with ECX = 0 and an address that would fault.
    let mut machine =
        Machine::long(&[0x67, 0xF3, 0xAA]).set(Gpr::Rcx, 0x1_0000_0000).set(Gpr::Rdi, 0x9000);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rcx), 0x1_0000_0000);
}

#[test]
fn sixteen_bit_pointers_wrap() {
    // rep stosb in real mode across offset 0xFFFF; the upper halves stay.
    let mut machine = Machine::real(&[0xF3, 0xAA])
        .set(Gpr::Rcx, 0xABCD_0002)
        .set(Gpr::Rdi, 0x1234_FFFF)
        .set(Gpr::Rax, 0x77);
    machine.bus.add(0xF000);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.get(Gpr::Rdi), 0x1234_0001);
    assert_eq!(machine.get(Gpr::Rcx), 0xABCD_0000);
    assert_eq!((machine.bus.load(0xFFFF, 1), machine.bus.load(0, 1)), (0x77, 0x77));
}

#[test]
fn elements_may_cross_pages_going_down() {
    // std; rep movsq across the page boundary at both ends.
    let mut machine = Machine::long(&[0xF3, 0x48, 0xA5])
        .set(Gpr::Rcx, 4)
        .set(Gpr::Rsi, DATA + 0x1009)
        .set(Gpr::Rdi, DATA + 0x1103);
    machine.cpu.rflags |= rflags::DF;
    let bytes: Vec<u8> = (0..32).collect();
    machine.bus.store_bytes(DATA + 0x1009 - 24, &bytes);
    assert_eq!(machine.run(), DONE);
    let copied = (0..32).map(|i| machine.bus.load(DATA + 0x1103 - 24 + i, 1) as u8);
    assert_eq!(copied.collect::<Vec<u8>>(), bytes);
}
