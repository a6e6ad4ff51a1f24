// SPDX-License-Identifier: MIT OR Apache-2.0
//! #DB: single step, INT1 and hardware breakpoints.

use core::arch::asm;

use super::{fault, trap_behind};
use crate::rt::cell::Fixed;
use crate::rt::cpu;
use crate::rt::report::Report;
use crate::rt::start_info::{is_bochs_svm, is_tcg_cpu};
use crate::rt::trap::{DB, DONE, Place};

const TRAP_FLAG: u64 = 1 << 8;
const SINGLE_STEP: u64 = 1 << 14;
/// Bits of DR6 that are always set.
const DR6_CLEAR: u64 = 0xFFFF_0FF0;

static WATCHED: Fixed<u64> = Fixed::new(0);

pub fn run(report: &mut Report) {
    single_step(report);
    if is_tcg_cpu() {
        report.skip("INT1", "QEMU's TCG does not deliver it as #DB");
    } else {
        trap_behind(report, "INT1", run!(Place::KERNEL, [".byte 0xF1"]), DB);
        trap_behind(report, "INT1 in user mode", run!(Place::USER, [".byte 0xF1"]), DB);
    }
    breakpoints(report);
}

fn clear_dr6() {
    // SAFETY: no breakpoint is set.
    unsafe { cpu::write_dr6(DR6_CLEAR) };
}

fn single_step(report: &mut Report) {
    clear_dr6();
    let trap = run!(Place::KERNEL.with_flags(TRAP_FLAG), ["nop"]);
    trap_behind(report, "single step", trap, DB);
    report.equal("single step in DR6", cpu::read_dr6() & (SINGLE_STEP | 0xF), SINGLE_STEP);
    report.equal("TF in the stored flags", trap.frame.rflags & TRAP_FLAG, TRAP_FLAG);
    let trap = run!(Place::USER.with_flags(TRAP_FLAG), ["nop"]);
    trap_behind(report, "single step in user mode", trap, DB);
    let trap = run!(Place::KERNEL.with_flags(TRAP_FLAG), ["cpuid"],
        in("rax") 0, out("rcx") _, out("rdx") _);
    trap_behind(report, "single step over CPUID", trap, DB);
    let trap = run!(Place::KERNEL.with_flags(TRAP_FLAG), ["in al, 0x80"], out("rax") _);
    trap_behind(report, "single step over IN", trap, DB);
    let trap = run!(Place::KERNEL.with_flags(TRAP_FLAG), ["mov eax, [rdi]"],
        in("rdi") crate::rt::apic::IOAPIC, out("rax") _);
    trap_behind(report, "single step over MMIO", trap, DB);
    let trap = run!(Place::KERNEL.with_flags(TRAP_FLAG), ["rdmsr"],
        in("rcx") 0x1B, out("rax") _, out("rdx") _);
    trap_behind(report, "single step over RDMSR", trap, DB);
    clear_dr6();
}

/// Sets breakpoint 0: `kind` is the R/W field, `length` the LEN field.
fn set_breakpoint(address: u64, kind: u64, length: u64) {
    // SAFETY: the breakpoint hits only within `run!`.
    unsafe {
        cpu::write_dr7(0x400);
        asm!("mov dr0, {}", in(reg) address, options(nomem, nostack));
        cpu::write_dr7(0x400 | 2 | kind << 16 | length << 18);
    }
    clear_dr6();
}

fn breakpoints(report: &mut Report) {
    set_breakpoint(WATCHED.address(), 1, 3);
    let trap = run!(Place::KERNEL, ["mov dword ptr [rdi], 1"], in("rdi") WATCHED.get());
    trap_behind(report, "write breakpoint", trap, DB);
    if is_bochs_svm() {
        report.skip("write breakpoint in DR6", "Bochs's SVM does not tell");
    } else {
        report.equal("write breakpoint in DR6", cpu::read_dr6() & (SINGLE_STEP | 0xF), 1);
    }
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") WATCHED.get(), out("rax") _);
    report.equal("write breakpoint lets reads pass", trap.cause(), (DONE, 0));

    set_breakpoint(WATCHED.address(), 3, 3);
    let trap = run!(Place::USER, ["mov eax, [rdi]"], in("rdi") WATCHED.get(), out("rax") _);
    trap_behind(report, "access breakpoint in user mode", trap, DB);

    let target: u64;
    // SAFETY: reads the address of an instruction that is jumped over.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "jmp 3f", "2: nop", "ret", "3:", out(reg) target);
    }
    set_breakpoint(target, 0, 0);
    let trap = run!(Place::KERNEL, ["call rdi"], in("rdi") target);
    report.equal("execution breakpoint", trap.cause(), (DB, 0));
    report.equal("execution breakpoint is a fault", trap.frame.rip, target);
    let resumed = Place::KERNEL.with_flags(1 << 16);
    set_breakpoint(target, 0, 0);
    let trap = run!(resumed, ["jmp rdi"], in("rdi") target);
    report.equal("RF covers one instruction only", trap.cause(), (DB, 0));
    // SAFETY: switches all breakpoints off.
    unsafe { cpu::write_dr7(0x400) };
    clear_dr6();
    if is_tcg_cpu() {
        report.skip("general detect", "QEMU's TCG does not have it");
    } else {
        general_detect(report);
    }
}

/// DR7.GD: any access to a debug register is reported before it happens.
fn general_detect(report: &mut Report) {
    // SAFETY: the next access to a debug register is the one in `run!`, and its exception clears GD.
    unsafe { cpu::write_dr7(0x400 | 1 << 13) };
    let trap = run!(Place::KERNEL, ["mov rax, dr0"], out("rax") _);
    fault(report, "general detect", trap, DB, 0);
    report.equal("general detect in DR6", cpu::read_dr6() & 1 << 13, 1 << 13);
    report.equal("general detect clears itself", cpu::read_dr7() & 1 << 13, 0);
    clear_dr6();
}
