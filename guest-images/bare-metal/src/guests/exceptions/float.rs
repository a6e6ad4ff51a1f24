// SPDX-License-Identifier: MIT OR Apache-2.0
//! #NM, #MF, #XM, #AC and #GP of the floating-point and vector units.

use core::arch::asm;

use super::fault;
use crate::rt::cpu;
use crate::rt::paging::SCRATCH;
use crate::rt::report::Report;
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::{AC, DONE, GP, MF, NM, Place, UD, XM};

const MONITOR: u64 = 1 << 1;
const EMULATION: u64 = 1 << 2;
const TASK_SWITCHED: u64 = 1 << 3;
const ALIGNMENT_MASK: u64 = 1 << 18;
const ALIGNMENT_CHECK: u64 = 1 << 18;
const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;

pub fn run(report: &mut Report) {
    device_not_available(report);
    x87(report);
    vector(report);
    alignment(report);
}

/// Runs with other CR0 flags.
fn with_cr0<T>(set: u64, clear: u64, test: impl FnOnce() -> T) -> T {
    let before = cpu::read_cr0();
    // SAFETY: the flags concern only floating point and alignment, which this program does
    // not use outside its tests.
    unsafe { cpu::write_cr0(before & !clear | set) };
    let result = test();
    // SAFETY: as it was.
    unsafe { cpu::write_cr0(before) };
    result
}

/// Runs with some CR4 flags clear.
fn without_cr4<T>(clear: u64, test: impl FnOnce() -> T) -> T {
    let before = cpu::read_cr4();
    // SAFETY: the flags concern only vector instructions.
    unsafe { cpu::write_cr4(before & !clear) };
    let result = test();
    // SAFETY: as it was.
    unsafe { cpu::write_cr4(before) };
    result
}

fn device_not_available(report: &mut Report) {
    let trap = with_cr0(TASK_SWITCHED, 0, || run!(Place::KERNEL, ["fninit"]));
    fault(report, "#NM with CR0.TS", trap, NM, 0);
    let trap = with_cr0(TASK_SWITCHED | MONITOR, 0, || run!(Place::KERNEL, ["fwait"]));
    fault(report, "#NM for FWAIT", trap, NM, 0);
    let trap = with_cr0(TASK_SWITCHED, MONITOR, || run!(Place::KERNEL, ["fwait"]));
    report.equal("FWAIT without CR0.MP", trap.cause(), (DONE, 0));
    let trap = with_cr0(EMULATION, 0, || run!(Place::KERNEL, ["fninit"]));
    fault(report, "#NM with CR0.EM", trap, NM, 0);
    let trap = with_cr0(TASK_SWITCHED, 0, || run!(Place::USER, ["xorps xmm0, xmm0"]));
    fault(report, "#NM for SSE with CR0.TS", trap, NM, 0);
    let trap = with_cr0(EMULATION, 0, || run!(Place::KERNEL, ["xorps xmm0, xmm0"]));
    fault(report, "#UD for SSE with CR0.EM", trap, UD, 0);
    let trap = without_cr4(OSFXSR, || run!(Place::KERNEL, ["xorps xmm0, xmm0"]));
    fault(report, "#UD for SSE without CR4.OSFXSR", trap, UD, 0);
    let trap = with_cr0(TASK_SWITCHED, 0, || run!(Place::KERNEL, ["clts", "fninit"]));
    report.equal("CLTS", trap.cause(), (DONE, 0));
}

fn x87(report: &mut Report) {
    let control: u16 = 0x037B;
    // SAFETY: divides one by zero with that exception unmasked; it waits to be reported.
    unsafe {
        asm!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp st(1), st", in(reg) &raw const control);
    }
    fault(report, "#MF at the next FWAIT", run!(Place::KERNEL, ["fwait"]), MF, 0);
    if is_tcg_cpu() {
        report.skip("#MF at the next FLD", "QEMU's TCG reports only at FWAIT");
    } else {
        fault(report, "#MF at the next FLD", run!(Place::USER, ["fld1"]), MF, 0);
    }
    let trap = run!(Place::KERNEL, ["fnclex", "fwait", "fninit"]);
    report.equal("FNCLEX clears it", trap.cause(), (DONE, 0));
}

fn divide_by_zero() -> crate::rt::trap::Trap {
    // SAFETY: division by zero unmasked; one in XMM0 and zero in XMM1.
    unsafe {
        let control: u32 = 0x1D80;
        let one: u64 = 0x3F80_0000;
        asm!("ldmxcsr [{}]", "movq xmm0, {}", "xorps xmm1, xmm1", in(reg) &raw const control,
             in(reg) one);
    }
    let trap = run!(Place::KERNEL, ["divss xmm0, xmm1"]);
    // SAFETY: all exceptions masked again.
    unsafe {
        let control: u32 = 0x1F80;
        asm!("ldmxcsr [{}]", in(reg) &raw const control);
    }
    trap
}

fn vector(report: &mut Report) {
    if is_tcg_cpu() {
        report.skip("#XM", "QEMU's TCG raises no vector floating-point exceptions");
    } else {
        fault(report, "#XM", divide_by_zero(), XM, 0);
        let trap = without_cr4(OSXMMEXCPT, divide_by_zero);
        fault(report, "#UD instead of #XM without CR4.OSXMMEXCPT", trap, UD, 0);
    }
    if is_tcg_cpu() {
        report.skip("#GP of SSE", "QEMU's TCG checks neither MXCSR nor alignment");
        return;
    }
    let reserved: u32 = 0x1_0000;
    let trap = run!(Place::KERNEL, ["ldmxcsr [rdi]"], in("rdi") &raw const reserved);
    fault(report, "#GP for reserved bits of MXCSR", trap, GP, 0);
    let odd = SCRATCH.address() + 4;
    let trap = run!(Place::KERNEL, ["movaps xmm0, [rdi]"], in("rdi") odd);
    fault(report, "#GP for a misaligned vector", trap, GP, 0);
}

fn alignment(report: &mut Report) {
    let odd = SCRATCH.address() + 1;
    let read = |place| run!(place, ["mov eax, [rdi]"], in("rdi") odd, out("rax") _);
    let checked = Place::USER.with_flags(ALIGNMENT_CHECK);
    let trap = with_cr0(ALIGNMENT_MASK, 0, || read(checked));
    if is_tcg_cpu() {
        report.skip("#AC", "QEMU's TCG does not check alignment");
    } else {
        fault(report, "#AC", trap, AC, 0);
    }
    let trap = with_cr0(ALIGNMENT_MASK, 0, || read(Place::USER));
    report.equal("no #AC without RFLAGS.AC", trap.cause(), (DONE, 0));
    let trap = with_cr0(0, ALIGNMENT_MASK, || read(checked));
    report.equal("no #AC without CR0.AM", trap.cause(), (DONE, 0));
    let supervisor = Place::KERNEL.with_flags(ALIGNMENT_CHECK);
    let trap = with_cr0(ALIGNMENT_MASK, 0, || read(supervisor));
    report.equal("no #AC in the kernel", trap.cause(), (DONE, 0));
}
