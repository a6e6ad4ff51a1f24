// SPDX-License-Identifier: MIT OR Apache-2.0
//! SYSCALL and SYSRET.

use core::arch::global_asm;

use crate::rt::cpu;
use crate::rt::report::Report;
use crate::rt::segments::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_CODE32, USER_DATA};
use crate::rt::trap::{DONE, GP, Place, UD};

const EFER: u32 = 0xC000_0080;
const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const CSTAR: u32 = 0xC000_0083;
const SFMASK: u32 = 0xC000_0084;
const SYSTEM_CALL_EXTENSIONS: u64 = 1;
const DIRECTION: u64 = 1 << 10;
/// CPUID may be used; a flag that QEMU's TCG does not lose here, as it does the arithmetic ones.
const IDENTIFICATION: u64 = 1 << 21;

/// Vector by which the entry points report.
const ENTERED: u64 = 0x90;

global_asm!(".global system_call_entry", "system_call_entry:", "int 0x90");

unsafe extern "C" {
    fn system_call_entry();
}

pub fn run(report: &mut Report) {
    let trap = run!(Place::USER, ["syscall"], out("rcx") _);
    report.equal("SYSCALL without EFER.SCE", trap.cause(), (UD, 0));
    let entry = system_call_entry as *const () as u64;
    let selectors = u64::from(USER_CODE32) << 48 | u64::from(KERNEL_CODE) << 32;
    // SAFETY: an entry point that traps at once; interrupts are off.
    unsafe {
        cpu::wrmsr(STAR, selectors);
        cpu::wrmsr(LSTAR, entry);
        cpu::wrmsr(CSTAR, entry);
        cpu::wrmsr(SFMASK, DIRECTION);
        cpu::wrmsr(EFER, cpu::rdmsr(EFER) | SYSTEM_CALL_EXTENSIONS);
    }
    call(report);
    back(report);
    // SAFETY: as it was.
    unsafe { cpu::wrmsr(EFER, cpu::rdmsr(EFER) & !SYSTEM_CALL_EXTENSIONS) };
    let trap = run!(Place::KERNEL, ["sysretq"], in("rcx") 0);
    report.equal("SYSRET without EFER.SCE", trap.cause(), (UD, 0));
}

fn call(report: &mut Report) {
    let flags = DIRECTION | IDENTIFICATION;
    let trap = run!(Place::USER.with_flags(flags), ["syscall"], out("rcx") _);
    let frame = trap.frame;
    report.equal("SYSCALL", trap.cause(), (ENTERED, 0));
    report.equal("SYSCALL goes to LSTAR", frame.rip, system_call_entry as *const () as u64 + 2);
    let segments = (u64::from(KERNEL_CODE), u64::from(KERNEL_DATA));
    report.equal("SYSCALL loads CS and SS", (frame.cs, frame.ss), segments);
    report.equal("SYSCALL saves RIP", frame.rcx, frame.r10);
    report.equal("SYSCALL saves the flags", frame.r11 & flags, flags);
    report.equal("SYSCALL masks the flags", frame.rflags & flags, IDENTIFICATION);
}

fn back(report: &mut Report) {
    let trap = run!(Place::KERNEL, ["mov rcx, r10", "mov r11d, 0x200402", "sysretq"], out("rcx") _);
    let frame = trap.frame;
    report.equal("SYSRET", trap.cause(), (DONE, 0));
    let segments = (u64::from(USER_CODE), u64::from(USER_DATA));
    report.equal("SYSRET loads CS and SS", (frame.cs, frame.ss), segments);
    report.equal(
        "SYSRET loads the flags",
        frame.rflags & (DIRECTION | IDENTIFICATION),
        DIRECTION | IDENTIFICATION,
    );
    let trap = run!(Place::KERNEL, ["mov rcx, r10", "mov r11d, 2", "sysret"], out("rcx") _);
    report.equal(
        "SYSRET to 32 bits",
        (trap.cause(), trap.frame.cs),
        ((DONE, 0), u64::from(USER_CODE32)),
    );
    let trap = run!(Place::USER, ["sysretq"], in("rcx") 0);
    report.equal("SYSRET in user mode", trap.cause(), (GP, 0));
}
