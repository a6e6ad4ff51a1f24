// SPDX-License-Identifier: MIT OR Apache-2.0
//! The MC146818 real-time clock.

use super::{Clock, PATIENCE};
use crate::rt::cpu::{in8, out8};
use crate::rt::report::Report;
use crate::rt::trap::{self, Frame};
use crate::rt::{apic, cpu};
use core::sync::atomic::{AtomicU32, Ordering};

const INPUT: u32 = 8;
const VECTOR: u64 = 0x43;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const STATUS_C: u8 = 0x0C;
const STATUS_D: u8 = 0x0D;
const UPDATE_IN_PROGRESS: u8 = 0x80;
const PERIODIC_INTERRUPT: u8 = 0x40;
const BINARY: u8 = 0x04;

static CAUSES: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

fn read(register: u8) -> u8 {
    out8(0x70, register);
    in8(0x71)
}

fn write(register: u8, value: u8) {
    out8(0x70, register);
    out8(0x71, value);
}

/// Reading status C takes the interrupt back.
fn tick(_: &mut Frame) {
    CAUSES.fetch_or(read(STATUS_C).into(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    apic::end_of_interrupt();
}

pub fn run(report: &mut Report, clock: Clock) {
    time(report);
    memory(report);
    periodic(report, clock);
}

/// A field of the time, whether kept in binary or in decimal digits.
fn field(register: u8) -> u8 {
    let value = read(register);
    if read(STATUS_B) & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xF) }
}

fn time(report: &mut Report) {
    let mut looks = 0;
    while read(STATUS_A) & UPDATE_IN_PROGRESS != 0 && looks < 100_000 {
        looks += 1;
    }
    report.within("RTC seconds", field(0).into(), 0, 59);
    report.within("RTC minutes", field(2).into(), 0, 59);
    report.within("RTC hours", (field(4) & 0x7F).into(), 0, 23);
    report.within("RTC day", field(7).into(), 1, 31);
    report.within("RTC month", field(8).into(), 1, 12);
    report.within("RTC year", field(9).into(), 24, 99);
    report.equal("RTC battery is good", read(STATUS_D) & 0x80, 0x80);
}

fn memory(report: &mut Report) {
    let before = read(0x50);
    write(0x50, 0xA7);
    report.equal("CMOS memory keeps a byte", read(0x50), 0xA7);
    write(0x50, before);
}

/// 1024 interrupts a second.
fn periodic(report: &mut Report, clock: Clock) {
    const RATE_1024_HZ: u8 = 6;
    let (status_a, status_b) = (read(STATUS_A), read(STATUS_B));
    trap::handle(VECTOR, Some(tick));
    read(STATUS_C);
    apic::route(INPUT, VECTOR as u32);
    write(STATUS_A, status_a & 0x70 | RATE_1024_HZ);
    write(STATUS_B, status_b | PERIODIC_INTERRUPT);
    let start = cpu::tsc();
    let mut took = 0;
    while COUNT.load(Ordering::SeqCst) < 11 && took < PATIENCE {
        clock.pass_open(100);
        took = clock.microseconds(cpu::tsc().wrapping_sub(start));
    }
    write(STATUS_B, status_b & !PERIODIC_INTERRUPT);
    report.within("RTC periodic interrupt, 10 periods", took, 8500, PATIENCE - 1);
    let causes = CAUSES.load(Ordering::SeqCst);
    report.equal("RTC says why", causes & 0xC0, 0xC0);
    cpu::open_interrupt_window();
    let before = COUNT.load(Ordering::SeqCst);
    read(STATUS_C);
    clock.pass_open(5000);
    let after = COUNT.load(Ordering::SeqCst);
    report.within("RTC periodic interrupt stops", (after - before).into(), 0, 1);
    apic::route(INPUT, apic::MASKED);
    write(STATUS_A, status_a & 0x7F);
}
