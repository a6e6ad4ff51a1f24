// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to guest-physical addresses that are not memory.

use std::sync::Arc;

use super::{
    devices::{PATTERN, Recorder},
    hardware::script,
    machine::{CODE, HIGH, Machine, machine_with},
};
use crate::{
    AccessWidth, EndReason, Event, Exit, GuestPhysAddr, NestedPageFault, Vector,
    state::{Exception, Gpr, SegmentRegister, cr4, rflags},
    statistics::{ExitReason, Unclaimed},
};

const DEVICE: u64 = 0xE000_0000;
const LOCAL_APIC: u64 = 0xFEE0_0000;
const NOWHERE: u64 = 0xD000_0000;

fn machine() -> (Machine, Arc<Recorder>) {
    let device = Arc::<Recorder>::default();
    let at = GuestPhysAddr::new(DEVICE);
    let machine = machine_with(1, |b| b.claim_mmio(at, 0x1000, device.clone()).unwrap());
    (machine, device)
}

fn fault(address: u64, is_write: bool) -> NestedPageFault {
    let address = GuestPhysAddr::new(address);
    NestedPageFault { address, is_write, is_fetch: false, in_page_walk: false }
}

/// Executes `code` with RBX at `address`.
fn execute(machine: &mut Machine, code: &[u8], address: u64) -> Result<(), Exception> {
    machine.poke(CODE, code);
    machine.registers().rip = CODE;
    machine.set_gpr(Gpr::Rbx, address);
    machine.vcpu().handle(Exit::NestedPageFault(fault(address, true)))
}

/// `mov [ebx], eax` and `mov eax, [ebx]`.
const STORE: &[u8] = &[0x89, 0x03];
const LOAD: &[u8] = &[0x8B, 0x03];

#[test]
fn devices_are_reached_through_the_emulator() {
    let (mut machine, device) = machine();
    machine.set_gpr(Gpr::Rax, 0x1234_5678);
    execute(&mut machine, STORE, DEVICE + 0x10).unwrap();
    assert_eq!(device.take(), [(0x10, AccessWidth::Dword, 0x1234_5678)]);
    assert_eq!(machine.registers().rip, CODE + 2);
    execute(&mut machine, LOAD, DEVICE).unwrap();
    assert_eq!(machine.gpr(Gpr::Rax), PATTERN & 0xFFFF_FFFF);
}

#[test]
fn a_simple_move_in_64_bit_code_needs_no_walk_to_its_operand() {
    // Mapped by nothing: the full emulator finds a page fault there.
    const OPERAND: u64 = HIGH + (1 << 30) + 0x10;
    let (mut machine, device) = machine();
    machine.enter_long_mode();
    machine.poke(CODE, STORE);
    machine.set_gpr(Gpr::Rax, 0x1234_5678);
    machine.set_gpr(Gpr::Rbx, OPERAND);
    let tried = |address| Exit::NestedPageFault(fault(address, true));
    machine.vcpu().handle(tried(DEVICE + 0x10)).unwrap();
    assert_eq!(device.take(), [(0x10, AccessWidth::Dword, 0x1234_5678)]);
    assert_eq!(machine.registers().rip, HIGH + CODE + 2);

    // What was tried is at another place in its page.
    machine.registers().rip = HIGH + CODE;
    let exception = machine.vcpu().handle(tried(DEVICE + 0x20)).unwrap_err();
    assert_eq!(exception.fault_address, Some(OPERAND));
    // The code is of 32 bits, and not mapped at so low an address.
    let code = machine.registers().segment_mut(SegmentRegister::Cs);
    code.attributes = code.attributes.with_long(false).with_default_big(true);
    machine.registers().rip = CODE;
    let exception = machine.vcpu().handle(tried(DEVICE + 0x10)).unwrap_err();
    assert_eq!(exception.fault_address, Some(CODE));
    assert!(device.take().is_empty());
    assert_eq!(machine.ended(), None);

    // The tables have another level than those of any processor model here.
    let registers = machine.registers();
    let code = registers.segment_mut(SegmentRegister::Cs);
    code.attributes = code.attributes.with_long(true).with_default_big(false);
    registers.control.cr4 |= cr4::LA57;
    registers.rip = HIGH + CODE;
    machine.vcpu().handle(tried(DEVICE + 0x10)).unwrap();
    assert!(matches!(machine.ended(), Some(EndReason::EmulationFailure { .. })));
    assert!(device.take().is_empty());
}

#[test]
fn reported_bytes_take_the_place_of_fetched_ones() {
    let (mut machine, device) = machine();
    machine.registers().instruction_bytes = Some(vec![0x88, 0x03, 0x90]);
    machine.set_gpr(Gpr::Rax, 0xAB);
    execute(&mut machine, STORE, DEVICE).unwrap();
    assert_eq!(device.take(), [(0, AccessWidth::Byte, 0xAB)]);
}

#[test]
fn the_local_apic_answers_on_its_page() {
    const ID: u64 = 0x20;
    const TPR: u64 = 0x80;
    let (mut machine, _) = machine();
    machine.set_gpr(Gpr::Rax, 0x50);
    execute(&mut machine, STORE, LOCAL_APIC + TPR).unwrap();
    assert_eq!(machine.vcpu().apic.cr8(), 5);
    execute(&mut machine, LOAD, LOCAL_APIC + TPR).unwrap();
    assert_eq!(machine.gpr(Gpr::Rax), 0x50);
    execute(&mut machine, LOAD, LOCAL_APIC + ID).unwrap();
    assert_eq!(machine.gpr(Gpr::Rax), 0);
    assert_eq!(machine.unclaimed(Unclaimed::MemoryRead), 0);
}

#[test]
fn where_nobody_answers_reads_are_all_ones_and_both_are_counted() {
    let (mut machine, _) = machine();
    for address in [NOWHERE, DEVICE + 8, u64::from(u32::MAX) - 3] {
        execute(&mut machine, LOAD, address).unwrap();
        assert_eq!(machine.gpr(Gpr::Rax), 0xFFFF_FFFF);
        execute(&mut machine, STORE, address).unwrap();
    }
    assert_eq!(machine.unclaimed(Unclaimed::MemoryRead), 3);
    assert_eq!(machine.unclaimed(Unclaimed::MemoryWrite), 3);
}

#[test]
fn emulation_ends_the_shadow_and_is_a_single_step() {
    let (mut machine, _) = machine();
    machine.registers().in_shadow = true;
    machine.registers().rflags |= rflags::TF;
    assert_eq!(execute(&mut machine, LOAD, DEVICE), Err(Exception::DEBUG));
    assert!(!machine.registers().in_shadow);
    assert_eq!(machine.registers().dr6, 1 << 14);
}

#[test]
fn a_fetch_from_nowhere_is_no_instruction() {
    let (mut machine, _) = machine();
    let fetch = NestedPageFault { is_fetch: true, ..fault(NOWHERE, false) };
    machine.registers().rip = NOWHERE;
    machine.run(script([Exit::NestedPageFault(fetch)]));
    let undefined = Event::Exception(Exception::INVALID_OPCODE);
    assert_eq!(machine.registers().delivered, [undefined]);
    assert_eq!(machine.exits(ExitReason::Mmio), 1);
}

#[test]
fn what_cannot_be_emulated_ends_the_vm_with_the_instruction() {
    let (mut machine, _) = machine();
    // movaps [ebx], xmm0
    execute(&mut machine, &[0x0F, 0x29, 0x03], DEVICE).unwrap();
    let Some(EndReason::EmulationFailure { vcpu: 0, rip: CODE, why }) = machine.ended() else {
        panic!("{:?}", machine.ended());
    };
    assert!(why.contains("0f 29 03"), "{why}");
}

/// An exit whose delivery of `event` met a page that is not memory.
fn cut_short(event: Event, in_page_walk: bool) -> EndReason {
    let (mut machine, _) = machine();
    let mut exits = 0;
    machine.run(Box::new(move |registers, _| {
        exits += 1;
        assert_eq!(exits, 1, "the VM ends");
        registers.interrupted = Some(event);
        Exit::NestedPageFault(NestedPageFault { in_page_walk, ..fault(NOWHERE, true) })
    }))
}

#[test]
fn an_event_that_cannot_be_delivered_ends_the_vm() {
    for event in [Event::Interrupt(Vector(0x31)), Event::Exception(Exception::INVALID_OPCODE)] {
        assert!(matches!(cut_short(event, false), EndReason::EmulationFailure { vcpu: 0, .. }));
        assert!(matches!(cut_short(event, true), EndReason::TripleFault { vcpu: 0, .. }));
    }
}
