// SPDX-License-Identifier: MIT OR Apache-2.0
//! 32-bit forms against registers that keep what is written: an IOAPIC redirection entry and
//! the local APIC's initial count.

use crate::rt::apic::{self, IOAPIC, LAPIC, MASKED};
use crate::rt::report::Report;
use crate::rt::trap::{DONE, Place, Trap};

/// An input that nothing is wired to; its entry stays masked.
const INPUT: u32 = 20;
/// Vector and mask bit: every bit of it can be written.
const START: u32 = MASKED | 0x55;

const IOWIN: u64 = IOAPIC + 0x10;

pub fn run(report: &mut Report) {
    select(report);
    read_modify_write(report);
    local(report);
}

fn select(report: &mut Report) {
    let trap = run!(Place::KERNEL, ["mov dword ptr [rdi], 1", "mov eax, [rdi + 0x10]"],
        in("rdi") IOAPIC, out("rax") _);
    let version = trap.frame.rax;
    report.holds("IOAPIC version", matches!(version & 0xFF, 0x11 | 0x20), version);
    report.within("IOAPIC inputs", (version >> 16 & 0xFF) + 1, 24, 120);
    let trap = run!(Place::KERNEL, ["mov eax, [rdi]"], in("rdi") IOAPIC, out("rax") _);
    report.equal("IOAPIC index reads back", trap.frame.rax & 0xFF, 1);
}

/// Runs an instruction on memory and on the register, each starting with `START`; compares what
/// is there afterwards, EAX, EDX and the flags.
fn compare(report: &mut Report, name: &str, flags: u64, instruction: &dyn Fn(u64) -> Trap) {
    let mut memory = START;
    let expected = instruction(&raw mut memory as u64);
    // SAFETY: the instruction wrote behind the compiler's back.
    let memory = unsafe { (&raw const memory).read_volatile() };
    apic::ioapic_write(apic::redirection(INPUT), START);
    let got = instruction(IOWIN);
    let register = apic::ioapic_read(apic::redirection(INPUT));
    let outcome = |trap: Trap, value: u32| {
        (trap.cause(), value, trap.frame.rax, trap.frame.rdx, trap.frame.rflags & flags)
    };
    report.equal(format_args!("IOAPIC {name}"), outcome(got, register), outcome(expected, memory));
}

macro_rules! each_register {
    ($report:expr, $flags:expr, [$($instruction:expr),+ $(,)?]) => {
        $(
            compare($report, $instruction, $flags, &|at| {
                run!(Place::KERNEL, [$instruction], in("rdi") at, in("rax") u64::from(START),
                    in("rdx") 0x1_0022_u64)
            });
        )+
    };
}

fn read_modify_write(report: &mut Report) {
    each_register!(
        report,
        0x8D5,
        [
            "mov eax, [rdi]",
            "mov [rdi], edx",
            "mov dword ptr [rdi], 0x10077",
            "mov [rdi], edx; mov eax, [rdi]",
            "xchg [rdi], edx",
            "add dword ptr [rdi], 5",
            "sub dword ptr [rdi], 5",
            "inc dword ptr [rdi]",
            "dec dword ptr [rdi]",
            "cmp [rdi], edx",
            "cmp eax, [rdi]",
            "cmpxchg [rdi], edx",
            "inc eax; cmpxchg [rdi], edx",
            "mov edx, 3; xadd [rdi], edx",
            "lock or dword ptr [rdi], 0x80; test eax, eax",
            "stosd; lea rdi, [rdi - 4]",
        ]
    );
    each_register!(
        report,
        0x8C5,
        [
            "and dword ptr [rdi], 0x1000F",
            "or dword ptr [rdi], 0x0A",
            "xor [rdi], edx",
            "test dword ptr [rdi], 0x10000",
            "lock and [rdi], edx",
            "lock xor dword ptr [rdi], 0x11",
        ]
    );
    each_register!(
        report,
        0x1,
        [
            "bt dword ptr [rdi], 16",
            "bts dword ptr [rdi], 3",
            "btr dword ptr [rdi], 2",
            "btc dword ptr [rdi], 5",
            "lock bts dword ptr [rdi], 7",
        ]
    );
    apic::ioapic_write(apic::redirection(INPUT), MASKED);
}

fn local(report: &mut Report) {
    apic::enable(false);
    let register = LAPIC + u64::from(apic::TPR);
    let trap = run!(Place::KERNEL, [
        "mov dword ptr [rdi], 0x20",
        "or dword ptr [rdi], 0x40",
        "mov eax, [rdi]",
        "xor edx, edx",
        "xchg [rdi], edx",
    ], in("rdi") register, out("rax") _, out("rdx") _);
    report.equal(
        "APIC task priority",
        (trap.cause(), trap.frame.rax, trap.frame.rdx),
        ((DONE, 0), 0x60, 0x60),
    );
    report.equal("APIC task priority afterwards", apic::read(apic::TPR), 0);
    let version = u64::from(apic::read(apic::VERSION));
    report.within("APIC version", version & 0xFF, 0x10, 0x1F);
}
