// SPDX-License-Identifier: MIT OR Apache-2.0
//! String port I/O: every width, repetition, direction, faults in the middle, privilege.
//!
//! Writes go to the scratch register of COM1, which keeps the last byte, and to port 0x80; reads
//! come from the scratch register and from a port that nobody owns.
//!
//! Option: `bitmap` tests the I/O permission bitmap too. That is not part of the usual run,
//! because QEMU 7.2's SVM checks it wrongly for a guest's user mode.

use core::ptr;

use crate::rt::console::SCRATCH as PORT;
use crate::rt::cpu::{self, in8, out8};
use crate::rt::paging::{self, PAGE, PRESENT, SCRATCH, UNOWNED, USER, WRITABLE};
use crate::rt::report::Report;
use crate::rt::segments::{self, IO_BITMAP_OFFSET};
use crate::rt::start_info;
use crate::rt::trap::{DB, DONE, GP, PF, Place, Trap};

/// A port of nobody.
const NOTHING: u64 = 0x1234;
/// The port for checkpoints, which takes anything.
const POST: u64 = 0x80;
const DIRECTION: u64 = 1 << 10;
const TRAP_FLAG: u64 = 1 << 8;
const ALL_PORTS: u64 = 3 << 12;
const FS_BASE: u32 = 0xC000_0100;
/// Pages of the window for the tests; the third is never there.
const FIRST: usize = 8;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    let frame = SCRATCH.address();
    paging::map(FIRST, frame | PRESENT | WRITABLE | USER);
    paging::map(FIRST + 1, (frame + PAGE) | PRESENT | WRITABLE | USER);
    paging::map(FIRST + 2, 0);
    output(&mut report);
    input(&mut report);
    counts(&mut report);
    directions(&mut report);
    addressing(&mut report);
    faults(&mut report);
    devices(&mut report);
    privilege(&mut report);
    if start_info::has_word("bitmap") {
        bitmap(&mut report);
    }
    report.finish()
}

/// Fills the two pages with bytes that tell their place.
fn fill() -> u64 {
    let start = paging::page(FIRST);
    for offset in 0..2 * PAGE {
        // SAFETY: the test's own pages.
        unsafe { ((start + offset) as *mut u8).write_volatile((offset * 7 + 3) as u8) };
    }
    start
}

fn byte_at(address: u64) -> u8 {
    // SAFETY: called for the test's own pages.
    unsafe { ptr::read_volatile(address as *const u8) }
}

/// What a finished string instruction should have left: cause, count, address.
fn finished(trap: Trap, address: u64) -> ((u64, u64), u64, u64) {
    (trap.cause(), trap.frame.rcx, address)
}

macro_rules! outs {
    ($place:expr, $instruction:expr, $port:expr, $address:expr, $count:expr) => {
        run!($place, [$instruction], in("rdx") u64::from($port), in("rsi") $address,
            in("rcx") $count)
    };
}

macro_rules! ins {
    ($place:expr, $instruction:expr, $port:expr, $address:expr, $count:expr) => {
        run!($place, [$instruction], in("rdx") u64::from($port), in("rdi") $address,
            in("rcx") $count)
    };
}

fn output(report: &mut Report) {
    let start = fill();
    let trap = outs!(Place::KERNEL, "outsb", PORT, start, 9_u64);
    report.equal("OUTSB", finished(trap, trap.frame.rsi), ((DONE, 0), 9, start + 1));
    report.equal("OUTSB wrote", in8(PORT), byte_at(start));
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, start, 9_u64);
    report.equal("REP OUTSB", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 9));
    report.equal("REP OUTSB wrote", in8(PORT), byte_at(start + 8));
    let trap = outs!(Place::KERNEL, "rep outsw", PORT - 1, start, 5_u64);
    report.equal("REP OUTSW", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 10));
    report.equal("REP OUTSW wrote its high byte", in8(PORT), byte_at(start + 9));
    let trap = outs!(Place::KERNEL, "rep outsd", POST, start, 5_u64);
    report.equal("REP OUTSD", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 20));
    let trap = outs!(Place::KERNEL, ".byte 0xF2, 0x6E", PORT, start, 4_u64);
    report.equal("REPNE OUTSB repeats", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 4));
}

fn input(report: &mut Report) {
    let start = fill();
    out8(PORT, 0xC7);
    let trap = ins!(Place::KERNEL, "insb", PORT, start, 9_u64);
    report.equal("INSB", finished(trap, trap.frame.rdi), ((DONE, 0), 9, start + 1));
    report.equal("INSB read", (byte_at(start), byte_at(start + 1)), (0xC7, 10));
    let trap = ins!(Place::KERNEL, "rep insb", PORT, start, 6_u64);
    report.equal("REP INSB", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start + 6));
    let all = (0..6).all(|offset| byte_at(start + offset) == 0xC7);
    report.equal("REP INSB read", (all, byte_at(start + 6)), (true, 45));
    let trap = ins!(Place::KERNEL, "rep insw", NOTHING, start, 6_u64);
    report.equal("REP INSW", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start + 12));
    let all = (0..12).all(|offset| byte_at(start + offset) == 0xFF);
    report.equal("REP INSW read", (all, byte_at(start + 12)), (true, 87));
    let trap = ins!(Place::KERNEL, "rep insd", NOTHING, start + 100, 6_u64);
    report.equal("REP INSD", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start + 124));
    let all = (100..124).all(|offset| byte_at(start + offset) == 0xFF);
    report.equal("REP INSD read", all, true);
}

fn counts(report: &mut Report) {
    let start = fill();
    out8(PORT, 0x11);
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, start, 0_u64);
    report.equal("count 0", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start));
    report.equal("count 0 writes nothing", in8(PORT), 0x11);
    let trap = ins!(Place::KERNEL, "rep insb", PORT, u64::MAX >> 1, 0_u64);
    report.equal("count 0 touches no memory", trap.cause(), (DONE, 0));
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, start + 5, 1_u64);
    report.equal("count 1", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 6));
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, start, 2 * PAGE);
    report.equal("two pages out", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 2 * PAGE));
    report.equal("two pages out, the last", in8(PORT), byte_at(start + 2 * PAGE - 1));
    out8(PORT, 0x99);
    let trap = ins!(Place::KERNEL, "rep insb", PORT, start, 2 * PAGE);
    report.equal("two pages in", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start + 2 * PAGE));
    let all = (0..2 * PAGE).all(|offset| byte_at(start + offset) == 0x99);
    report.equal("two pages in, all", all, true);
    let trap = ins!(Place::KERNEL, "rep insd", NOTHING, start + 1, PAGE / 4);
    let end = start + 1 + PAGE;
    report.equal("misaligned page in", finished(trap, trap.frame.rdi), ((DONE, 0), 0, end));
    let edges = (byte_at(start), byte_at(start + 1), byte_at(end - 1), byte_at(end));
    report.equal("misaligned page in, edges", edges, (0x99, 0xFF, 0xFF, 0x99));
    let place = Place::KERNEL.with_flags(TRAP_FLAG);
    let trap = outs!(place, "rep outsb", PORT, start, 3_u64);
    let got = (trap.frame.vector, trap.frame.rcx, trap.frame.rsi, trap.at_instruction());
    report.equal("single step stops after one", got, (DB, 2, start + 1, true));
}

fn directions(report: &mut Report) {
    let start = fill();
    let down = Place::KERNEL.with_flags(DIRECTION);
    let trap = outs!(down, "rep outsb", PORT, start + 20, 5_u64);
    report.equal("DF OUTSB", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 15));
    report.equal("DF OUTSB wrote", in8(PORT), byte_at(start + 16));
    let trap = ins!(down, "rep insd", NOTHING, start + PAGE + 8, 5_u64);
    let end = (start + PAGE + 8).wrapping_sub(20);
    report.equal("DF INSD", finished(trap, trap.frame.rdi), ((DONE, 0), 0, end));
    let all = (end + 4..start + PAGE + 12).all(|address| byte_at(address) == 0xFF);
    report.equal("DF INSD read across pages", all, true);
    report.equal("DF INSD went no further", byte_at(end + 3), ((PAGE - 9) * 7 + 3) as u8);
    let trap = ins!(down, "rep insw", NOTHING, start, 0_u64);
    report.equal("DF count 0", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start));
}

fn addressing(report: &mut Report) {
    fill();
    let low = SCRATCH.address();
    let garbage = 0x5555_0000_0000_0000_u64;
    let trap = outs!(Place::KERNEL, ".byte 0x67, 0xF3, 0x6E", PORT, garbage | low, garbage | 3);
    report.equal("32-bit addresses out", finished(trap, trap.frame.rsi), ((DONE, 0), 0, low + 3));
    report.equal("32-bit addresses out wrote", in8(PORT), byte_at(low + 2));
    let trap = ins!(Place::KERNEL, ".byte 0x67, 0xF3, 0x6C", PORT, garbage | low, garbage | 3);
    report.equal("32-bit addresses in", finished(trap, trap.frame.rdi), ((DONE, 0), 0, low + 3));
    // SAFETY: this program does not use FS.
    unsafe { cpu::wrmsr(FS_BASE, low) };
    let trap = outs!(Place::KERNEL, ".byte 0x64, 0xF3, 0x6E", PORT, 0x40_u64, 2_u64);
    report.equal("FS override", finished(trap, trap.frame.rsi), ((DONE, 0), 0, 0x42));
    report.equal("FS override wrote", in8(PORT), byte_at(low + 0x41));
    let trap = ins!(Place::KERNEL, ".byte 0x64, 0x6C", PORT, low, 0_u64);
    report.equal("INS ignores overrides", finished(trap, trap.frame.rdi), ((DONE, 0), 0, low + 1));
    let trap = run!(Place::KERNEL32, [".code32", "rep outsb"], in("rdx") u64::from(PORT),
        in("rsi") low + 0x80, in("rcx") 2_u64);
    report.equal(
        "compatibility mode out",
        finished(trap, trap.frame.rsi),
        ((DONE, 0), 0, low + 0x82),
    );
    report.equal("compatibility mode out wrote", in8(PORT), byte_at(low + 0x81));
    let trap = run!(Place::KERNEL32, [".code32", "rep insw"], in("rdx") NOTHING,
        in("rdi") low + 0x80, in("rcx") 2_u64);
    report.equal(
        "compatibility mode in",
        finished(trap, trap.frame.rdi),
        ((DONE, 0), 0, low + 0x84),
    );
}

/// What a page fault in the middle should have left: cause, count, address, CR2, RIP.
fn stopped(trap: Trap, address: u64) -> ((u64, u64), u64, u64, u64, bool) {
    (trap.cause(), trap.frame.rcx, address, trap.cr2, trap.at_instruction())
}

fn faults(report: &mut Report) {
    fill();
    let end = paging::page(FIRST + 2);
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, end - 16, 32_u64);
    report.equal(
        "OUTSB into an absent page",
        stopped(trap, trap.frame.rsi),
        ((PF, 0), 16, end, end, true),
    );
    report.equal("OUTSB wrote up to it", in8(PORT), byte_at(end - 1));
    let trap = ins!(Place::KERNEL, "rep insb", PORT, end - 16, 32_u64);
    report.equal(
        "INSB into an absent page",
        stopped(trap, trap.frame.rdi),
        ((PF, 2), 16, end, end, true),
    );
    let trap = ins!(Place::KERNEL, "rep insd", NOTHING, end - 10, 8_u64);
    report.equal(
        "INSD across into an absent page",
        stopped(trap, trap.frame.rdi),
        ((PF, 2), 6, end - 2, end, true),
    );
    let trap = outs!(Place::KERNEL, "rep outsd", POST, end - 10, 8_u64);
    report.equal(
        "OUTSD across into an absent page",
        stopped(trap, trap.frame.rsi),
        ((PF, 0), 6, end - 2, end, true),
    );
    let trap = ins!(Place::KERNEL, "insb", PORT, end, 7_u64);
    report.equal("INSB alone", stopped(trap, trap.frame.rdi), ((PF, 2), 7, end, end, true));
    let down = Place::KERNEL.with_flags(DIRECTION);
    paging::map(FIRST, 0);
    let middle = paging::page(FIRST + 1);
    let trap = outs!(down, "rep outsb", PORT, middle + 3, 10_u64);
    report.equal(
        "DF OUTSB into an absent page",
        stopped(trap, trap.frame.rsi),
        ((PF, 0), 6, middle - 1, middle - 1, true),
    );
    paging::map(FIRST, SCRATCH.address() | PRESENT);
    let trap = ins!(Place::KERNEL, "rep insb", PORT, middle - 3, 1_u64);
    report.equal(
        "INSB into a read-only page",
        stopped(trap, trap.frame.rdi),
        ((PF, 3), 1, middle - 3, middle - 3, true),
    );
    paging::map(FIRST, SCRATCH.address() | PRESENT | WRITABLE | USER);
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, 1_u64 << 63, 4_u64);
    report.equal("address not canonical", (trap.cause(), trap.frame.rsi), ((GP, 0), 1 << 63));
}

/// Memory operands that are device registers.
fn devices(report: &mut Report) {
    let trap = outs!(Place::KERNEL, "rep outsd", POST, crate::rt::apic::IOAPIC, 2_u64);
    let end = crate::rt::apic::IOAPIC + 8;
    report.equal("OUTSD out of the IOAPIC", finished(trap, trap.frame.rsi), ((DONE, 0), 0, end));
    let trap = outs!(Place::KERNEL, "rep outsb", PORT, UNOWNED, 3_u64);
    report.equal(
        "OUTSB out of nothing",
        finished(trap, trap.frame.rsi),
        ((DONE, 0), 0, UNOWNED + 3),
    );
    report.equal("OUTSB out of nothing wrote", in8(PORT), paging::nothing() as u8);
    let trap = ins!(Place::KERNEL, "rep insb", PORT, UNOWNED, 3_u64);
    report.equal("INSB into nothing", finished(trap, trap.frame.rdi), ((DONE, 0), 0, UNOWNED + 3));
}

fn privilege(report: &mut Report) {
    let start = fill();
    let trap = outs!(Place::USER, "rep outsb", PORT, start, 3_u64);
    let got = (trap.cause(), trap.frame.rcx, trap.frame.rsi, trap.at_instruction());
    report.equal("OUTSB in user mode", got, ((GP, 0), 3, start, true));
    let trap = ins!(Place::USER, "rep insb", PORT, start, 3_u64);
    let got = (trap.cause(), trap.frame.rcx, trap.frame.rdi, trap.at_instruction());
    report.equal("INSB in user mode", got, ((GP, 0), 3, start, true));
    let allowed = Place::USER.with_flags(ALL_PORTS);
    let trap = outs!(allowed, "rep outsb", PORT, start, 3_u64);
    report.equal("OUTSB with IOPL 3", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 3));
    report.equal("OUTSB with IOPL 3 wrote", in8(PORT), byte_at(start + 2));
    let trap = ins!(allowed, "rep insb", PORT, start, 3_u64);
    report.equal("INSB with IOPL 3", finished(trap, trap.frame.rdi), ((DONE, 0), 0, start + 3));
    paging::map(FIRST + 1, (SCRATCH.address() + PAGE) | PRESENT | WRITABLE);
    let second = paging::page(FIRST + 1);
    let trap = ins!(allowed, "rep insb", PORT, second - 2, 4_u64);
    report.equal(
        "INSB into a kernel page",
        stopped(trap, trap.frame.rdi),
        ((PF, 7), 2, second, second, true),
    );
    let trap = outs!(allowed, "rep outsb", PORT, second - 2, 4_u64);
    report.equal(
        "OUTSB out of a kernel page",
        stopped(trap, trap.frame.rsi),
        ((PF, 5), 2, second, second, true),
    );
    paging::map(FIRST + 1, (SCRATCH.address() + PAGE) | PRESENT | WRITABLE | USER);
}

/// Without IOPL the I/O permission bitmap decides; a clear bit allows.
fn bitmap(report: &mut Report) {
    let start = fill();
    let task = segments::task_state();
    // SAFETY: the boot CPU's own task state; the bitmap denies all but the scratch register.
    unsafe {
        (&raw mut (*task).io_bitmap_base).write_unaligned(IO_BITMAP_OFFSET);
        let map = (&raw mut (*task).io_bitmap).cast::<u8>();
        ptr::write_bytes(map, 0xFF, 8193);
        map.add(usize::from(PORT / 8)).write(!(1 << (PORT % 8)));
    }
    let trap = outs!(Place::USER, "rep outsb", PORT, start, 3_u64);
    report.equal("bitmap allows", finished(trap, trap.frame.rsi), ((DONE, 0), 0, start + 3));
    let trap = outs!(Place::USER, "rep outsb", PORT - 1, start, 3_u64);
    report.equal("bitmap denies the port before", (trap.cause(), trap.frame.rcx), ((GP, 0), 3));
    let trap = outs!(Place::USER, "rep outsw", PORT, start, 3_u64);
    report.equal("bitmap denies a word", (trap.cause(), trap.frame.rcx), ((GP, 0), 3));
    let trap = ins!(Place::USER, "insb", PORT, start, 0_u64);
    report.equal("bitmap allows INSB", trap.cause(), (DONE, 0));
    let trap = run!(Place::USER, ["out dx, al"], in("rdx") POST, in("rax") 0);
    report.equal("bitmap denies OUT", trap.cause(), (GP, 0));
    let trap = run!(Place::USER, ["in al, dx"], in("rdx") u64::from(PORT), out("rax") _);
    report.equal("bitmap allows IN", trap.cause(), (DONE, 0));
    // SAFETY: as it was.
    unsafe { (&raw mut (*task).io_bitmap_base).write_unaligned(u16::MAX) };
}
