// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults of operands that touch a device: reported as for memory.

use crate::rt::apic::IOAPIC;
use crate::rt::paging::{self, NO_EXECUTE, PAGE, PRESENT, UNOWNED, USER, WRITABLE};
use crate::rt::report::Report;
use crate::rt::trap::{DB, DONE, PF, Place, Trap};

/// Pages of the window; the second is absent where a test says so.
const FIRST: usize = 24;

pub fn run(report: &mut Report) {
    protection(report);
    across(report);
    strings(report);
    let trap = run!(Place::KERNEL.with_flags(1 << 8), ["mov eax, [rdi]"], in("rdi") IOAPIC,
        out("rax") _);
    report.equal(
        "single step behind a device access",
        (trap.cause(), trap.behind_instruction()),
        ((DB, 0), true),
    );
    for page in [FIRST, FIRST + 1] {
        paging::map(page, 0);
    }
}

fn expect(report: &mut Report, name: &str, trap: Trap, error: u64, address: u64) {
    let got = (trap.cause(), trap.cr2, trap.at_instruction());
    report.equal(format_args!("#PF {name}"), got, ((PF, error), address, true));
}

fn protection(report: &mut Report) {
    let at = paging::page(FIRST) + 0x10;
    paging::map(FIRST, UNOWNED | PRESENT | USER | NO_EXECUTE);
    let trap = run!(Place::KERNEL, ["mov [rdi], eax"], in("rdi") at, in("rax") 0);
    expect(report, "write to a read-only device page", trap, 3, at);
    let trap = run!(Place::KERNEL, ["add dword ptr [rdi], 1"], in("rdi") at);
    expect(report, "read-modify-write of a read-only device page", trap, 3, at);
    let trap = run!(Place::USER, ["xchg [rdi], eax"], in("rdi") at, in("rax") 0);
    expect(report, "exchange by user mode with a read-only device page", trap, 7, at);
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") at, out("rax") _);
    report.equal("read of a read-only device page", trap.cause(), (DONE, 0));
    let trap = run!(Place::USER, ["jmp rdi"], in("rdi") at);
    report.equal(
        "#PF execution of a no-execute device page",
        (trap.cause(), trap.cr2),
        ((PF, 0x15), at),
    );
    paging::map(FIRST, UNOWNED | PRESENT | WRITABLE);
    let trap = run!(Place::USER, ["mov eax, [rdi]"], in("rdi") at, out("rax") _);
    expect(report, "read by user mode of a kernel's device page", trap, 5, at);
    let trap = run!(Place::USER, ["mov [rdi], eax"], in("rdi") at, in("rax") 0);
    expect(report, "write by user mode to a kernel's device page", trap, 7, at);
}

fn across(report: &mut Report) {
    let second = paging::page(FIRST + 1);
    paging::map(FIRST, UNOWNED | PRESENT | WRITABLE);
    paging::map(FIRST + 1, 0);
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") second - 2, out("rax") _);
    expect(report, "read from a device into an absent page", trap, 0, second);
    let trap = run!(Place::KERNEL, ["mov [rdi], rax"], in("rdi") second - 3, in("rax") 0);
    expect(report, "write from a device into an absent page", trap, 2, second);
    let trap = run!(Place::KERNEL, ["add [rdi], eax"], in("rdi") second - 1, in("rax") 0);
    // CPUs differ in whether the read or the write of it faults.
    let write = trap.frame.error & 2;
    expect(report, "read-modify-write from a device into an absent page", trap, write, second);
    paging::map(FIRST, 0);
    paging::map(FIRST + 1, UNOWNED | PRESENT | WRITABLE);
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") second - 2, out("rax") _);
    expect(report, "read from an absent page into a device", trap, 0, second - 2);
}

fn strings(report: &mut Report) {
    let second = paging::page(FIRST + 1);
    paging::map(FIRST, UNOWNED | PRESENT | WRITABLE);
    paging::map(FIRST + 1, 0);
    let trap = run!(Place::KERNEL, ["rep stosb"], in("rdi") second - 4, in("rcx") 10_u64,
        in("rax") 0);
    expect(report, "REP STOSB", trap, 2, second);
    report.equal("REP STOSB stops there", (trap.frame.rdi, trap.frame.rcx), (second, 6));
    let source = paging::SCRATCH.address();
    let trap = run!(Place::KERNEL, ["rep movsd"], in("rdi") second - 8, in("rsi") source,
        in("rcx") 5_u64);
    expect(report, "REP MOVSD", trap, 2, second);
    let left = (trap.frame.rdi, trap.frame.rsi, trap.frame.rcx);
    report.equal("REP MOVSD stops there", left, (second, source + 8, 3));
    let trap = run!(Place::KERNEL, ["rep movsb"], in("rdi") source, in("rsi") second - 4,
        in("rcx") PAGE);
    expect(report, "REP MOVSB out of a device", trap, 0, second);
    let left = (trap.frame.rdi, trap.frame.rsi, trap.frame.rcx);
    report.equal("REP MOVSB stops there", left, (source + 4, second, PAGE - 4));
}
