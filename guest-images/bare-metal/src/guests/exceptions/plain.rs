// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions of plain instructions, in 64-bit and compatibility mode and at both ends of
//! privilege.

use super::{fault, gate_error, trap_behind};
use crate::rt::report::Report;
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::{BP, BR, DE, DONE, GP, OF, Place, UD};

pub fn run(report: &mut Report) {
    divide(report);
    invalid(report);
    software(report);
    compatibility(report);
    privileged(report);
}

fn divide(report: &mut Report) {
    let trap = run!(Place::KERNEL, ["div cl"], in("rax") 1, in("rcx") 0);
    fault(report, "#DE by zero", trap, DE, 0);
    let trap = run!(Place::KERNEL, ["idiv rcx"], in("rax") 0, in("rcx") -1_i64,
        in("rdx") i64::MIN);
    fault(report, "#DE by overflow", trap, DE, 0);
    let trap = run!(Place::USER, ["div ecx"], in("rax") 1, in("rcx") 0, in("rdx") 0);
    fault(report, "#DE in user mode", trap, DE, 0);
    report.equal("user mode was left", trap.frame.cs & 3, 3);
}

fn invalid(report: &mut Report) {
    fault(report, "#UD", run!(Place::KERNEL, ["ud2"]), UD, 0);
    fault(report, "#UD in user mode", run!(Place::USER, ["ud2"]), UD, 0);
    if is_tcg_cpu() {
        report.skip("#UD for LOCK on a register", "QEMU's TCG executes it");
    } else {
        let trap = run!(Place::KERNEL, [".byte 0xF0, 0x89, 0xC0"]);
        fault(report, "#UD for LOCK on a register", trap, UD, 0);
    }
    fault(report, "#UD for POP CS", run!(Place::KERNEL, [".byte 0x0E"]), UD, 0);
    let long = run!(Place::KERNEL, [".fill 15, 1, 0x66", "nop"]);
    fault(report, "#GP for more than 15 bytes", long, GP, 0);
    let legal = run!(Place::KERNEL, [".fill 14, 1, 0x66", "nop"]);
    report.equal("15 bytes are legal", legal.cause(), (DONE, 0));
}

fn software(report: &mut Report) {
    trap_behind(report, "#BP", run!(Place::KERNEL, ["int3"]), BP);
    trap_behind(report, "#BP in user mode", run!(Place::USER, ["int3"]), BP);
    trap_behind(report, "INT 3 in two bytes", run!(Place::KERNEL, [".byte 0xCD, 3"]), BP);
    trap_behind(report, "INT n", run!(Place::KERNEL, ["int 0x90"]), 0x90);
    trap_behind(report, "INT n of an exception", run!(Place::KERNEL, ["int 6"]), UD);
    let trap = run!(Place::USER, ["int 0x90"]);
    fault(report, "#GP for INT n through a kernel gate", trap, GP, gate_error(0x90, false));
    trap_behind(report, "INT n in user mode", run!(Place::USER, ["int 0x81"]), DONE);
}

fn compatibility(report: &mut Report) {
    let overflow = Place::KERNEL32.with_flags(1 << 11);
    trap_behind(report, "#OF", run!(overflow, [".code32", "into"]), OF);
    let overflow = Place::USER32.with_flags(1 << 11);
    trap_behind(report, "#OF in user mode", run!(overflow, [".code32", "into"]), OF);
    let none = run!(Place::KERNEL32, [".code32", "into"]);
    report.equal("INTO without overflow", none.cause(), (DONE, 0));

    let bounds: [i32; 2] = [-5, 5];
    let trap = run!(Place::KERNEL32, [".code32", "bound eax, [edi]"],
        in("rax") 6, in("rdi") &raw const bounds);
    fault(report, "#BR", trap, BR, 0);
    let inside = run!(Place::USER32, [".code32", "bound eax, [edi]"],
        in("rax") -5_i32, in("rdi") &raw const bounds);
    report.equal("BOUND within bounds", inside.cause(), (DONE, 0));
    fault(report, "#UD in compatibility mode", run!(Place::USER32, [".code32", "ud2"]), UD, 0);
    let syscall_flag = run!(Place::KERNEL, [".byte 0xCE"]);
    fault(report, "#UD for INTO in 64-bit mode", syscall_flag, UD, 0);
}

fn privileged(report: &mut Report) {
    fault(report, "#GP for HLT", run!(Place::USER, ["hlt"]), GP, 0);
    fault(report, "#GP for CLI", run!(Place::USER, ["cli"]), GP, 0);
    fault(report, "#GP for STI", run!(Place::USER, ["sti"]), GP, 0);
    fault(report, "#GP for MOV CR0", run!(Place::USER, ["mov rax, cr0"], out("rax") _), GP, 0);
    fault(report, "#GP for MOV DR7", run!(Place::USER, ["mov rax, dr7"], out("rax") _), GP, 0);
    fault(report, "#GP for CLTS", run!(Place::USER, ["clts"]), GP, 0);
    fault(report, "#GP for RDMSR", run!(Place::USER, ["rdmsr"], in("rcx") 0x1B), GP, 0);
    fault(report, "#GP for WBINVD", run!(Place::USER, ["wbinvd"]), GP, 0);
    fault(report, "#GP for INVLPG", run!(Place::USER, ["invlpg [rsp]"]), GP, 0);
    fault(report, "#GP for LMSW", run!(Place::USER, ["lmsw ax"], in("rax") 0x33), GP, 0);
    let trap = run!(Place::USER, ["lidt [rsp]"]);
    fault(report, "#GP for LIDT", trap, GP, 0);
    let ports = Place::USER.with_flags(3 << 12);
    let trap = run!(ports, ["cli", "sti", "cli"]);
    report.equal("CLI and STI with IOPL 3", trap.cause(), (DONE, 0));
}
