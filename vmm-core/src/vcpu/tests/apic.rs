// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC on hardware that does a part of its work.

use std::sync::{Arc, Mutex};

use host_iface::Tsc;

use super::{
    hardware::{Registers, script},
    machine::{
        CODE, Machine, TSC_DEADLINE, X2APIC_LVT_TIMER, enable_x2apic, machine, machine_with,
    },
};
use crate::{
    ApicAccess, ApicAccessKind, ApicMessage, DeliveryMode, Destination, EoiObserver, Event, Exit,
    Vector, state::Gpr, statistics::ExitReason,
};

const EOI: u16 = 0xB0;
const COMMAND: u16 = 0x300;
const COMMAND_HIGH: u16 = 0x310;
const ID: u16 = 0x20;
const SPURIOUS: u16 = 0xF0;
const SELF_IPI: u16 = 0x3F0;

/// Writes down whose end it heard of.
#[derive(Default)]
struct Ends(Mutex<Vec<Vector>>);

impl EoiObserver for Ends {
    fn end_of_interrupt(&self, vector: Vector) {
        self.0.lock().unwrap().push(vector);
    }
}

/// A VM on hardware that delivers interrupts, in xAPIC mode.
fn delivering() -> (Machine, Arc<Ends>) {
    let ends = Arc::<Ends>::default();
    let mut machine = machine_with(2, |builder| builder.on_eoi(ends.clone()));
    machine.vcpu().hardware.delivers_interrupts = true;
    machine.vcpu().apply_firmware_defaults();
    machine.registers().set_interrupts_enabled(true);
    (machine, ends)
}

fn post(machine: &Machine, vector: u8, level_triggered: bool) {
    let message = ApicMessage {
        destination: Destination::Physical(0),
        delivery: DeliveryMode::Fixed,
        vector: Vector(vector),
        level_triggered,
    };
    assert!(crate::ApicBus::deliver(&*machine.vm.core().apic_bus, message));
}

/// What the CPU does to deliver `vector`.
fn deliver(registers: &mut Registers, vector: Vector) {
    assert!(registers.interrupts.requested.contains(vector));
    registers.interrupts.requested.remove(vector);
    registers.interrupts.in_service.insert(vector);
}

#[test]
fn the_hardware_gets_the_interrupts_and_gives_them_back() {
    let (mut machine, ends) = delivering();
    post(&machine, 0x31, true);
    post(&machine, 0x52, false);
    let mut step = 0;
    machine.run(Box::new(move |registers, event| {
        assert_eq!(event, None, "nothing is injected");
        assert!(!registers.requests.interrupt_window);
        assert_eq!(registers.requests.watched_class, None);
        step += 1;
        match step {
            1 => {
                assert!(registers.interrupts.level_triggered.contains(Vector(0x31)));
                deliver(registers, Vector(0x52));
            }
            2 => {
                // Ended without an exit, and the next one delivered.
                registers.interrupts.in_service.remove(Vector(0x52));
                deliver(registers, Vector(0x31));
            }
            3 => {
                registers.interrupts.in_service.remove(Vector(0x31));
                return Exit::EndOfInterrupt(Vector(0x31));
            }
            _ => return Exit::Shutdown,
        }
        Exit::HostInterrupt
    }));
    assert_eq!(*ends.0.lock().unwrap(), [Vector(0x31)]);
    let vcpu = machine.vcpu();
    assert_eq!(vcpu.apic.interrupts().in_service.highest(), None);
    assert_eq!(vcpu.statistics().interrupts(), [(Vector(0x31), 1), (Vector(0x52), 1)]);
    assert_eq!(vcpu.statistics().exits(ExitReason::EndOfInterrupt).count, 1);
}

#[test]
fn an_interrupt_in_the_hardware_ends_a_halt() {
    let (mut machine, _) = delivering();
    let mut step = 0;
    machine.run(Box::new(move |registers, _| {
        step += 1;
        match step {
            1 => {
                // Sent to itself just before.
                registers.interrupts.requested.insert(Vector(0x41));
                registers.next_rip = Some(CODE + 1);
                Exit::Halt
            }
            2 => {
                deliver(registers, Vector(0x41));
                Exit::Shutdown
            }
            _ => panic!("the halt has to end"),
        }
    }));
    assert_eq!(machine.exits(ExitReason::Halt), 1);
}

#[test]
fn registers_are_shown_and_what_the_guest_writes_takes_effect() {
    let (mut machine, _) = delivering();
    let mut step = 0;
    machine.run(Box::new(move |registers, _| {
        step += 1;
        match step {
            1 => {
                assert_eq!(registers.apic_registers[&SPURIOUS], 0x1FF);
                assert_eq!(registers.apic_registers[&ID], 0);
                registers.apic_registers.insert(ID, 0x0700_0000);
                Exit::ApicWrite(ID)
            }
            2 => {
                assert_eq!(registers.apic_registers[&ID], 0, "read-only here");
                // To the second vCPU; the high half is written without an exit.
                registers.apic_registers.insert(COMMAND_HIGH, 1 << 24);
                registers.apic_registers.insert(COMMAND, 0x61);
                Exit::ApicWrite(COMMAND)
            }
            3 => {
                assert_eq!(registers.apic_registers[&COMMAND_HIGH], 1 << 24);
                registers.apic_registers.insert(SPURIOUS, 0x2F);
                Exit::ApicWrite(SPURIOUS)
            }
            _ => Exit::Shutdown,
        }
    }));
    let core = machine.vm.core();
    assert!(core.apic_bus.inbox(1).is_some_and(|inbox| !inbox.has_mail()), "it is disabled");
    assert!(!machine.vcpu().apic.delivers());
    assert!(!machine.vcpu().apic_role.delivers, "a disabled one delivers nothing");
}

#[test]
fn a_self_ipi_that_the_cpu_leaves_to_the_vmm_is_an_error() {
    let mut machine = machine();
    machine.vcpu().hardware.delivers_interrupts = true;
    enable_x2apic(machine.vcpu());
    machine.registers().apic_registers.insert(SELF_IPI, 0xF);
    machine.run(script([Exit::ApicWrite(SELF_IPI)]));
    let apic = &mut machine.vcpu().apic;
    apic.write_msr(0x828, 0).unwrap();
    assert_eq!(apic.read_msr(0x828), Ok(1 << 5), "send illegal vector");
}

#[test]
fn the_end_of_an_interrupt_needs_no_emulation() {
    let mut machine = machine();
    machine.vcpu().apply_firmware_defaults();
    machine.registers().set_interrupts_enabled(true);
    post(&machine, 0x31, false);
    machine.run(Box::new({
        let mut step = 0;
        move |registers, event| {
            step += 1;
            // There is no instruction at RIP that could be emulated.
            registers.next_rip = Some(registers.rip + 7);
            match step {
                1 => {
                    assert_eq!(event, Some(Event::Interrupt(Vector(0x31))));
                    let kind = ApicAccessKind::Write;
                    Exit::ApicAccess(ApicAccess { offset: EOI, kind })
                }
                _ => Exit::Shutdown,
            }
        }
    }));
    assert_eq!(machine.vcpu().apic.interrupts().in_service.highest(), None);
    assert_eq!(machine.registers().rip, CODE + 7);
    assert_eq!(machine.exits(ExitReason::ApicAccess), 1);
}

#[test]
fn other_accesses_are_emulated() {
    let mut machine = machine();
    machine.vcpu().apply_firmware_defaults();
    // mov eax, [0xFEE000F0]
    machine.poke(CODE, &[0xA1, 0xF0, 0x00, 0xE0, 0xFE]);
    let kind = ApicAccessKind::Read;
    machine.run(script([Exit::ApicAccess(ApicAccess { offset: SPURIOUS, kind })]));
    assert_eq!(machine.gpr(Gpr::Rax), 0x1FF);
    assert_eq!(machine.registers().rip, CODE + 5);
}

#[test]
fn code_in_the_registers_is_none() {
    let mut machine = machine();
    let kind = ApicAccessKind::Fetch;
    machine.run(script([Exit::ApicAccess(ApicAccess { offset: 0, kind })]));
    let delivered = &machine.registers().delivered;
    assert!(matches!(delivered[..], [Event::Exception(e)] if e.vector == Vector(6)));
}

/// A VM on hardware that ends entries at the deadline, with the local APIC's timer ready.
fn timed() -> Machine {
    let mut machine = machine();
    machine.vcpu().hardware.has_own_timer = true;
    enable_x2apic(machine.vcpu());
    let lvt = machine.registers().wrmsr(X2APIC_LVT_TIMER, 2 << 17 | 0x40);
    machine.vcpu().handle(lvt).unwrap();
    machine.registers().set_interrupts_enabled(true);
    machine
}

/// When the guest's time-stamp counter reaches `guest`.
fn moment(registers: &Registers, guest: u64) -> Option<Tsc> {
    Some(Tsc(guest.wrapping_sub(registers.tsc_offset)))
}

#[test]
fn hardware_that_ends_entries_at_the_deadline_needs_no_timer_of_the_host() {
    let mut machine = timed();
    let host = machine.host;
    let mut step = 0;
    machine.run(Box::new(move |registers, event| {
        step += 1;
        assert_eq!(host.armed_timer(), None, "step {step}");
        match step {
            1 => registers.wrmsr(TSC_DEADLINE, 1_000_000),
            2 => {
                assert_eq!(registers.hardware_deadline, moment(registers, 1_000_000));
                host.advance(2_000_000);
                Exit::Deadline
            }
            _ => {
                assert_eq!(event, Some(Event::Interrupt(Vector(0x40))));
                assert_eq!(registers.hardware_deadline, None);
                Exit::Shutdown
            }
        }
    }));
    assert_eq!(machine.exits(ExitReason::Deadline), 1);
}

#[test]
fn a_wait_needs_the_timer_of_the_host() {
    let mut machine = timed();
    let host = machine.host;
    let exit = machine.registers().wrmsr(TSC_DEADLINE, 1_000_000);
    let deadline = moment(machine.registers(), 1_000_000);
    let vcpu = machine.vcpu();
    vcpu.handle(exit).unwrap();
    vcpu.hardware.loaded = true;
    vcpu.take_up_work();
    assert_eq!((host.armed_timer(), vcpu.hardware_deadline()), (None, deadline));
    vcpu.activity = super::super::Activity::Halted;
    vcpu.wait();
    assert_eq!(host.armed_timer(), deadline);
    assert_eq!(vcpu.hardware_deadline(), None, "one timer is enough");
    // The guest, which something else woke, moves the deadline.
    let exit = vcpu.hardware.registers.wrmsr(TSC_DEADLINE, 3_000_000);
    vcpu.handle(exit).unwrap();
    vcpu.take_up_work();
    let later = moment(&vcpu.hardware.registers, 3_000_000);
    assert_eq!((host.armed_timer(), vcpu.hardware_deadline()), (None, later));
}

/// MSRs of x2APIC mode.
const X2APIC_TPR: u32 = 0x808;
const X2APIC_EOI: u32 = 0x80B;

#[test]
fn what_a_brief_exit_does_to_the_local_apic_shows_at_the_next_entry() {
    let (high, low) = (Event::Interrupt(Vector(0x60)), Event::Interrupt(Vector(0x50)));
    let mut machine = machine();
    enable_x2apic(machine.vcpu());
    machine.registers().set_interrupts_enabled(true);
    post(&machine, 0x60, false);
    post(&machine, 0x50, false);
    let mut seen = Vec::new();
    machine.run(Box::new(move |registers, event| {
        seen.push((event, registers.cr8));
        match seen.len() {
            1 => registers.wrmsr(X2APIC_TPR, 0x70),
            2 => registers.wrmsr(X2APIC_EOI, 0),
            3 => registers.wrmsr(X2APIC_TPR, 0),
            4 => registers.wrmsr(X2APIC_EOI, 0),
            _ => {
                let quiet = |class| (None, class);
                let expected = [(Some(high), 0), quiet(7), quiet(7), (Some(low), 0), quiet(0)];
                assert_eq!(seen, expected);
                Exit::Shutdown
            }
        }
    }));
}
