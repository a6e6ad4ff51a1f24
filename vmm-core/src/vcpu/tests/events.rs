// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delivery of single events.

use std::sync::{Arc, atomic::Ordering};

use super::{
    devices::{Controller, EXTERNAL_VECTOR, Late},
    hardware::{Requests, script},
    machine::{Machine, machine, machine_with},
};
use crate::{
    AccessWidth, ApicMessage, DeliveryMode, Destination, Event, Exit, Vector,
    state::{Exception, cr0},
};

fn post(machine: &Machine, delivery: DeliveryMode, vector: u8) {
    let message = ApicMessage {
        destination: Destination::Physical(0),
        delivery,
        vector: Vector(vector),
        level_triggered: false,
    };
    assert!(crate::ApicBus::deliver(&*machine.vm.core().apic_bus, message));
}

fn ready() -> Machine {
    let mut machine = machine();
    machine.vcpu().apply_firmware_defaults();
    machine.registers().set_interrupts_enabled(true);
    machine
}

/// Enters the guest once, which exits at once, and tells what it got and what was asked for.
fn enter(machine: &mut Machine) -> (Option<Event>, Requests) {
    let vcpu = machine.vcpu();
    vcpu.hardware.loaded = true;
    vcpu.hardware.guest = script([Exit::HostInterrupt]);
    vcpu.take_up_work();
    let before = vcpu.hardware.registers.delivered.len();
    vcpu.enter();
    vcpu.hardware.loaded = false;
    let delivered = vcpu.hardware.registers.delivered.get(before).copied();
    (delivered, vcpu.hardware.registers.requests)
}

fn interrupt(vector: u8) -> Option<Event> {
    Some(Event::Interrupt(Vector(vector)))
}

const NOTHING: Requests =
    Requests { interrupt_window: false, nmi_window: false, watched_class: None };
const MASKED: u32 = 1 << 16;
const WINDOW: Requests = Requests { interrupt_window: true, ..NOTHING };

#[test]
fn the_highest_interrupt_comes_first_and_the_next_after_it_ends() {
    let mut machine = ready();
    post(&machine, DeliveryMode::Fixed, 0x31);
    post(&machine, DeliveryMode::Fixed, 0x52);
    let masked = Requests { watched_class: Some(3), ..NOTHING };
    assert_eq!(enter(&mut machine), (interrupt(0x52), masked));
    assert_eq!(enter(&mut machine), (None, masked));
    machine.vcpu().apic.end_of_interrupt();
    assert_eq!(enter(&mut machine), (interrupt(0x31), NOTHING));
    assert_eq!(machine.vcpu().statistics().interrupts(), [(Vector(0x31), 1), (Vector(0x52), 1)]);
}

#[test]
fn an_interrupt_waits_for_the_window() {
    let mut machine = ready();
    post(&machine, DeliveryMode::Fixed, 0x31);
    machine.registers().set_interrupts_enabled(false);
    let window = Requests { watched_class: Some(3), ..WINDOW };
    assert_eq!(enter(&mut machine), (None, window));
    machine.registers().set_interrupts_enabled(true);
    machine.registers().in_shadow = true;
    assert_eq!(enter(&mut machine), (None, window));
    machine.registers().in_shadow = false;
    assert_eq!(enter(&mut machine), (interrupt(0x31), NOTHING));
}

#[test]
fn an_interrupt_below_the_task_priority_waits_for_cr8() {
    let mut machine = ready();
    machine.vcpu().apic.set_cr8(5);
    post(&machine, DeliveryMode::Fixed, 0x5F);
    let masked = Requests { watched_class: Some(5), ..NOTHING };
    assert_eq!(enter(&mut machine), (None, masked));
    machine.vcpu().apic.set_cr8(4);
    assert_eq!(enter(&mut machine), (interrupt(0x5F), NOTHING));
}

#[test]
fn the_task_priority_is_what_the_guest_left_in_cr8() {
    let mut machine = ready();
    let mut entries = 0;
    machine.run(Box::new(move |registers, _| {
        entries += 1;
        match entries {
            1 => registers.cr8 = 7,
            2 => assert_eq!(registers.cr8, 7),
            _ => return Exit::Shutdown,
        }
        Exit::HostInterrupt
    }));
    assert_eq!(machine.vcpu().apic.tpr(), 0x70);
}

#[test]
fn an_nmi_comes_before_interrupts_and_waits_for_the_end_of_the_last() {
    let mut machine = ready();
    post(&machine, DeliveryMode::Fixed, 0x31);
    post(&machine, DeliveryMode::Nmi, 0);
    let window = Requests { watched_class: Some(3), ..WINDOW };
    assert_eq!(enter(&mut machine), (Some(Event::Nmi), window));
    post(&machine, DeliveryMode::Nmi, 0);
    let (event, requests) = enter(&mut machine);
    assert_eq!(event, interrupt(0x31), "interrupts are not blocked by an NMI handler");
    assert_eq!(requests, Requests { nmi_window: true, ..NOTHING });
    assert_eq!(enter(&mut machine).0, None);
    machine.registers().nmi_blocked = false;
    assert_eq!(enter(&mut machine), (Some(Event::Nmi), NOTHING));
    assert_eq!(machine.vcpu().statistics().nmis, 2);
}

#[test]
fn an_event_that_was_cut_short_comes_again_before_all_others() {
    for event in [
        Event::Interrupt(Vector(0x30)),
        Event::Nmi,
        Event::Exception(Exception::page_fault(0x1234, 2)),
        Event::SoftwareInterrupt { vector: Vector(0x80), length: 2 },
    ] {
        let mut machine = ready();
        let mut first = true;
        post(&machine, DeliveryMode::Fixed, 0x55);
        machine.registers().set_interrupts_enabled(false);
        machine.run(Box::new(move |registers, _| {
            if std::mem::take(&mut first) {
                registers.interrupted = Some(event);
                return Exit::HostInterrupt;
            }
            Exit::Shutdown
        }));
        assert_eq!(machine.registers().delivered, [event]);
        assert!(machine.registers().requests.interrupt_window);
    }
}

#[test]
fn an_entry_that_does_not_happen_loses_nothing() {
    let mut machine = ready();
    post(&machine, DeliveryMode::Fixed, 0x31);
    let vcpu = machine.vcpu();
    vcpu.hardware.loaded = true;
    vcpu.take_up_work();
    vcpu.link.attention().store(true, Ordering::SeqCst);
    vcpu.enter();
    assert_eq!(vcpu.hardware.registers.delivered, []);
    assert_eq!(vcpu.statistics().entries, 0);
    assert_eq!(enter(&mut machine).0, interrupt(0x31));
    assert_eq!(enter(&mut machine).0, None);
    assert_eq!(machine.vcpu().statistics().interrupts(), [(Vector(0x31), 1)]);
}

#[test]
fn exceptions_are_counted_once_however_often_they_are_tried() {
    let mut machine = ready();
    let vcpu = machine.vcpu();
    vcpu.hardware.loaded = true;
    vcpu.dispatch(Exit::Exception(Exception::INVALID_OPCODE));
    for _ in 0..3 {
        vcpu.link.attention().store(true, Ordering::SeqCst);
        vcpu.enter();
    }
    assert_eq!(enter(&mut machine).0, Some(Event::Exception(Exception::INVALID_OPCODE)));
    assert_eq!(machine.vcpu().statistics().exceptions(), [(Vector(6), 1)]);
}

#[test]
fn real_mode_has_no_error_codes() {
    for (protected, error_code) in [(true, Some(0)), (false, None)] {
        let mut machine = machine();
        machine.registers().control.cr0 = if protected { cr0::PE } else { 0 };
        machine.run(script([Exit::Exception(Exception::GENERAL_PROTECTION)]));
        let expected = Exception { error_code, ..Exception::GENERAL_PROTECTION };
        assert_eq!(machine.registers().delivered, [Event::Exception(expected)]);
    }
}

fn with_controller() -> (Machine, Arc<Controller>) {
    let controller = Arc::<Controller>::default();
    let mut machine = machine_with(1, |builder| builder.external_interrupts(controller.clone()));
    machine.vcpu().apply_firmware_defaults();
    machine.registers().set_interrupts_enabled(true);
    (machine, controller)
}

fn raise(machine: &mut Machine, controller: &Controller, requests: u32) {
    controller.ask(requests);
    machine.vcpu().link.attention().store(true, Ordering::SeqCst);
}

#[test]
fn external_interrupts_are_acknowledged_at_delivery() {
    let (mut machine, controller) = with_controller();
    machine.registers().set_interrupts_enabled(false);
    raise(&mut machine, &controller, 2);
    assert_eq!(enter(&mut machine), (None, WINDOW));
    assert_eq!(controller.requests(), 2, "the guest may still mask it");
    machine.registers().set_interrupts_enabled(true);
    let external = Some(Event::Interrupt(EXTERNAL_VECTOR));
    assert_eq!(enter(&mut machine), (external, WINDOW));
    assert_eq!(enter(&mut machine), (external, NOTHING));
    assert_eq!(enter(&mut machine), (None, NOTHING));
}

#[test]
fn external_interrupts_ignore_the_task_priority() {
    let (mut machine, controller) = with_controller();
    machine.vcpu().apic.set_cr8(15);
    raise(&mut machine, &controller, 1);
    assert_eq!(enter(&mut machine).0, Some(Event::Interrupt(EXTERNAL_VECTOR)));
}

#[test]
fn lint0_as_a_fixed_interrupt_is_raised_once_for_each_assertion() {
    const LVT_LINT0: u64 = 0x350;
    let (mut machine, controller) = with_controller();
    machine.vcpu().apic.write_mmio(LVT_LINT0, AccessWidth::Dword, 0x57);
    let fixed = Some(Event::Interrupt(Vector(0x57)));
    for (requests, expected) in [(1, fixed), (1, None), (0, None), (1, fixed)] {
        raise(&mut machine, &controller, requests);
        assert_eq!(enter(&mut machine).0, expected);
        machine.vcpu().apic.end_of_interrupt();
    }
    assert_eq!(controller.requests(), 1, "nobody acknowledged it");
}

/// A controller rings when it asserts its output, and not when it takes that back.
#[test]
fn lint0_as_a_fixed_interrupt_is_raised_again_after_a_fall_that_nobody_saw() {
    const LVT_LINT0: u64 = 0x350;
    let (mut machine, controller) = with_controller();
    machine.vcpu().apic.write_mmio(LVT_LINT0, AccessWidth::Dword, 0x57);
    for _ in 0..2 {
        raise(&mut machine, &controller, 1);
        assert_eq!(enter(&mut machine).0, Some(Event::Interrupt(Vector(0x57))));
        machine.vcpu().apic.end_of_interrupt();
        controller.ask(0);
    }
}

#[test]
fn a_message_that_comes_with_the_look_at_the_controller_is_not_lost() {
    const LVT_LINT0: u64 = 0x350;
    let late = Arc::<Late>::default();
    let mut machine = machine_with(1, |builder| builder.external_interrupts(late.clone()));
    machine.vcpu().apply_firmware_defaults();
    machine.registers().set_interrupts_enabled(true);
    machine.vcpu().apic.write_mmio(LVT_LINT0, AccessWidth::Dword, MASKED.into());
    let core = machine.vm.core();
    late.inbox.call_once(|| core.apic_bus.inbox(0).unwrap().clone());
    for expected in [None, Some(Event::Interrupt(EXTERNAL_VECTOR))] {
        // The first time by somebody else, the second by who sent the message.
        machine.vcpu().link.attention().store(true, Ordering::SeqCst);
        assert_eq!(enter(&mut machine).0, expected);
    }
}

#[test]
fn a_request_that_the_controller_took_back_delivers_nothing() {
    let (mut machine, controller) = with_controller();
    machine.registers().set_interrupts_enabled(false);
    raise(&mut machine, &controller, 1);
    enter(&mut machine);
    controller.ask(0);
    machine.registers().set_interrupts_enabled(true);
    assert_eq!(enter(&mut machine), (None, NOTHING));
}
