// SPDX-License-Identifier: MIT OR Apache-2.0
//! #PF: every error code, with CR2.

use core::arch::asm;

use crate::rt::cpu;
use crate::rt::paging::{self, NO_EXECUTE, PAGE, PRESENT, SCRATCH, USER, WRITABLE};
use crate::rt::report::Report;
use crate::rt::segments::USER_CODE;
use crate::rt::start_info::{is_tcg_cpu, is_tcg_shadow};
use crate::rt::trap::{DONE, PF, Place, Trap};

const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const WRITE_PROTECT: u64 = 1 << 16;

pub fn run(report: &mut Report) {
    error_codes(report);
    fetches(report);
    reserved_bits(report);
    write_protection(report);
    across_pages(report);
    accessed_and_dirty(report);
}

fn read(place: Place, address: u64) -> Trap {
    run!(place, ["mov eax, [rdi]"], in("rdi") address, out("rax") _)
}

fn write(place: Place, address: u64) -> Trap {
    run!(place, ["mov [rdi], eax"], in("rdi") address, in("rax") 0)
}

fn expect(report: &mut Report, name: &str, trap: Trap, error: u64, address: u64) {
    let got = (trap.frame.vector, trap.frame.error, trap.cr2, trap.at_instruction());
    report.equal(format_args!("#PF {name}"), got, (PF, error, address, true));
}

fn error_codes(report: &mut Report) {
    let frame = SCRATCH.address();
    let at = paging::page(1) + 0x123;
    paging::map(1, 0);
    expect(report, "absent, kernel reads", read(Place::KERNEL, at), 0, at);
    expect(report, "absent, kernel writes", write(Place::KERNEL, at), 2, at);
    expect(report, "absent, user reads", read(Place::USER, at), 4, at);
    expect(report, "absent, user writes", write(Place::USER, at), 6, at);
    paging::map(1, frame | PRESENT | WRITABLE);
    expect(report, "kernel page, user reads", read(Place::USER, at), 5, at);
    expect(report, "kernel page, user writes", write(Place::USER, at), 7, at);
    report.equal("kernel page, kernel writes", write(Place::KERNEL, at).cause(), (DONE, 0));
    paging::map(1, frame | PRESENT | USER);
    expect(report, "read-only, user writes", write(Place::USER, at), 7, at);
    expect(report, "read-only, kernel writes", write(Place::KERNEL, at), 3, at);
    report.equal("read-only, user reads", read(Place::USER, at).cause(), (DONE, 0));
    paging::map(1, 0);
}

/// Executes what is in the page at `address`.
fn execute(place: Place, address: u64) -> Trap {
    run!(place, ["jmp rdi"], in("rdi") address)
}

fn expect_fetch(report: &mut Report, name: &str, trap: Trap, error: u64, address: u64) {
    let got = (trap.frame.vector, trap.frame.error, trap.cr2, trap.frame.rip);
    report.equal(format_args!("#PF {name}"), got, (PF, error, address, address));
}

fn fetches(report: &mut Report) {
    let frame = SCRATCH.address();
    // SAFETY: `INT 0x81` at the start of a page that only this test uses.
    unsafe { SCRATCH.get().cast::<[u8; 2]>().write_volatile([0xCD, 0x81]) };
    let at = paging::page(2);
    paging::map(2, 0);
    expect_fetch(report, "absent, kernel executes", execute(Place::KERNEL, at), 0x10, at);
    expect_fetch(report, "absent, user executes", execute(Place::USER, at), 0x14, at);
    paging::map(2, frame | PRESENT | WRITABLE | USER | NO_EXECUTE);
    expect_fetch(report, "no-execute, kernel executes", execute(Place::KERNEL, at), 0x11, at);
    expect_fetch(report, "no-execute, user executes", execute(Place::USER, at), 0x15, at);
    paging::map(2, frame | PRESENT);
    expect_fetch(report, "kernel page, user executes", execute(Place::USER, at), 0x15, at);
    report.equal("kernel page, kernel executes", execute(Place::KERNEL, at).cause(), (DONE, 0));
    paging::map(2, frame | PRESENT | USER);
    let trap = execute(Place::USER, at);
    report.equal("user page, user executes", trap.cause(), (DONE, 0));
    report.equal("in user mode", trap.frame.cs, USER_CODE.into());
    paging::map(2, 0);
}

/// Bit 13 of a 2 MiB page's directory entry is reserved.
fn reserved_bits(report: &mut Report) {
    const LARGE: u64 = 1 << 7;
    let at = paging::WINDOW + (3 << 21) + 0x4567;
    // QEMU's TCG leaves out the present bit of the error code.
    let tcg = u64::from(is_tcg_cpu() && !is_tcg_shadow());
    paging::set_directory_entry(3, 1 << 13 | LARGE | PRESENT | WRITABLE | USER);
    expect(report, "reserved bit, kernel reads", read(Place::KERNEL, at), 0x9 - tcg, at);
    expect(report, "reserved bit, kernel writes", write(Place::KERNEL, at), 0xB - tcg, at);
    expect(report, "reserved bit, user reads", read(Place::USER, at), 0xD - tcg, at);
    expect(report, "reserved bit, user writes", write(Place::USER, at), 0xF - tcg, at);
    let trap = execute(Place::USER, at);
    expect_fetch(report, "reserved bit, user executes", trap, 0x1D - tcg, at);
    paging::set_directory_entry(3, 0);
}

fn write_protection(report: &mut Report) {
    let at = paging::page(1);
    paging::map(1, SCRATCH.address() | PRESENT);
    // SAFETY: without CR0.WP the kernel may write read-only pages; nothing relies on it.
    unsafe { cpu::write_cr0(cpu::read_cr0() & !WRITE_PROTECT) };
    let trap = write(Place::KERNEL, at);
    // SAFETY: as it was.
    unsafe { cpu::write_cr0(cpu::read_cr0() | WRITE_PROTECT) };
    report.equal("CR0.WP clear lets the kernel write", trap.cause(), (DONE, 0));
    expect(report, "CR0.WP set does not", write(Place::KERNEL, at), 3, at);
    paging::map(1, 0);
}

/// An operand in two pages reports the page that faults.
fn across_pages(report: &mut Report) {
    let frame = SCRATCH.address();
    paging::map(1, frame | PRESENT | WRITABLE);
    paging::map(2, 0);
    let (at, second) = (paging::page(2) - 2, paging::page(2));
    expect(report, "second page of a read", read(Place::KERNEL, at), 0, second);
    expect(report, "second page of a write", write(Place::KERNEL, at), 2, second);
    paging::map(1, 0);
    paging::map(2, (frame + PAGE) | PRESENT | WRITABLE);
    expect(report, "first page of a write", write(Place::KERNEL, at), 2, at);
    let trap = run!(Place::KERNEL, ["push qword ptr [rdi]"], in("rdi") at);
    expect(report, "source of a push", trap, 0, at);
    paging::map(1, 0);
    paging::map(2, 0);
}

fn accessed_and_dirty(report: &mut Report) {
    let at = paging::page(1) as *mut u8;
    paging::map(1, SCRATCH.address() | PRESENT | WRITABLE);
    let flags = || paging::entry(1) & (ACCESSED | DIRTY);
    report.equal("A and D clear", flags(), 0);
    // SAFETY: reads and writes the test's own page.
    unsafe {
        at.read_volatile();
        report.equal("A after a read", flags(), ACCESSED);
        at.write_volatile(0);
    }
    report.equal("D after a write", flags(), ACCESSED | DIRTY);
    // SAFETY: the same translation again.
    unsafe { asm!("invlpg [{}]", in(reg) at) };
    paging::map(1, 0);
}
