// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that exit, executed by user mode: the hardware checks the privilege level before
//! most intercepts, and what it leaves, or the emulator is led to, is checked here.

use crate::{
    Exit, Trapped,
    emulate::{Outcome, tests::machine::Machine as Emulated},
    state::{Exception, Gpr, cr4, rflags},
    vcpu::tests::machine::{CODE, Machine, machine},
};

const GP: Result<(), Exception> = Err(Exception::GENERAL_PROTECTION);
const UD: Result<(), Exception> = Err(Exception::INVALID_OPCODE);
const MF: Result<(), Exception> = Err(Exception::FLOATING_POINT);

fn user() -> Machine {
    let mut machine = machine();
    machine.registers().cpl = 3;
    machine.registers().next_rip = Some(CODE + 3);
    machine.registers().control.cr4 = cr4::OSXSAVE;
    machine
}

#[test]
fn exits_that_reach_the_vmm_from_user_mode_fault_there() {
    for (exit, expected) in [
        (Exit::SetExtendedControl, GP),
        (Exit::Instruction(Trapped::CacheFlush), GP),
        (Exit::Instruction(Trapped::ReadPerformanceCounter), GP),
        (Exit::Instruction(Trapped::Virtualization), UD),
        (Exit::Instruction(Trapped::MonitorWait), UD),
        (Exit::Instruction(Trapped::Hidden), UD),
        (Exit::Instruction(Trapped::Resume), UD),
        (Exit::Instruction(Trapped::LegacyFpuError), MF),
    ] {
        let mut machine = user();
        machine.set_gpr(Gpr::Rax, 1);
        assert_eq!(machine.handle(exit), expected, "{exit:?}");
        assert_eq!(machine.ended(), None, "{exit:?}");
        assert_eq!(machine.registers().rip, CODE);
        assert_eq!(machine.registers().xcr0, 0);
    }
}

#[test]
fn a_hypercall_from_user_mode_reaches_no_hook() {
    use std::sync::Arc;

    use crate::vcpu::tests::{devices::Hook, machine::machine_with};

    for (cpl, expected) in [(0, 1234), (1, u64::MAX), (3, u64::MAX)] {
        let hook = Arc::<Hook>::default();
        let mut machine = machine_with(1, |builder| builder.hooks().add_hypercalls(5..=5, hook));
        machine.registers().cpl = cpl;
        machine.registers().next_rip = Some(CODE + 3);
        let arguments = [(Gpr::Rax, 5), (Gpr::Rbx, 1), (Gpr::Rcx, 2), (Gpr::Rdx, 3), (Gpr::Rsi, 4)];
        for (register, value) in arguments {
            machine.set_gpr(register, value);
        }
        machine.handle(Exit::Hypercall).unwrap();
        assert_eq!(machine.gpr(Gpr::Rax), expected, "privilege level {cpl}");
    }
}

/// Instructions that only privilege level 0 may execute: HLT, RDMSR, WRMSR, WBINVD, INVD, CLTS,
/// MOV to and from control and debug registers, LMSW, LGDT, LIDT, INVLPG, LLDT, LTR.
const PRIVILEGED: [&[u8]; 20] = [
    &[0xF4],
    &[0x0F, 0x32],
    &[0x0F, 0x30],
    &[0x0F, 0x09],
    &[0x0F, 0x08],
    &[0x0F, 0x06],
    &[0x0F, 0x22, 0xC0],
    &[0x0F, 0x22, 0xD8],
    &[0x0F, 0x22, 0xE0],
    &[0x0F, 0x20, 0xC0],
    &[0x0F, 0x20, 0xD8],
    &[0x0F, 0x20, 0xE0],
    &[0x0F, 0x23, 0xF8],
    &[0x0F, 0x21, 0xF8],
    &[0x0F, 0x01, 0xF0],
    &[0x0F, 0x01, 0x13],
    &[0x0F, 0x01, 0x1B],
    &[0x0F, 0x01, 0x3B],
    &[0x0F, 0x00, 0xD0],
    &[0x0F, 0x00, 0xD8],
];

/// Another CPU of the guest may put any of these in the place of the instruction that exited.
#[test]
fn the_emulator_gives_user_mode_nothing_privileged_in_any_mode() {
    type Build = fn(&[u8]) -> Emulated;
    let virtual_8086: Build = |code| {
        let mut machine = Emulated::protected(code);
        machine.cpu.rflags |= rflags::VM | rflags::IOPL;
        machine
    };
    let builds: [(&str, Build, &[u8]); 3] = [
        ("long mode", Emulated::long, &[1, 2, 3]),
        ("protected mode", Emulated::protected, &[1, 2, 3]),
        ("virtual-8086 mode", virtual_8086, &[3]),
    ];
    for (mode, build, levels) in builds {
        for code in PRIVILEGED {
            for cpl in levels {
                let mut machine = build(code);
                machine.cpu.cpl = *cpl;
                let before = machine.cpu.clone();
                let outcome = machine.run();
                // LLDT and LTR do not exist in virtual-8086 mode.
                let absent = mode == "virtual-8086 mode" && code.starts_with(&[0x0F, 0x00]);
                let fault =
                    if absent { Exception::INVALID_OPCODE } else { Exception::GENERAL_PROTECTION };
                assert_eq!(outcome, Outcome::Fault(fault), "{mode}, level {cpl}: {code:02x?}");
                assert_eq!(machine.cpu, before);
            }
        }
    }
}

/// Instructions of hardware virtualization, enclaves and the like, and what is switched off: VMRUN
/// to INVLPGA, VMLAUNCH to VMXOFF, VMFUNC, VMREAD, VMWRITE, GETSEC, ENCLS, ENCLV, PCONFIG, RDPRU,
/// INVLPGB, TLBSYNC, RDPID, RDTSCP, SYSCALL, SYSRET, XGETBV.
const ABSENT: [&[u8]; 26] = [
    &[0x0F, 0x01, 0xD8],
    &[0x0F, 0x01, 0xD9],
    &[0x0F, 0x01, 0xDA],
    &[0x0F, 0x01, 0xDB],
    &[0x0F, 0x01, 0xDC],
    &[0x0F, 0x01, 0xDD],
    &[0x0F, 0x01, 0xDE],
    &[0x0F, 0x01, 0xDF],
    &[0x0F, 0x01, 0xC2],
    &[0x0F, 0x01, 0xC3],
    &[0x0F, 0x01, 0xC4],
    &[0x0F, 0x01, 0xD4],
    &[0x0F, 0x78, 0xC0],
    &[0x0F, 0x79, 0xC0],
    &[0x0F, 0x37],
    &[0x0F, 0x01, 0xCF],
    &[0x0F, 0x01, 0xC0],
    &[0x0F, 0x01, 0xC5],
    &[0x0F, 0x01, 0xFD],
    &[0x0F, 0x01, 0xFE],
    &[0x0F, 0x01, 0xFF],
    &[0xF3, 0x0F, 0xC7, 0xF8],
    &[0x0F, 0x01, 0xF9],
    &[0x0F, 0x05],
    &[0x0F, 0x07],
    &[0x0F, 0x01, 0xD0],
];

/// Where the VMM interprets real mode, an instruction that it does not know ends the VM.
#[test]
fn instructions_that_no_guest_has_are_undefined_to_the_emulator() {
    for build in [Emulated::real as fn(&[u8]) -> Emulated, Emulated::protected, Emulated::long] {
        for code in ABSENT {
            let mut machine = build(code);
            let before = machine.cpu.clone();
            let outcome = machine.run();
            assert_eq!(outcome, Outcome::Fault(Exception::INVALID_OPCODE), "{code:02x?}");
            assert_eq!(machine.cpu, before);
        }
    }
    let mut machine = Emulated::real(&[0x0F, 0x01, 0xF9]);
    machine.cpu.time_auxiliary = Some(0x1234_5678);
    assert!(matches!(machine.run(), Outcome::Done { .. }));
    assert_eq!(machine.get(Gpr::Rcx), 0x1234_5678);
    for code in [&[0x0F, 0x34], &[0x0F, 0x35]] {
        // Real mode has no error codes.
        let fault = Exception { error_code: None, ..Exception::GENERAL_PROTECTION };
        assert_eq!(Emulated::real(code).run(), Outcome::Fault(fault), "{code:02x?}");
    }
}
