// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several vCPUs: how they are started, wait and wake each other.

use std::{sync::atomic::Ordering, thread};

use super::{
    hardware::{Guest, script},
    machine::{Machine, X2APIC_ICR, enable_x2apic, machine, machine_with},
};
use crate::{
    EndReason, Event, Exit, Vector,
    cpuid::DynamicCpuid,
    state::{Gpr, SegmentRegister, rflags},
    vcpu::activity::Activity,
};

const NMI: u64 = 4 << 8;
const INIT: u64 = 5 << 8;
const STARTUP: u64 = 6 << 8;
const ASSERT: u64 = 1 << 14;
const PAGE: u64 = 0x9A;

fn to(cpu: u64, command: u64) -> u64 {
    cpu << 32 | ASSERT | command
}

/// A VM of two vCPUs in x2APIC mode; the first is in protected mode.
fn two() -> Machine {
    let mut machine = machine_with(2, |_| {});
    machine.vm.vcpus().iter_mut().for_each(|vcpu| enable_x2apic(vcpu));
    machine.registers().next_rip = Some(0);
    machine
}

/// Runs each vCPU on a thread of its own.
fn run(machine: &mut Machine, guests: [Guest; 2]) -> EndReason {
    thread::scope(|scope| {
        for (vcpu, guest) in machine.vm.vcpus().iter_mut().zip(guests) {
            vcpu.hardware.guest = guest;
            vcpu.hardware.registers.next_rip = Some(0);
            scope.spawn(|| vcpu.run());
        }
    });
    machine.ended().expect("the loops run until the VM ends")
}

fn steps(
    mut step: impl FnMut(u32, &mut super::hardware::Registers, Option<Event>) -> Exit + Send + 'static,
) -> Guest {
    let mut count = 0;
    Box::new(move |registers, event| {
        count += 1;
        step(count, registers, event)
    })
}

#[test]
fn a_vcpu_that_nothing_can_wake_ends_the_vm() {
    let mut machine = machine();
    machine.registers().next_rip = Some(0);
    assert_eq!(machine.run(script([Exit::Halt])), EndReason::Halted);
}

#[test]
fn an_interrupt_wakes_a_halted_vcpu_that_takes_it() {
    for enabled in [true, false] {
        let mut machine = two();
        machine.registers().set_interrupts_enabled(enabled);
        machine.vcpu().activity = Activity::Halted;
        machine.vcpu().core.apic_bus.inbox(0).unwrap().post(Vector(0x40), false);
        machine.vcpu().take_up_work();
        machine.vcpu().link.attention().store(true, Ordering::SeqCst);
        machine.vcpu().wait();
        let expected = if enabled { Activity::Running } else { Activity::Halted };
        assert_eq!(machine.vcpu().activity, expected);
    }
}

#[test]
fn an_nmi_wakes_a_halted_vcpu() {
    let mut machine = two();
    machine.vcpu().activity = Activity::Halted;
    machine.vcpu().pending.nmi = true;
    machine.vcpu().wait();
    assert_eq!(machine.vcpu().activity, Activity::Running);
}

#[test]
fn a_start_up_begins_at_its_page_in_real_mode() {
    let mut machine = two();
    let signature = machine.vcpu().core.cpuid.query(1, 0, &DynamicCpuid::default()).eax;
    let first = steps(|step, registers, _| match step {
        1 => registers.wrmsr(X2APIC_ICR, to(1, INIT)),
        2 => registers.wrmsr(X2APIC_ICR, to(1, STARTUP | PAGE)),
        // The second one, which every operating system sends, finds a vCPU that has started.
        3 => registers.wrmsr(X2APIC_ICR, to(1, STARTUP | 0x55)),
        _ => Exit::Halt,
    });
    let second = steps(move |_, registers, event| {
        let cs = registers.segments[SegmentRegister::Cs as usize];
        assert_eq!((event, cs.base, registers.rip & 0xFFFF), (None, PAGE << 12, 0));
        assert_eq!(registers.gpr(Gpr::Rdx), signature.into());
        assert_eq!(registers.control.cr0 & 1, 0);
        Exit::Halt
    });
    assert_eq!(run(&mut machine, [first, second]), EndReason::Halted);
}

#[test]
fn init_resets_what_runs() {
    let mut machine = two();
    let vcpu = &mut machine.vm.vcpus()[1];
    vcpu.activity = Activity::Running;
    let registers = &mut vcpu.hardware.registers;
    registers.in_shadow = true;
    (registers.dr6, registers.dr7) = (1, 0x401);
    registers.breakpoints = [1, 2, 3, 4];
    registers.rflags |= rflags::IF;
    vcpu.pending.nmi = true;
    vcpu.core.apic_bus.inbox(1).unwrap().post_init();
    vcpu.link.attention().store(true, Ordering::SeqCst);
    vcpu.take_up_work();
    assert_eq!(vcpu.activity, Activity::WaitForStartup);
    assert!(!vcpu.pending.nmi);
    let registers = &vcpu.hardware.registers;
    assert_eq!((registers.dr6, registers.dr7), (0xFFFF_0FF0, 0x400));
    assert_eq!(registers.breakpoints, [0; 4]);
    assert_eq!((registers.in_shadow, registers.rflags), (false, rflags::FIXED));
}

/// Two vCPUs without interrupts hand one NMI back and forth, each halting behind it. The VM
/// ends only when the last one has arrived.
#[test]
fn a_vm_does_not_end_while_a_vcpu_is_about_to_be_woken() {
    const ROUNDS: u32 = 200;
    let mut machine = two();
    machine.vm.vcpus()[1].activity = Activity::Running;
    machine.vm.vcpus()[1].apic.firmware_defaults();
    let player = |own: u64, serves: bool| {
        let mut received = 0;
        let mut sends = serves;
        steps(move |_, registers, event| {
            if event == Some(Event::Nmi) {
                registers.nmi_blocked = false;
                received += 1;
                sends = received <= ROUNDS;
            }
            registers.dr7 = received.into();
            if std::mem::take(&mut sends) {
                return registers.wrmsr(X2APIC_ICR, to(1 - own, NMI));
            }
            Exit::Halt
        })
    };
    let end = run(&mut machine, [player(0, true), player(1, false)]);
    assert_eq!(end, EndReason::Halted);
    let received =
        |machine: &mut Machine, vcpu: usize| machine.vm.vcpus()[vcpu].hardware.registers.dr7;
    assert_eq!(received(&mut machine, 1), u64::from(ROUNDS) + 1);
}
