// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deadlines of the local APIC and of devices, folded into the host's one timer.

use std::sync::Arc;

use host_iface::{Host, Tsc};

use super::{
    devices::{Alarm, TimeLimit},
    hardware::{Registers, script},
    machine::{
        Machine, TSC_DEADLINE, X2APIC_DIVIDE, X2APIC_INITIAL_COUNT, X2APIC_LVT_TIMER,
        enable_x2apic, machine, machine_with,
    },
};
use crate::{EndReason, Event, Exit, Timer, Vector, VmInstant, statistics::ExitReason};

const VECTOR: u64 = 0x40;
const DEADLINE_MODE: u64 = 2 << 17;
const DIVIDE_BY_1: u64 = 0xB;
const INTERRUPT: Event = Event::Interrupt(Vector(VECTOR as u8));

/// A VM with the local APIC's timer unmasked, and one device timer.
fn timed() -> (Machine, Timer, Arc<Alarm>) {
    let alarm = Arc::<Alarm>::default();
    let mut timer = None;
    let mut machine = machine_with(1, |builder| {
        let device = builder.timer().unwrap();
        device.connect(alarm.clone());
        timer = Some(device);
    });
    enable_x2apic(machine.vcpu());
    for (msr, value) in [(X2APIC_LVT_TIMER, VECTOR), (X2APIC_DIVIDE, DIVIDE_BY_1)] {
        let exit = machine.registers().wrmsr(msr, value);
        machine.vcpu().handle(exit).unwrap();
    }
    machine.registers().set_interrupts_enabled(true);
    (machine, timer.unwrap(), alarm)
}

#[test]
fn nothing_is_armed_for_a_guest_that_armed_nothing() {
    let mut machine = machine();
    let host = machine.host;
    machine.run(Box::new(move |_, _| {
        assert_eq!(host.armed_timer(), None);
        Exit::Shutdown
    }));
}

#[test]
fn the_host_timer_follows_the_earliest_deadline() {
    let (mut machine, device, _) = timed();
    let host = machine.host;
    let mut step = 0;
    device.arm(VmInstant(5_000));
    machine.run(Box::new(move |registers, _| {
        step += 1;
        let armed = host.armed_timer();
        match step {
            // Rounded up, so that the device's moment has come by then.
            1 => assert_eq!(armed, Some(Tsc(5_001))),
            2 => assert_eq!(armed, Some(Tsc(3_000))),
            3 => assert_eq!(armed, Some(Tsc(5_001))),
            4 => assert_eq!(armed, None),
            _ => return Exit::Shutdown,
        }
        match step {
            1 => registers.wrmsr(X2APIC_INITIAL_COUNT, 3_000),
            2 => registers.wrmsr(X2APIC_INITIAL_COUNT, 0),
            3 => {
                device.cancel();
                Exit::HostInterrupt
            }
            _ => Exit::Shutdown,
        }
    }));
}

#[test]
fn a_deadline_that_comes_in_the_guest_interrupts_it_once() {
    let (mut machine, _, _) = timed();
    let host = machine.host;
    let mut step = 0;
    machine.run(Box::new(move |registers, event| {
        step += 1;
        assert_eq!(event.is_some(), step == 3);
        match step {
            1 => registers.wrmsr(X2APIC_INITIAL_COUNT, 3_000),
            2 => {
                host.advance(3_000);
                Exit::HostInterrupt
            }
            3 | 4 => Exit::HostInterrupt,
            _ => Exit::Shutdown,
        }
    }));
    assert_eq!(machine.registers().delivered, [INTERRUPT]);
}

#[test]
fn a_deadline_that_is_past_keeps_the_gate_closed() {
    let (mut machine, _, _) = timed();
    machine.host.advance(1_000_000);
    let mut step = 0;
    machine.run(Box::new(move |registers, event| {
        step += 1;
        match step {
            1 => registers.wrmsr(X2APIC_LVT_TIMER, VECTOR | DEADLINE_MODE),
            2 => registers.wrmsr(TSC_DEADLINE, 1_000),
            _ => {
                assert_eq!(event, Some(INTERRUPT), "the guest is not entered without it");
                Exit::Shutdown
            }
        }
    }));
    assert_eq!(machine.exits(ExitReason::WriteMsr), 2);
}

#[test]
fn devices_are_called_when_their_moment_has_come() {
    let (mut machine, device, alarm) = timed();
    let host = machine.host;
    let mut step = 0;
    device.arm(VmInstant(700));
    machine.run(Box::new(move |_, _| {
        step += 1;
        match step {
            1 => host.advance(700),
            2 => host.advance(1),
            _ => return Exit::Shutdown,
        }
        Exit::HostInterrupt
    }));
    assert_eq!(*alarm.calls.lock().unwrap(), [VmInstant(701)]);
}

#[test]
fn a_halted_vcpu_waits_for_its_timer() {
    let (mut machine, _, _) = timed();
    let host = machine.host;
    let mut step = 0;
    let clock = std::thread::spawn(move || {
        while host.armed_timer() != Some(Tsc(9_000)) {
            std::thread::yield_now();
        }
        host.advance(9_000);
    });
    machine.run(Box::new(move |registers: &mut Registers, event| {
        step += 1;
        match step {
            1 => registers.wrmsr(X2APIC_INITIAL_COUNT, 9_000),
            2 => Exit::Halt,
            _ => {
                assert_eq!(event, Some(INTERRUPT));
                assert_eq!(host.tsc(), Tsc(9_000));
                Exit::Shutdown
            }
        }
    }));
    clock.join().unwrap();
    assert!(machine.vcpu().statistics().idle_ticks <= 9_000);
}

#[test]
fn the_host_timer_is_cancelled_when_the_vm_has_ended() {
    let (mut machine, device, _) = timed();
    device.arm(VmInstant(1 << 40));
    let end = machine.run(script([Exit::HostInterrupt]));
    assert!(matches!(end, EndReason::TripleFault { .. }));
    assert_eq!(machine.host.armed_timer(), None);
}

#[test]
fn a_guest_is_not_entered_after_its_time_limit() {
    let mut machine = machine_with(1, |builder| {
        let limit = Arc::new(TimeLimit(builder.control()));
        builder.own_timer(limit, VmInstant(1_000)).unwrap();
    });
    let host = machine.host;
    let end = machine.run(Box::new(move |_, _| {
        assert!(host.tsc() <= Tsc(1_000), "a guest that never exits would never end");
        host.advance(600);
        Exit::HostInterrupt
    }));
    assert_eq!(end, EndReason::Stopped("time limit"));
}

#[test]
fn a_halted_guest_ends_at_its_time_limit() {
    let mut machine = machine_with(1, |builder| {
        let limit = Arc::new(TimeLimit(builder.control()));
        builder.own_timer(limit, VmInstant(1_000)).unwrap();
    });
    let host = machine.host;
    machine.registers().set_interrupts_enabled(true);
    machine.registers().next_rip = Some(0);
    let clock = std::thread::spawn(move || {
        while host.armed_timer().is_none() {
            std::thread::yield_now();
        }
        host.advance(2_000);
    });
    assert_eq!(machine.run(script([Exit::Halt])), EndReason::Stopped("time limit"));
    clock.join().unwrap();
}
