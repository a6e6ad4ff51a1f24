// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brief exits, behind which the guest is entered again by what was prepared before.

use std::sync::{Arc, Mutex};

use super::machine::{CODE, Machine, machine};
use crate::{
    AccessWidth, ApicBus, ApicMessage, DeliveryMode, Destination, Event, Exit, PortIo, Vector,
    state::{Exception, Gpr},
    statistics::ExitReason,
};

const VECTOR: Vector = Vector(0x41);
/// IA32_PAT, which the hardware holds.
const PAT: u64 = 0x277;

const BRIEF: [Exit; 5] = [
    Exit::Cpuid,
    Exit::Hypercall,
    Exit::ReadMsr,
    Exit::WriteMsr,
    Exit::PortIo(PortIo {
        port: 0x5F0,
        width: AccessWidth::Byte,
        is_input: false,
        is_string: false,
    }),
];

/// A guest that takes interrupts, and can be seen to write to [`PAT`] the value of its reset.
fn ready() -> Machine {
    let mut machine = machine();
    machine.vcpu().apply_firmware_defaults();
    let registers = machine.registers();
    registers.set_interrupts_enabled(true);
    registers.next_rip = Some(CODE);
    machine
}

fn prepare_operands(registers: &mut super::hardware::Registers) {
    registers.set_gpr(Gpr::Rcx, PAT);
    registers.set_gpr(Gpr::Rax, 0x0007_0406);
    registers.set_gpr(Gpr::Rdx, 0x0007_0406);
}

#[test]
fn an_entry_behind_a_brief_exit_is_not_prepared_again() {
    for exit in BRIEF {
        let mut machine = ready();
        let mut step = 0;
        machine.run(Box::new(move |registers, _| {
            step += 1;
            prepare_operands(registers);
            match step {
                // A preparation would take the request back.
                1..=3 => {
                    assert_eq!(registers.requests.watched_class.is_some(), step > 1, "{exit:?}");
                    registers.requests.watched_class = Some(15);
                    exit
                }
                // Any other exit leads to one.
                4 => Exit::HostInterrupt,
                _ => {
                    assert_eq!(registers.requests.watched_class, None, "{exit:?}");
                    Exit::Shutdown
                }
            }
        }));
        let exits = machine.vcpu().statistics().exits(ExitReason::of(&exit).unwrap());
        assert_eq!(exits.count, 3);
        assert_eq!(exits.histogram.iter().sum::<u64>(), 3);
        assert_eq!(machine.vcpu().statistics().entries, 5);
    }
}

#[test]
fn an_interrupt_that_comes_meanwhile_is_delivered_before_the_next_instruction() {
    for exit in BRIEF {
        let mut machine = ready();
        let core = machine.vm.core().clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut step = 0;
        let log = seen.clone();
        machine.run(Box::new(move |registers, event| {
            step += 1;
            log.lock().unwrap().push(event);
            prepare_operands(registers);
            if step == 3 {
                let message = ApicMessage {
                    destination: Destination::Physical(0),
                    delivery: DeliveryMode::Fixed,
                    vector: VECTOR,
                    level_triggered: false,
                };
                assert!(core.apic_bus.deliver(message));
            }
            if step < 5 { exit } else { Exit::Shutdown }
        }));
        let expected = [None, None, None, Some(Event::Interrupt(VECTOR)), None];
        assert_eq!(*seen.lock().unwrap(), expected, "{exit:?}");
    }
}

#[test]
fn an_exception_of_a_brief_exit_is_delivered_at_the_next_entry() {
    for exit in [Exit::ReadMsr, Exit::WriteMsr] {
        let mut machine = ready();
        let mut step = 0;
        machine.run(Box::new(move |registers, event| {
            step += 1;
            prepare_operands(registers);
            if step == 2 {
                registers.set_gpr(Gpr::Rcx, 0x5555);
            }
            let fault = Event::Exception(Exception::GENERAL_PROTECTION);
            let due = (step == 3).then_some(fault);
            // In protected mode with its error code.
            assert_eq!(event, due, "{exit:?}");
            if step < 4 { exit } else { Exit::Shutdown }
        }));
    }
}

#[test]
fn a_write_that_ends_the_vm_in_a_brief_exit_ends_it_at_once() {
    let mut machine = ready();
    let control = machine.vm.control().clone();
    let mut step = 0;
    machine.run(Box::new(move |_, _| {
        step += 1;
        assert!(step < 3, "the guest is entered after its end");
        if step == 2 {
            control.end(crate::EndReason::PowerOff);
        }
        Exit::Cpuid
    }));
}
