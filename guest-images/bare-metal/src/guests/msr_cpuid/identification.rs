// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID: leaves that agree with each other and with the machine.

use crate::rt::apic;
use crate::rt::cpu::{self, cpuid};
use crate::rt::report::Report;
use crate::rt::trap::{DONE, Place};

const OSXSAVE: u64 = 1 << 18;

pub fn run(report: &mut Report) {
    leaves(report);
    features(report);
    topology(report);
    dynamic_bits(report);
    instruction(report);
}

fn printable(registers: impl IntoIterator<Item = u32>) -> bool {
    registers
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .all(|byte| byte == 0 || (0x20..0x7F).contains(&byte))
}

fn leaves(report: &mut Report) {
    let [max, b, c, d] = cpuid(0, 0);
    report.within("highest basic leaf", max.into(), 0x7, 0x40);
    report.holds("vendor is text", printable([b, c, d]), [b, d, c]);
    let [extended, eb, ec, ed] = cpuid(0x8000_0000, 0);
    report.within("highest extended leaf", extended.into(), 0x8000_0008, 0x8000_0040);
    let amd = b == u32::from_le_bytes(*b"Auth");
    let same = [eb, ec, ed] == [b, c, d];
    report.holds("vendor in the extended leaf", same || !amd, [eb, ed, ec]);
    let brand = (0x8000_0002..=0x8000_0004).flat_map(|leaf| cpuid(leaf, 0));
    report.holds("brand is text", printable(brand), cpuid(0x8000_0002, 0));
    let hypervisor = cpuid(1, 0)[2] >> 31 == 1;
    let [max, b, c, d] = cpuid(0x4000_0000, 0);
    let named = max >= 0x4000_0000 && b != 0 && printable([b, c, d]);
    report.holds("a hypervisor has a name", named || !hypervisor, [max, b, c, d]);
}

fn features(report: &mut Report) {
    /// FPU, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, FXSR, SSE, SSE2.
    const BASELINE: u32 = 0x0701_AB79 & !(1 << 12);
    let edx = cpuid(1, 0)[3];
    report.equal("features of every 64-bit CPU", edx & BASELINE, BASELINE);
    let extended = cpuid(0x8000_0001, 0)[3];
    let needed = 1 << 11 | 1 << 20 | 1 << 29;
    report.equal("SYSCALL, NX and long mode", extended & needed, needed);
    let bits = cpuid(0x8000_0008, 0)[0];
    report.within("physical address bits", (bits & 0xFF).into(), 36, 52);
    report.holds("linear address bits", matches!(bits >> 8 & 0xFF, 48 | 57), bits);
}

fn topology(report: &mut Report) {
    apic::enable(false);
    report.equal("APIC identifier", cpuid(1, 0)[1] >> 24, apic::id());
    let max = cpuid(0, 0)[0];
    if max >= 0xB && cpuid(0xB, 0)[1] != 0 {
        let [shift, threads, level, id] = cpuid(0xB, 0);
        report.equal("x2APIC identifier", id, apic::id());
        report.equal("first level is threads", level >> 8 & 0xFF, 1);
        report.equal(
            "identifier bits hold the threads",
            threads & 0xFFFF <= 1 << (shift & 31),
            true,
        );
        report.equal("second level is cores", cpuid(0xB, 1)[2] >> 8 & 0xFF, 2);
        report.equal("no third level", cpuid(0xB, 2)[2] >> 8 & 0xFF, 0);
    }
}

/// Bits that follow the machine's state.
fn dynamic_bits(report: &mut Report) {
    if cpuid(1, 0)[2] & 1 << 26 != 0 {
        let cr4 = cpu::read_cr4();
        let osxsave = || cpuid(1, 0)[2] >> 27 & 1;
        // SAFETY: XSAVE is not used by this program.
        unsafe {
            cpu::write_cr4(cr4 | OSXSAVE);
            report.equal("OSXSAVE follows CR4", osxsave(), 1);
            cpu::write_cr4(cr4 & !OSXSAVE);
            report.equal("OSXSAVE follows CR4 back", osxsave(), 0);
        }
    }
    let base = cpu::rdmsr(apic::MSR_APIC_BASE);
    // SAFETY: no interrupt is expected; the APIC is switched on again.
    unsafe {
        cpu::wrmsr(apic::MSR_APIC_BASE, base & !apic::ENABLE);
        report.equal("no APIC while it is off", cpuid(1, 0)[3] >> 9 & 1, 0);
        cpu::wrmsr(apic::MSR_APIC_BASE, base);
    }
    if cpu::is_bare_tcg() {
        report.skip("APIC while it is on", "QEMU never sets the bit again");
    } else {
        report.equal("APIC while it is on", cpuid(1, 0)[3] >> 9 & 1, 1);
    }
}

fn instruction(report: &mut Report) {
    let trap = run!(Place::USER, ["push rbx", "cpuid", "mov rsi, rbx", "pop rbx"],
        in("rax") 0xFFFF_FFFF_0000_0000_u64, in("rcx") u64::MAX, in("rdx") u64::MAX,
        out("rsi") _);
    report.equal("CPUID in user mode", trap.frame.vector, DONE);
    let [a, b, c, d] = cpuid(0, u32::MAX).map(u64::from);
    let frame = trap.frame;
    report.equal(
        "it clears the upper halves",
        [frame.rax, frame.rsi, frame.rcx, frame.rdx],
        [a, b, c, d],
    );
    let mut same = true;
    for _ in 0..100 {
        same &= cpuid(0, 0) == [a as u32, b as u32, c as u32, d as u32];
    }
    report.equal("it says the same every time", same, true);
}
