// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID, HLT, hypercalls and how instructions are skipped.

use std::sync::Arc;

use super::{
    devices::Hook,
    hardware::script,
    machine::{CODE, HIGH, Machine, machine, machine_with},
};
use crate::{
    EndReason, Event, Exit, Trapped,
    cpuid::DynamicCpuid,
    state::{Exception, Gpr, SegmentRegister, rflags},
    statistics::{ExitReason, Unclaimed},
};

const DR6_SINGLE_STEP: u64 = 1 << 14;

/// Runs one exit, and returns what was delivered to the guest after it.
fn run_one(machine: &mut Machine, exit: Exit) -> Vec<Event> {
    let end = machine.run(script([exit]));
    assert!(matches!(end, EndReason::TripleFault { vcpu: 0, .. }), "{end:?}");
    machine.registers().delivered.clone()
}

#[test]
fn cpuid_answers_from_the_table_and_clears_the_upper_halves() {
    let mut machine = machine();
    machine.registers().next_rip = Some(CODE + 2);
    for leaf in [0, 1, 7, 0xD, 0x4000_0000, 0x8000_0001, 0xFFFF_FFFF_u32] {
        for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx] {
            machine.set_gpr(register, u64::MAX << 32);
        }
        machine.set_gpr(Gpr::Rax, u64::MAX << 32 | u64::from(leaf));
        machine.vcpu().handle(Exit::Cpuid).unwrap();
        let expected = machine.vcpu().core.cpuid.query(
            leaf,
            0,
            &DynamicCpuid { apic_enabled: true, ..DynamicCpuid::default() },
        );
        let result = [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].map(|r| machine.gpr(r));
        let expected = [expected.eax, expected.ebx, expected.ecx, expected.edx];
        assert_eq!(result, expected.map(u64::from), "leaf {leaf:#x}");
    }
}

#[test]
fn hooks_change_what_cpuid_answers() {
    let mut machine = machine_with(1, |builder| {
        builder.hooks().add_cpuid(0x4000_0100..=0x4000_01FF, Arc::<Hook>::default());
    });
    machine.registers().next_rip = Some(CODE + 2);
    machine.set_gpr(Gpr::Rax, 0x4000_0123);
    machine.set_gpr(Gpr::Rcx, 5);
    machine.vcpu().handle(Exit::Cpuid).unwrap();
    assert_eq!([Gpr::Rax, Gpr::Rbx, Gpr::Rcx].map(|r| machine.gpr(r)), [0x4000_0123, 5, 0]);
}

#[test]
fn instructions_are_skipped_as_the_hardware_or_the_code_says() {
    let cases: [(&[u8], Option<u64>, u64); 5] = [
        (&[0x0F, 0xA2], Some(CODE + 5), CODE + 5),
        (&[0x0F, 0xA2], None, CODE + 2),
        (&[0x66, 0x0F, 0xA2], None, CODE + 3),
        (&[0x2E, 0xF3, 0x0F, 0xA2], None, CODE + 4),
        (&[0x26, 0x3E, 0x66, 0x67, 0x64, 0x0F, 0xA2], None, CODE + 7),
    ];
    for (code, next_rip, expected) in cases {
        let mut machine = machine();
        machine.poke(CODE, code);
        machine.registers().next_rip = next_rip;
        assert_eq!(run_one(&mut machine, Exit::Cpuid), []);
        assert_eq!(machine.registers().rip, expected, "{code:02x?}");
        assert_eq!(machine.exits(ExitReason::Cpuid), 1);
    }
}

#[test]
fn an_instruction_may_cross_into_the_next_page() {
    let mut machine = machine();
    machine.poke(CODE + 0xFFF, &[0x0F, 0xA2]);
    machine.registers().rip = CODE + 0xFFF;
    assert_eq!(run_one(&mut machine, Exit::Cpuid), []);
    assert_eq!(machine.registers().rip, CODE + 0x1001);
}

#[test]
fn instructions_of_64_bit_code_are_skipped_wherever_they_lie() {
    let codes: [&[u8]; 4] = [&[0xF4], &[0x0F, 0xA2], &[0x0F, 0x01, 0xD9], &[0x66, 0x0F, 0xA2]];
    for code in codes {
        for offset in (0..9).chain(0xFF8..0x1000) {
            let mut machine = machine();
            machine.enter_long_mode();
            machine.poke(CODE + offset, code);
            let rip = HIGH + CODE + offset;
            machine.registers().rip = rip;
            machine.vcpu().skip_instruction().unwrap();
            let length = code.len() as u64;
            assert_eq!(machine.registers().rip, rip + length, "{code:02x?} at {offset:#x}");
        }
    }
}

#[test]
fn code_that_was_unmapped_meanwhile_faults_in_the_guest() {
    let mut machine = machine();
    machine.enter_long_mode();
    machine.poke(CODE, &[0x0F, 0xA2]);
    machine.registers().control.cr3 = 0x4000;
    let fault = machine.vcpu().skip_instruction().unwrap_err();
    assert_eq!(fault, Exception::page_fault(HIGH + CODE, 0));
}

#[test]
fn the_instruction_pointer_wraps_as_wide_as_the_code_is() {
    let mut machine = machine();
    machine.registers().segment_mut(SegmentRegister::Cs).base = CODE + 2;
    machine.registers().rip = 0xFFFF_FFFE;
    machine.poke(CODE, &[0x0F, 0xA2]);
    assert_eq!(run_one(&mut machine, Exit::Cpuid), []);
    assert_eq!(machine.registers().rip, 0);
}

#[test]
fn what_cannot_be_fetched_faults_in_the_guest() {
    let mut machine = machine();
    machine.registers().segment_mut(SegmentRegister::Cs).limit = CODE as u32 - 1;
    let fault = Event::Exception(Exception::GENERAL_PROTECTION);
    assert_eq!(run_one(&mut machine, Exit::Halt), [fault]);
    assert_eq!(machine.registers().rip, CODE);
}

#[test]
fn a_skipped_instruction_ends_the_shadow_and_the_resume_flag() {
    let mut machine = machine();
    machine.registers().in_shadow = true;
    machine.registers().rflags |= rflags::RF | rflags::CF;
    machine.registers().next_rip = Some(CODE + 2);
    assert_eq!(run_one(&mut machine, Exit::Cpuid), []);
    assert!(!machine.registers().in_shadow);
    assert_eq!(machine.registers().rflags, rflags::FIXED | rflags::CF);
}

#[test]
fn a_skipped_instruction_is_a_single_step() {
    let exits = [Exit::Cpuid, Exit::Halt, Exit::Hypercall, Exit::Pause];
    for exit in exits {
        let mut machine = machine();
        machine.registers().rflags |= rflags::TF;
        machine.registers().dr6 = 0xFFFF_0FF0;
        machine.registers().next_rip = Some(CODE + 2);
        assert_eq!(run_one(&mut machine, exit), [Event::Exception(Exception::DEBUG)]);
        assert_eq!(machine.registers().dr6, 0xFFFF_0FF0 | DR6_SINGLE_STEP);
        assert_eq!(machine.registers().rip, CODE + 2, "the trap comes after the instruction");
    }
}

#[test]
fn unknown_hypercalls_are_refused_and_counted() {
    let mut machine = machine();
    machine.registers().next_rip = Some(CODE + 3);
    machine.set_gpr(Gpr::Rax, 77);
    run_one(&mut machine, Exit::Hypercall);
    assert_eq!(machine.gpr(Gpr::Rax) as i64, -1000);
    assert_eq!(machine.unclaimed(Unclaimed::Hypercall), 1);
}

#[test]
fn hooked_hypercalls_get_their_arguments() {
    let hooked =
        |hook: Arc<Hook>| machine_with(1, |b| b.hooks().add_hypercalls(0x100..=0x1FF, hook));
    let mut machine = hooked(Arc::default());
    machine.registers().next_rip = Some(CODE + 3);
    for (value, register) in [Gpr::Rbx, Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].into_iter().enumerate() {
        machine.set_gpr(register, value as u64 + 1);
    }
    machine.set_gpr(Gpr::Rax, 0x180);
    machine.vcpu().handle(Exit::Hypercall).unwrap();
    assert_eq!(machine.gpr(Gpr::Rax), 1234);
    assert_eq!(machine.unclaimed(Unclaimed::Hypercall), 0);
}

#[test]
fn hypercalls_are_the_kernels_alone() {
    let mut machine = machine_with(1, |b| b.hooks().add_hypercalls(0..=1, Arc::<Hook>::default()));
    machine.registers().next_rip = Some(CODE + 3);
    machine.registers().cpl = 3;
    machine.set_gpr(Gpr::Rbx, 1);
    run_one(&mut machine, Exit::Hypercall);
    assert_eq!(machine.gpr(Gpr::Rax) as i64, -1, "no permission");
}

#[test]
fn trapped_instructions_fault() {
    let undefined = Event::Exception(Exception::INVALID_OPCODE);
    let protection = Event::Exception(Exception::GENERAL_PROTECTION);
    for (trapped, event) in [
        (Trapped::Virtualization, undefined),
        (Trapped::MonitorWait, undefined),
        (Trapped::Hidden, undefined),
        (Trapped::Resume, undefined),
        (Trapped::ReadPerformanceCounter, protection),
        (Trapped::LegacyFpuError, Event::Exception(Exception::FLOATING_POINT)),
    ] {
        let mut machine = machine();
        assert_eq!(run_one(&mut machine, Exit::Instruction(trapped)), [event]);
        assert_eq!(machine.registers().rip, CODE);
    }
}

#[test]
fn cache_flushes_need_privilege_and_do_nothing() {
    let flush = Exit::Instruction(Trapped::CacheFlush);
    let mut machine = machine();
    machine.poke(CODE, &[0x0F, 0x09]);
    machine.registers().cpl = 3;
    let fault = Event::Exception(Exception::GENERAL_PROTECTION);
    assert_eq!(run_one(&mut machine, flush), [fault]);
    let mut machine = super::machine::machine();
    machine.poke(CODE, &[0x0F, 0x09]);
    assert_eq!(run_one(&mut machine, flush), []);
    assert_eq!(machine.registers().rip, CODE + 2);
}

#[test]
fn exits_that_end_the_vm_say_why() {
    for (exit, end) in [
        (Exit::MachineCheck, EndReason::MachineCheck { vcpu: 0 }),
        (Exit::Shutdown, EndReason::TripleFault { vcpu: 0, rip: CODE }),
        (Exit::EntryFailure("x"), EndReason::EntryFailure { vcpu: 0, why: "x".into() }),
        (Exit::Unknown(0x99), EndReason::UnknownExit { vcpu: 0, code: 0x99 }),
    ] {
        assert_eq!(machine().run(script([exit])), end);
    }
}

/// The CPU shuts down at the next one otherwise, and the machine with it.
#[test]
fn a_machine_check_that_ends_the_vm_is_ended_on_the_cpu() {
    for (exit, ended) in [(Exit::MachineCheck, 1), (Exit::Shutdown, 0)] {
        let mut machine = machine();
        machine.run(script([exit]));
        assert_eq!(machine.registers().machine_checks, ended);
    }
}

#[test]
fn long_mode_keeps_all_of_the_instruction_pointer() {
    let mut machine = machine();
    machine.enter_long_mode();
    machine.poke(CODE, &[0x0F, 0xA2]);
    assert_eq!(run_one(&mut machine, Exit::Cpuid), []);
    assert_eq!(machine.registers().rip, HIGH + CODE + 2);
}
