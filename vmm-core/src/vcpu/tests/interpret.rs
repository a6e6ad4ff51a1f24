// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest in real mode on a CPU that executes protected mode only.

use std::time::Duration;

use super::hardware::Registers;
use super::machine::{CODE, Machine, machine};
use crate::{
    EndReason, Exit,
    state::{ControlRegisters, DescriptorTable, Gpr, Segment, SegmentAttributes, cr0},
};

const STACK: u64 = 0x2000;
const HANDLER: u64 = 0x1100;
const INVALID_OPCODE: u64 = 6;

/// `ud2`, `hlt`, and a jump to itself.
const UD2: &[u8] = &[0x0F, 0x0B];
const HLT: &[u8] = &[0xF4];
const SPIN: &[u8] = &[0xEB, 0xFE];
/// `mov cx, 0x1234`; `mov eax, cr0`; `or al, 1`; `mov cr0, eax`.
const TO_PROTECTED_MODE: &[u8] =
    &[0xB9, 0x34, 0x12, 0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0];
const TO_PROTECTED_MODE_INSTRUCTIONS: u64 = 4;

/// A VM in real mode at [`CODE`], with all segments at address zero.
fn real_mode(code: &[u8]) -> Machine {
    let mut machine = machine();
    machine.poke(CODE, code);
    let is_real = |registers: &Registers| registers.control.cr0 & cr0::PE == 0;
    machine.vcpu().hardware.cannot_enter = is_real;
    let registers = machine.registers();
    let attributes =
        SegmentAttributes::new().with_kind(3).with_code_or_data(true).with_present(true);
    registers.segments[..6].fill(Segment { selector: 0, limit: 0xFFFF, base: 0, attributes });
    registers.control = ControlRegisters { cr0: cr0::ET, ..ControlRegisters::default() };
    registers.idtr = DescriptorTable { base: 0, limit: 0x3FF };
    registers.set_gpr(Gpr::Rsp, STACK);
    machine
}

/// Puts `code` where the exception leads to.
fn handle_invalid_opcode(machine: &Machine, code: &[u8]) {
    machine.poke(INVALID_OPCODE * 4, &(HANDLER as u32).to_le_bytes());
    machine.poke(HANDLER, code);
}

#[test]
fn instructions_are_interpreted_until_the_cpu_can_enter() {
    let mut machine = real_mode(TO_PROTECTED_MODE);
    let end = machine.run(Box::new(|registers, _| {
        assert_eq!(registers.gpr(Gpr::Rcx), 0x1234);
        assert_eq!(registers.rip, CODE + TO_PROTECTED_MODE.len() as u64);
        Exit::Shutdown
    }));
    assert!(matches!(end, EndReason::TripleFault { .. }), "{end:?}");
    assert_eq!(machine.vcpu().statistics().interpreted, TO_PROTECTED_MODE_INSTRUCTIONS);
}

#[test]
fn exceptions_go_through_the_interrupt_table() {
    let mut machine = real_mode(UD2);
    handle_invalid_opcode(&machine, TO_PROTECTED_MODE);
    machine.run(Box::new(|registers, event| {
        assert_eq!(event, None, "delivered already");
        assert_eq!(registers.rip, HANDLER + TO_PROTECTED_MODE.len() as u64);
        assert_eq!(registers.gpr(Gpr::Rsp), STACK - 6);
        Exit::Shutdown
    }));
    let mut frame = [0; 6];
    machine.vm.memory().read(crate::GuestPhysAddr::new(STACK - 6), &mut frame).unwrap();
    assert_eq!(frame[..4], (CODE as u32).to_le_bytes(), "the address of the instruction");
}

#[test]
fn without_an_interrupt_table_an_exception_shuts_down() {
    let mut machine = real_mode(UD2);
    machine.registers().idtr.limit = 0;
    let end = machine.run(Box::new(|_, _| unreachable!("it cannot be entered")));
    assert_eq!(end, EndReason::TripleFault { vcpu: 0, rip: CODE });
}

#[test]
fn a_halt_that_nothing_can_end_ends_the_vm() {
    let mut machine = real_mode(HLT);
    let end = machine.run(Box::new(|_, _| unreachable!("it cannot be entered")));
    assert_eq!(end, EndReason::Halted);
    assert_eq!(machine.registers().rip, CODE + 1);
}

#[test]
fn an_endless_loop_is_left_when_the_vm_ends() {
    let mut machine = real_mode(SPIN);
    let control = machine.vm.control().clone();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        control.end(EndReason::Stopped("enough"));
    });
    let end = machine.run(Box::new(|_, _| unreachable!("it cannot be entered")));
    other.join().unwrap();
    assert_eq!(end, EndReason::Stopped("enough"));
    assert!(machine.vcpu().statistics().interpreted > 0);
}
