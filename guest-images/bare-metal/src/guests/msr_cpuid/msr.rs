// SPDX-License-Identifier: MIT OR Apache-2.0
//! Model-specific registers: those that must be there, those that must not, and what they refuse.

use core::arch::asm;

use crate::rt::apic;
use crate::rt::cell::Fixed;
use crate::rt::cpu::{self, cpuid, is_bare_tcg};
use crate::rt::report::Report;
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::{DONE, GP, Place, UD, try_rdmsr, try_wrmsr};

const TSC: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3B;
const PAT: u32 = 0x277;
const EFER: u32 = 0xC000_0080;
const LSTAR: u32 = 0xC000_0082;
const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
const TSC_AUX: u32 = 0xC000_0103;

/// Registers of every 64-bit CPU: APIC base, TSC, SYSENTER, PAT, EFER, SYSCALL, segment bases.
const ALWAYS: [u32; 13] = [
    0x1B,
    0x10,
    0x174,
    0x175,
    0x176,
    0x277,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0102,
];
/// Numbers that no CPU model uses, and AMD's VM_HSAVE_PA, which a guest without SVM lacks.
const NEVER: [u32; 6] =
    [0x4000_F123, 0x0000_3333, 0xC000_0F00, 0xC001_7FFF, 0xFFFF_FFFF, 0x1234_5678];
const VM_HSAVE_PA: u32 = 0xC001_0117;

static TARGET: Fixed<u64> = Fixed::new(0x1122_3344_5566_7788);

pub fn run(report: &mut Report) {
    presence(report);
    reserved(report);
    time_stamp(report);
    segment_bases(report);
    processor_id(report);
}

fn presence(report: &mut Report) {
    for index in ALWAYS {
        report.equal(format_args!("MSR {index:#x} is there"), try_rdmsr(index).is_some(), true);
    }
    if is_bare_tcg() {
        report.skip("unknown MSRs", "QEMU reads them as zero and drops writes");
        return;
    }
    for index in NEVER {
        report.equal(format_args!("read of MSR {index:#x}"), try_rdmsr(index), None);
        // SAFETY: no such register.
        let written = unsafe { try_wrmsr(index, 0) };
        report.equal(format_args!("write of MSR {index:#x}"), written, false);
    }
    if cpuid(0x8000_0001, 0)[2] & 1 << 2 == 0 {
        report.equal("read of VM_HSAVE_PA without SVM", try_rdmsr(VM_HSAVE_PA), None);
    }
    if !apic::is_x2apic() {
        report.equal("x2APIC register in xAPIC mode", try_rdmsr(0x802), None);
    }
}

/// Whether a write of this value is refused; what was there is put back if it is not.
fn refuses(index: u32, value: u64) -> bool {
    let before = cpu::rdmsr(index);
    // SAFETY: a value that should not be accepted, and the one before.
    unsafe {
        let refused = !try_wrmsr(index, value);
        cpu::wrmsr(index, before);
        refused
    }
}

fn reserved(report: &mut Report) {
    let efer = cpu::rdmsr(EFER);
    if is_bare_tcg() {
        report.skip("reserved bits of EFER, PAT and APIC base", "QEMU ignores them");
    } else {
        report.equal("reserved bit of EFER", refuses(EFER, efer | 1 << 60), true);
        report.equal("EFER.LME while paging", refuses(EFER, efer & !(1 << 8)), true);
        report.equal("undefined memory type in PAT", refuses(PAT, 0x0007_0406_0007_0402), true);
        let base = cpu::rdmsr(apic::MSR_APIC_BASE);
        report.equal("APIC base out of range", refuses(apic::MSR_APIC_BASE, base | 1 << 60), true);
        let skipped = base & !apic::ENABLE | apic::X2APIC;
        report.equal("x2APIC mode while off", refuses(apic::MSR_APIC_BASE, skipped), true);
    }
    // SAFETY: sets the value that is there.
    let same = unsafe { try_wrmsr(EFER, efer) };
    report.equal("EFER takes its own value", same, true);
    report.equal("PAT takes a good value", refuses(PAT, 0x0007_0406_0007_0406), false);
    if is_tcg_cpu() {
        report.skip("addresses that are not canonical", "QEMU's TCG does not check them");
        return;
    }
    for index in [LSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE] {
        let refused = refuses(index, 0x8000_0000_0000_0000);
        report.equal(format_args!("MSR {index:#x} wants a canonical address"), refused, true);
    }
}

fn time_stamp(report: &mut Report) {
    let mut last = cpu::tsc();
    let mut monotonic = true;
    for _ in 0..1000 {
        let now = cpu::tsc();
        monotonic &= now >= last;
        last = now;
    }
    report.equal("TSC never goes back", monotonic, true);
    if is_bare_tcg() {
        report.skip("TSC as an MSR", "QEMU keeps another count there");
        return;
    }
    let read = cpu::rdmsr(TSC);
    report.holds("TSC as an MSR", read >= last && cpu::tsc() >= read, read.wrapping_sub(last));
    const FAR: u64 = 1 << 50;
    // SAFETY: time may be anything here.
    unsafe { cpu::wrmsr(TSC, FAR) };
    report.within("TSC written", cpu::tsc().wrapping_sub(FAR), 0, 1 << 36);
    if cpuid(7, 0)[1] & 1 << 1 != 0 {
        let adjust = cpu::rdmsr(TSC_ADJUST);
        let before = cpu::tsc();
        // SAFETY: time may be anything here.
        unsafe { cpu::wrmsr(TSC_ADJUST, adjust.wrapping_add(FAR)) };
        report.within(
            "TSC adjusted",
            cpu::tsc().wrapping_sub(before).wrapping_sub(FAR),
            0,
            1 << 36,
        );
        // SAFETY: as it was.
        unsafe { cpu::wrmsr(TSC_ADJUST, adjust) };
    }
    // SAFETY: close to what it was.
    unsafe { cpu::wrmsr(TSC, last) };
}

fn segment_bases(report: &mut Report) {
    let base = TARGET.address();
    // SAFETY: this program does not use FS and GS.
    let (fs, gs, swapped) = unsafe {
        let (fs, gs): (u64, u64);
        cpu::wrmsr(FS_BASE, base - 0x10);
        cpu::wrmsr(GS_BASE, base + 0x10);
        cpu::wrmsr(KERNEL_GS_BASE, 0x1234_5000);
        asm!("mov {0}, fs:[0x10]", "mov {1}, gs:[-0x10]", out(reg) fs, out(reg) gs);
        asm!("swapgs");
        (fs, gs, (cpu::rdmsr(GS_BASE), cpu::rdmsr(KERNEL_GS_BASE)))
    };
    report.equal("FS base", fs, 0x1122_3344_5566_7788);
    report.equal("GS base", gs, 0x1122_3344_5566_7788);
    report.equal("SWAPGS", swapped, (0x1234_5000, base + 0x10));
    let trap = run!(Place::USER, ["swapgs"]);
    report.equal("SWAPGS in user mode", trap.cause(), (GP, 0));
    if cpuid(7, 0)[1] & 1 == 0 {
        report.skip("WRFSBASE", "the CPU does not have it");
        return;
    }
    let cr4 = cpu::read_cr4();
    // SAFETY: allows the instructions of segment bases.
    unsafe { cpu::write_cr4(cr4 | 1 << 16) };
    let trap = run!(Place::USER, ["wrfsbase rax", "mov rdx, fs:[0]"], in("rax") base,
        out("rdx") _);
    report.equal(
        "WRFSBASE in user mode",
        (trap.cause(), trap.frame.rdx),
        ((DONE, 0), 0x1122_3344_5566_7788),
    );
    report.equal("FS base afterwards", cpu::rdmsr(FS_BASE), base);
    // SAFETY: as it was.
    unsafe { cpu::write_cr4(cr4 & !(1 << 16)) };
    let trap = run!(Place::USER, ["rdfsbase rax"], out("rax") _);
    report.equal("RDFSBASE without CR4.FSGSBASE", trap.cause(), (UD, 0));
}

fn processor_id(report: &mut Report) {
    if cpuid(0x8000_0001, 0)[3] & 1 << 27 == 0 {
        report.skip("RDTSCP", "the CPU does not have it");
        return;
    }
    // SAFETY: the register only holds a value for RDTSCP and RDPID.
    unsafe { cpu::wrmsr(TSC_AUX, 0x8765_4321) };
    let trap = run!(Place::USER, ["rdtscp"], out("rax") _, out("rdx") _, out("rcx") _);
    report.equal("RDTSCP", (trap.cause(), trap.frame.rcx), ((DONE, 0), 0x8765_4321));
    if cpuid(7, 0)[2] & 1 << 22 != 0 {
        let trap = run!(Place::USER, ["rdpid rcx"], out("rcx") _);
        report.equal("RDPID", (trap.cause(), trap.frame.rcx), ((DONE, 0), 0x8765_4321));
    }
}
