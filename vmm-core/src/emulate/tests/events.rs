// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delivery of events, and the way back.

use super::far::{CODE_16, CODE_32, DONE, general_protection, protected, to_task};
use super::machine::{CODE, DATA, Machine};
use crate::Event;
use crate::emulate::{Outcome, deliver};
use crate::exit::{Exit, TaskSwitchSource};
use crate::state::{Exception, Gpr, Segment, SegmentRegister, Vector, rflags};

const STACK: u64 = DATA + 0x800;
/// Interrupt table of protected mode.
const IDT: u64 = DATA + 0x1800;
/// Flags that a handler may have to bring back.
const BUSY: u64 = rflags::FIXED | rflags::CF | rflags::IF | rflags::DF | rflags::AC;

/// Real mode with a handler for `vector` at 0x100:0x20.
fn real(code: &[u8], vector: u64) -> Machine {
    let mut machine = Machine::real(code).set(Gpr::Rsp, STACK);
    machine.bus.store(vector * 4, 4, 0x0100_0020);
    machine.cpu.rflags = BUSY;
    machine
}

/// Protected mode with a gate for `vector` to 0x10_0020 of selector 8.
fn with_gate(code: &[u8], vector: u64, kind: u64) -> Machine {
    let mut machine = protected(code, &[CODE_32]);
    machine.cpu.idtr.base = IDT;
    machine.cpu.idtr.limit = 0x7FF;
    machine.bus.store(IDT + vector * 8, 8, 0x0010_0000_0008_0020 | kind << 40);
    machine.cpu.rflags = BUSY;
    machine
}

fn send(machine: &mut Machine, event: Event) -> Outcome {
    deliver(&mut machine.cpu, &mut machine.bus, event)
}

fn words(machine: &Machine, count: u64) -> Vec<u64> {
    let top = machine.get(Gpr::Rsp);
    (0..count).map(|index| machine.bus.load(top + index * 2, 2)).collect()
}

fn doublewords(machine: &Machine, count: u64) -> Vec<u64> {
    let top = machine.get(Gpr::Rsp);
    (0..count).map(|index| machine.bus.load(top + index * 4, 4)).collect()
}

#[test]
fn real_mode_goes_through_its_vectors_and_back() {
    let mut machine = real(&[], 0x40);
    machine.bus.store_bytes(CODE + 0x20, &[0xCF]); // iret
    machine.cpu.nmi_blocked = true;
    assert_eq!(send(&mut machine, Event::Interrupt(Vector(0x40))), DONE);
    assert_eq!((machine.cpu.rip, machine.cpu.segments[1].base), (0x20, CODE));
    assert_eq!(words(&machine, 3), [CODE, 0, BUSY & 0xFFFF]);
    assert_eq!(machine.cpu.rflags, BUSY & !(rflags::IF | rflags::AC));
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE, STACK));
    assert_eq!(machine.cpu.rflags, BUSY & !rflags::AC, "16 bits came back");
    assert!(!machine.cpu.nmi_blocked);
}

#[test]
fn software_interrupts_return_behind_themselves() {
    for (code, vector) in [(&[0xCD, 0x21][..], 0x21), (&[0xCC], 3), (&[0xCE], 4), (&[0xF1], 1)] {
        let mut machine = real(code, vector);
        machine.cpu.rflags |= rflags::OF | rflags::TF;
        assert_eq!(machine.run(), DONE, "the instruction itself is not stepped");
        assert_eq!(words(&machine, 1), [CODE + code.len() as u64]);
        assert_eq!(machine.cpu.rip, 0x20);
        assert_eq!(machine.cpu.rflags & (rflags::TF | rflags::IF), 0);
    }
    let mut machine = real(&[0xCE], 4);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.cpu.rip, CODE + 1, "INTO without overflow");
}

#[test]
fn exceptions_of_real_mode_push_no_error_code() {
    let mut machine = real(&[], 13);
    assert_eq!(send(&mut machine, Event::Exception(Exception::GENERAL_PROTECTION)), DONE);
    assert_eq!(machine.get(Gpr::Rsp), STACK - 6);
    // xor cx, cx would be needed here: div cx by zero, through the emulator.
    let mut machine = real(&[0xF7, 0xF1], 0);
    assert_eq!(machine.run(), Outcome::Fault(Exception::DIVIDE));
    assert_eq!(send(&mut machine, Event::Nmi), DONE);
}

#[test]
fn vectors_beyond_the_table_cannot_be_delivered() {
    let mut machine = real(&[], 0x40);
    machine.cpu.idtr.limit = 0x40 * 4 + 2;
    let fault = Exception { error_code: None, ..Exception::GENERAL_PROTECTION };
    assert_eq!(send(&mut machine, Event::Interrupt(Vector(0x40))), Outcome::Fault(fault));
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (CODE, STACK));
    machine.cpu.idtr.limit += 1;
    assert_eq!(send(&mut machine, Event::Interrupt(Vector(0x40))), DONE);
    // A stack that ends in the middle of the frame.
    let mut machine = real(&[], 0x40).set(Gpr::Rsp, 4);
    machine.cpu.segment_mut(SegmentRegister::Ss).limit = 0x7FFF;
    assert!(matches!(send(&mut machine, Event::Nmi), Outcome::Fault(_)));
    assert_eq!(machine.get(Gpr::Rsp), 4);
}

#[test]
fn gates_of_32_bits_push_doublewords() {
    let mut machine = with_gate(&[], 14, 0x8E);
    let fault = Event::Exception(Exception::page_fault(0x1234, 2));
    assert_eq!(send(&mut machine, fault), DONE);
    assert_eq!(machine.cpu.rip, 0x10_0020);
    let old = machine.cpu.segments[0].selector;
    assert_eq!(doublewords(&machine, 4), [2, CODE, old.into(), BUSY | rflags::RF]);
    assert_eq!(machine.cpu.rflags, BUSY & !rflags::IF);
    // Back: drop the error code, then iretd.
    let rsp = machine.get(Gpr::Rsp) + 4;
    machine.cpu.gprs[Gpr::Rsp as usize] = rsp;
    machine.bus.store(rsp + 4, 4, 8);
    machine.bus.add(0x10_0000);
    machine.bus.store_bytes(0x10_0020, &[0xCF]);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.cpu.rflags), (CODE, BUSY));
}

#[test]
fn trap_gates_leave_interrupts_enabled_and_16_bit_gates_push_words() {
    let mut machine = with_gate(&[0xCC], 3, 0x8F);
    assert_eq!(machine.run(), DONE);
    assert_eq!(machine.cpu.rflags, BUSY);
    assert_eq!(doublewords(&machine, 1), [CODE + 1]);
    let mut machine = with_gate(&[0xCC], 3, 0x86);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (0x20, STACK - 6));
}

#[test]
fn gates_are_checked() {
    let external = |machine: &mut Machine| send(machine, Event::Interrupt(Vector(0x30)));
    let gate_fault = |vector: u8, code| Outcome::Fault(Exception::with_code(vector, code));
    let mut machine = with_gate(&[], 0x30, 0x0E);
    assert_eq!(external(&mut machine), gate_fault(11, 0x30 << 3 | 3), "not present");
    let mut machine = with_gate(&[], 0x30, 0x8C);
    assert_eq!(external(&mut machine), gate_fault(13, 0x30 << 3 | 3), "a call gate");
    let mut machine = with_gate(&[], 0x30, 0x8E);
    machine.cpu.idtr.limit = 0x30 * 8 + 6;
    assert_eq!(external(&mut machine), gate_fault(13, 0x30 << 3 | 3));
    let mut machine = with_gate(&[], 0x30, 0x8E);
    machine.cpu.gdtr.limit = 7;
    assert_eq!(external(&mut machine), gate_fault(13, 8 | 1));
    // INT needs the gate's privilege level; the fault is not an external one.
    let mut machine = with_gate(&[0xCD, 0x30], 0x30, 0x8E);
    machine.cpu.cpl = 3;
    assert_eq!(machine.run(), general_protection(0x30 << 3 | 2));
    let mut machine = with_gate(&[], 0x30, 0x8E);
    machine.cpu.cpl = 3;
    assert!(matches!(external(&mut machine), Outcome::Unsupported(_)), "an inner level");
}

#[test]
fn iret_goes_back_to_code_of_the_same_level() {
    // iret with 16-bit operands, from and to a 16-bit segment.
    let mut machine = protected(&[0xCF], &[CODE_16]);
    let small = machine.cpu.segments[1].attributes.with_default_big(false);
    machine.cpu.segment_mut(SegmentRegister::Cs).attributes = small;
    machine.bus.store(STACK, 8, 0x0000_0202_0008_0050);
    assert_eq!(machine.run(), DONE);
    assert_eq!((machine.cpu.rip, machine.get(Gpr::Rsp)), (0x50, STACK + 6));
    assert_eq!(machine.cpu.rflags, rflags::FIXED | rflags::IF);
    // To user mode, to virtual-8086 mode.
    let mut machine = protected(&[0xCF], &[CODE_32 | 3 << 45]);
    machine.bus.store(STACK, 8, 0x0000_000B_0000_0050);
    assert!(matches!(machine.run(), Outcome::Unsupported(_)));
    let mut machine = protected(&[0xCF], &[CODE_32]);
    machine.bus.store(STACK, 8, 0x0000_0008_0000_0050);
    machine.bus.store(STACK + 8, 4, rflags::VM | rflags::FIXED);
    assert!(matches!(machine.run(), Outcome::Unsupported(_)));
}

#[test]
fn iret_goes_back_to_another_task() {
    let mut machine = protected(&[0xCF], &[CODE_32]);
    machine.cpu.rflags |= rflags::NT;
    machine.cpu.segment_mut(SegmentRegister::Tr).base = DATA + 0x100;
    machine.bus.store(DATA + 0x100, 2, 0x48);
    assert_eq!(machine.run(), to_task(0x48, TaskSwitchSource::Return, 1));
}

#[test]
fn task_gates_hand_the_event_to_the_switch() {
    const GATE: u64 = 0x85;
    let gate = |code: &[u8], vector, kind| {
        let machine = with_gate(code, vector, kind);
        machine.bus.store(IDT + vector * 8 + 2, 2, 0x38);
        machine
    };
    let handed = |machine: &mut Machine, event| match send(machine, event) {
        Outcome::Intercepted { exit: Exit::TaskSwitch(switch), .. } => {
            assert_eq!((switch.selector, switch.source), (0x38, TaskSwitchSource::Gate));
            switch.error_code
        }
        other => panic!("{other:?}"),
    };
    let mut machine = gate(&[], 0x30, GATE);
    assert_eq!(handed(&mut machine, Event::Interrupt(Vector(0x30))), None);
    assert_eq!(machine.cpu.rflags, BUSY);
    let mut machine = gate(&[], 13, GATE);
    let fault = Event::Exception(Exception::with_code(13, 0x18));
    assert_eq!(handed(&mut machine, fault), Some(0x18));
    assert_eq!(machine.cpu.rflags, BUSY | rflags::RF, "a fault");
    // INT needs the gate's privilege level.
    let int = &[0xCD, 0x30];
    let mut machine = gate(int, 0x30, GATE | 3 << 5);
    machine.cpu.cpl = 3;
    assert_eq!(machine.run(), to_task(0x38, TaskSwitchSource::Gate, 2));
    let mut machine = gate(int, 0x30, GATE);
    machine.cpu.cpl = 3;
    assert_eq!(machine.run(), general_protection(0x30 << 3 | 2));
    let mut machine = gate(int, 0x30, GATE & !0x80);
    let fault = Exception::with_code(11, 0x30 << 3 | 2);
    assert_eq!(machine.run(), Outcome::Fault(fault));
}

#[test]
fn virtual_8086_mode_asks_for_its_privilege() {
    for code in [&[0xCD, 0x21][..], &[0xCF], &[0x9C], &[0x9D], &[0xFA], &[0xFB]] {
        let mut machine = Machine::protected(code).set(Gpr::Rsp, STACK);
        machine.cpu.rflags |= rflags::VM | 2 << 12;
        machine.cpu.cpl = 3;
        for segment in &mut machine.cpu.segments {
            *segment = Segment { limit: 0xFFFF, ..Segment::default() };
        }
        assert_eq!(machine.run(), general_protection(0), "{code:02x?}");
    }
}
