// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers, debug registers and XCR0.

use core::arch::asm;

use crate::rt::apic;
use crate::rt::cpu::{self, cpuid};
use crate::rt::report::Report;
use crate::rt::start_info::{is_bochs_svm, is_tcg_cpu};
use crate::rt::trap::{DONE, GP, Place, Trap, UD};

const OSXSAVE: u64 = 1 << 18;
const DEBUG_EXTENSIONS: u64 = 1 << 3;

pub fn run(report: &mut Report) {
    reserved(report);
    task_priority(report);
    debug_registers(report);
    extended(report);
    machine_status(report);
}

fn write_cr0(value: u64) -> Trap {
    run!(Place::KERNEL, ["mov cr0, rax"], in("rax") value)
}

fn write_cr4(value: u64) -> Trap {
    run!(Place::KERNEL, ["mov cr4, rax"], in("rax") value)
}

fn reserved(report: &mut Report) {
    let (cr0, cr4) = (cpu::read_cr0(), cpu::read_cr4());
    report.equal("CR0 takes its own value", write_cr0(cr0).cause(), (DONE, 0));
    report.equal("CR4 takes its own value", write_cr4(cr4).cause(), (DONE, 0));
    report.equal("CR4.PGE can be set", write_cr4(cr4 | 1 << 7).cause(), (DONE, 0));
    report.equal("CR4.PGE reads back", cpu::read_cr4(), cr4 | 1 << 7);
    report.equal("CR4.PGE can be cleared", write_cr4(cr4).cause(), (DONE, 0));
    let cr3 = cpu::read_cr3();
    let trap = run!(Place::KERNEL, ["mov cr3, rax"], in("rax") cr3);
    report.equal("CR3 takes its own value", trap.cause(), (DONE, 0));
    if cpu::is_bare_tcg() {
        report.skip("reserved bits of CR0, CR3 and CR4", "QEMU's TCG does not check them");
        return;
    }
    report.equal("CR4 reserved bit", write_cr4(cr4 | 1 << 31).cause(), (GP, 0));
    report.equal("CR4.PAE in long mode", write_cr4(cr4 & !(1 << 5)).cause(), (GP, 0));
    let trap = run!(Place::KERNEL, ["mov cr3, rax"], in("rax") cr3 | 1 << 60);
    report.equal("CR3 reserved bit", trap.cause(), (GP, 0));
    if is_tcg_cpu() {
        report.skip("reserved bits of CR0", "QEMU's TCG does not check them");
        return;
    }
    report.equal("CR0 upper half", write_cr0(cr0 | 1 << 32).cause(), (GP, 0));
    if is_bochs_svm() {
        report.skip("CR0.PG without PE", "Bochs's SVM lets guests clear PE and fails");
    } else {
        report.equal("CR0.PG without PE", write_cr0(cr0 & !1).cause(), (GP, 0));
    }
    report.equal("CR0.NW without CD", write_cr0(cr0 | 1 << 29).cause(), (GP, 0));
}

/// CR8 is bits 4 to 7 of the APIC's task priority.
fn task_priority(report: &mut Report) {
    apic::enable(false);
    for priority in [0, 1, 7, 15, 0] {
        // SAFETY: interrupts are off.
        unsafe { cpu::write_cr8(priority) };
        report.equal(format_args!("CR8 {priority} reads back"), cpu::read_cr8(), priority);
        let tpr = u64::from(apic::read(apic::TPR));
        report.equal(format_args!("CR8 {priority} in the APIC"), tpr, priority << 4);
    }
    apic::write(apic::TPR, 0x3F);
    report.equal("task priority in CR8", cpu::read_cr8(), 3);
    apic::write(apic::TPR, 0);
    report.equal("task priority back in CR8", cpu::read_cr8(), 0);
    if is_tcg_cpu() {
        report.skip("CR8 reserved bits", "QEMU's TCG does not check them");
    } else {
        let trap = run!(Place::KERNEL, ["mov cr8, rax"], in("rax") 16);
        report.equal("CR8 reserved bits", trap.cause(), (GP, 0));
    }
}

fn debug_registers(report: &mut Report) {
    let cr4 = cpu::read_cr4();
    let trap = run!(Place::KERNEL, ["mov dr1, rax", "mov rdx, dr1"], in("rax") 0x1234_5678_u64,
        out("rdx") _);
    report.equal("DR1 reads back", (trap.cause(), trap.frame.rdx), ((DONE, 0), 0x1234_5678));
    // SAFETY: only DR4 and DR5 change their meaning.
    unsafe { cpu::write_cr4(cr4 | DEBUG_EXTENSIONS) };
    let trap = run!(Place::KERNEL, [".byte 0x0F, 0x21, 0xE0"], out("rax") _);
    report.equal("DR4 with CR4.DE", trap.cause(), (UD, 0));
    let trap = run!(Place::KERNEL, [".byte 0x0F, 0x21, 0xE8"], out("rax") _);
    report.equal("DR5 with CR4.DE", trap.cause(), (UD, 0));
    // SAFETY: as it was.
    unsafe { cpu::write_cr4(cr4 & !DEBUG_EXTENSIONS) };
    let trap = run!(Place::KERNEL, [".byte 0x0F, 0x21, 0xE8"], out("rax") _);
    report.equal(
        "DR5 is DR7 without CR4.DE",
        (trap.cause(), trap.frame.rax),
        ((DONE, 0), cpu::read_dr7()),
    );
    report.equal("DR7 fixed bit", cpu::read_dr7() & 0x400, 0x400);
    if is_tcg_cpu() {
        report.skip("DR7 upper half", "QEMU's TCG does not check it");
    } else {
        let trap = run!(Place::KERNEL, ["mov dr7, rax"], in("rax") 1_u64 << 32 | 0x400);
        report.equal("DR7 upper half", trap.cause(), (GP, 0));
    }
}

fn set_xcr(index: u32, value: u64) -> Trap {
    run!(Place::KERNEL, ["xsetbv"], in("rcx") u64::from(index), in("rax") value & 0xFFFF_FFFF,
        in("rdx") value >> 32)
}

fn extended(report: &mut Report) {
    if cpuid(1, 0)[2] & 1 << 26 == 0 {
        report.skip("XCR0", "the CPU has no XSAVE");
        return;
    }
    let cr4 = cpu::read_cr4();
    // SAFETY: XSAVE is not used by this program.
    unsafe { cpu::write_cr4(cr4 & !OSXSAVE) };
    report.equal("XSETBV without CR4.OSXSAVE", set_xcr(0, 1).cause(), (UD, 0));
    // SAFETY: as above.
    unsafe { cpu::write_cr4(cr4 | OSXSAVE) };
    let supported = u64::from(cpuid(0xD, 0)[0]);
    report.equal("XCR0 1", set_xcr(0, 1).cause(), (DONE, 0));
    report.equal("area for x87 alone", cpuid(0xD, 0)[1], 576);
    report.equal("XCR0 3", set_xcr(0, 3).cause(), (DONE, 0));
    report.equal("XCR0 supported", set_xcr(0, supported).cause(), (DONE, 0));
    report.equal("area for all", cpuid(0xD, 0)[1], cpuid(0xD, 0)[2]);
    report.equal("XCR0 0", set_xcr(0, 0).cause(), (GP, 0));
    report.equal("XCR0 5: AVX without SSE", set_xcr(0, 5).cause(), (GP, 0));
    report.equal("XCR0 with all bits", set_xcr(0, u64::MAX).cause(), (GP, 0));
    report.equal("XCR0 with bit 62", set_xcr(0, 1 << 62 | 1).cause(), (GP, 0));
    report.equal("XCR1", set_xcr(1, 1).cause(), (GP, 0));
    let trap = run!(Place::USER, ["xsetbv"], in("rcx") 0, in("rax") 1, in("rdx") 0);
    report.equal("XSETBV in user mode", trap.cause(), (GP, 0));
    let trap = run!(Place::USER, ["xgetbv"], in("rcx") 0, out("rax") _, out("rdx") _);
    report.equal("XGETBV in user mode", (trap.cause(), trap.frame.rax), ((DONE, 0), supported));
    // SAFETY: as it was.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") 1, in("edx") 0);
        cpu::write_cr4(cr4);
    }
}

fn machine_status(report: &mut Report) {
    let cr0 = cpu::read_cr0();
    let trap = run!(Place::KERNEL, ["smsw rax"], out("rax") _);
    report.equal("SMSW", (trap.cause(), trap.frame.rax & 0xFFFF), ((DONE, 0), cr0 & 0xFFFF));
    let trap = run!(Place::KERNEL, ["lmsw ax"], in("rax") cr0 | 8);
    report.equal("LMSW sets TS", (trap.cause(), cpu::read_cr0()), ((DONE, 0), cr0 | 8));
    let trap = run!(Place::KERNEL, ["lmsw ax"], in("rax") 0);
    report.equal("LMSW cannot clear PE", (trap.cause(), cpu::read_cr0() & 1), ((DONE, 0), 1));
    // SAFETY: as it was.
    unsafe { cpu::write_cr0(cr0) };
}
