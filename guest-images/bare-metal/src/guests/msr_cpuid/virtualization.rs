// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of hardware virtualization, and those that a VMM has a policy for.

use crate::rt::cpu::{self, cpuid, is_bare_tcg};
use crate::rt::paging::SCRATCH;
use crate::rt::report::Report;
use crate::rt::trap::{DONE, GP, Place, Trap, UD, try_wrmsr};

const EFER: u32 = 0xC000_0080;
const SVM_ENABLE: u64 = 1 << 12;

pub fn run(report: &mut Report) {
    svm(report);
    caches(report);
    waiting(report);
    others(report);
}

/// Without EFER.SVME the instructions of SVM are undefined.
fn svm(report: &mut Report) {
    let rax = SCRATCH.address();
    let mut undefined = |name: &str, trap: Trap| report.equal(name, trap.cause(), (UD, 0));
    undefined("VMRUN", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xD8"], in("rax") rax));
    undefined("VMLOAD", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDA"], in("rax") rax));
    undefined("VMSAVE", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDB"], in("rax") rax));
    undefined("STGI", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDC"]));
    undefined("CLGI", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDD"]));
    undefined("INVLPGA", run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDF"], in("rax") rax));
    undefined("VMXON", run!(Place::KERNEL, [".byte 0xF3, 0x0F, 0xC7, 0x37"], in("rdi") rax));
    undefined("RSM", run!(Place::KERNEL, [".byte 0x0F, 0xAA"]));
    // Under SVM the hardware's own check of the privilege level comes before any intercept.
    let trap = run!(Place::USER, [".byte 0x0F, 0x01, 0xD8"], in("rax") rax);
    report.holds("VMRUN in user mode", matches!(trap.cause(), (UD, 0) | (GP, 0)), trap.cause());
    // A hypercall of a number that nobody has may be refused in either way; that of the other
    // manufacturer is no instruction.
    let trap = run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xD9"], in("rax") 0xFFFF_FFF0_u64,
        out("rcx") _, out("rdx") _);
    let allowed = trap.cause() == (UD, 0) || !is_intel() && trap.cause() == (DONE, 0);
    report.holds("VMMCALL", allowed, trap.cause());
    let trap = run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xC1"], in("rax") 0xFFFF_FFF0_u64,
        out("rcx") _, out("rdx") _);
    let allowed = trap.cause() == (UD, 0) || is_intel() && trap.cause() == (DONE, 0);
    report.holds("VMCALL", allowed, trap.cause());
    let trap = run!(Place::USER, [".byte 0x0F, 0x01, 0xD9"], in("rax") 0xFFFF_FFF0_u64);
    report.holds("VMMCALL in user mode", matches!(trap.frame.vector, UD | GP | DONE), trap.cause());
    if is_bare_tcg() {
        report.skip("no SVM", "bare QEMU has it");
    } else if cpuid(0, 0)[1] == u32::from_le_bytes(*b"Auth") {
        report.equal("no SVM in CPUID", cpuid(0x8000_0001, 0)[2] >> 2 & 1, 0);
        // SAFETY: without SVM the bit is reserved and the write refused.
        let set = unsafe { try_wrmsr(EFER, cpu::rdmsr(EFER) | SVM_ENABLE) };
        report.equal("EFER.SVME", (set, cpu::rdmsr(EFER) & SVM_ENABLE), (false, 0));
    }
    report.equal("no VT-x in CPUID", cpuid(1, 0)[2] >> 5 & 1, 0);
}

fn is_intel() -> bool {
    cpuid(0, 0)[1] == u32::from_le_bytes(*b"Genu")
}

fn caches(report: &mut Report) {
    report.equal("WBINVD", run!(Place::KERNEL, ["wbinvd"]).cause(), (DONE, 0));
    let at = SCRATCH.get().cast::<u64>();
    // SAFETY: the test's own page.
    unsafe { at.write_volatile(0x5A5A) };
    let cause = run!(Place::KERNEL, ["invd"]).cause();
    // SAFETY: as above.
    let kept = (cause, unsafe { at.read_volatile() });
    // Were INVD to reach a real cache, the guest's writes would be lost.
    report.equal("INVD loses nothing", kept, ((DONE, 0), 0x5A5A));
    report.equal("INVD in user mode", run!(Place::USER, ["invd"]).cause(), (GP, 0));
}

fn waiting(report: &mut Report) {
    let present = cpuid(1, 0)[2] & 1 << 3 != 0;
    let expected = if present { (DONE, 0) } else { (UD, 0) };
    let rax = SCRATCH.address();
    if is_bare_tcg() && !present {
        report.skip("MONITOR", "QEMU executes it though CPUID does not have it");
    } else {
        let trap = run!(Place::KERNEL, ["monitor"], in("rax") rax, in("rcx") 0, in("rdx") 0);
        report.equal("MONITOR as CPUID says", trap.cause(), expected);
    }
    report.equal("PAUSE", run!(Place::USER, ["pause"]).cause(), (DONE, 0));
}

fn others(report: &mut Report) {
    let trap = run!(Place::KERNEL, ["rdpmc"], in("rcx") 0x3FFF_FFFF, out("rax") _, out("rdx") _);
    report.holds(
        "RDPMC of a counter that is not",
        matches!(trap.frame.vector, GP | UD),
        trap.cause(),
    );
    let random = cpuid(1, 0)[2] & 1 << 30 != 0;
    let trap = run!(Place::USER, ["rdrand rax"], out("rax") _);
    let expected = if random { (DONE, 0) } else { (UD, 0) };
    report.equal("RDRAND as CPUID says", trap.cause(), expected);
    let trap = run!(Place::KERNEL, ["rdtsc"], out("rax") _, out("rdx") _);
    report.equal("RDTSC", trap.cause(), (DONE, 0));
    let cr4 = cpu::read_cr4();
    // SAFETY: forbids RDTSC to user mode.
    unsafe { cpu::write_cr4(cr4 | 1 << 2) };
    let trap = run!(Place::USER, ["rdtsc"], out("rax") _, out("rdx") _);
    report.equal("RDTSC in user mode with CR4.TSD", trap.cause(), (GP, 0));
    // SAFETY: as it was.
    unsafe { cpu::write_cr4(cr4) };
}
