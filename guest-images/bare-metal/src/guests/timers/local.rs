// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC timer: one-shot and periodic.

use super::{Clock, PATIENCE};
use crate::rt::apic::{
    self, CURRENT_COUNT, DIVIDE, INITIAL_COUNT, LVT_TIMER, MASKED, PERIODIC, SPURIOUS,
};
use crate::rt::report::Report;
use crate::rt::{cpu, interrupts};

pub const VECTOR: u64 = 0x40;
/// Encoding of divide 1.
pub const DIVIDE_BY_1: u32 = 0xB;

/// Measures the timer's input clock in Hz against the time-stamp counter.
pub fn frequency(tsc: u64) -> u64 {
    apic::write(DIVIDE, DIVIDE_BY_1);
    apic::write(LVT_TIMER, MASKED | VECTOR as u32);
    apic::write(INITIAL_COUNT, u32::MAX);
    let (start, first) = (cpu::tsc(), apic::read(CURRENT_COUNT));
    while cpu::tsc().wrapping_sub(start) < tsc / 200 {}
    let (end, last) = (cpu::tsc(), apic::read(CURRENT_COUNT));
    apic::write(INITIAL_COUNT, 0);
    let ticks = u128::from(first.wrapping_sub(last));
    (ticks * u128::from(tsc) / u128::from(end.wrapping_sub(start).max(1))) as u64
}

pub fn run(report: &mut Report, clock: Clock, mode: &str) {
    once(report, clock, mode);
    accuracy(report, clock, mode);
    periodic(report, clock, mode);
    counting(report, clock, mode);
    divisors(report, clock, mode);
    stopping(report, clock, mode);
    waking(report, clock, mode);
    software_disabled(report, clock, mode);
}

fn arm(mode: u32, count: u32) {
    interrupts::count(VECTOR);
    apic::write(DIVIDE, DIVIDE_BY_1);
    apic::write(LVT_TIMER, mode | VECTOR as u32);
    apic::write(INITIAL_COUNT, count);
}

fn stop() {
    apic::write(INITIAL_COUNT, 0);
    apic::write(LVT_TIMER, MASKED);
    cpu::open_interrupt_window();
}

pub fn once(report: &mut Report, clock: Clock, mode: &str) {
    arm(0, clock.ticks(1000));
    report.equal(format_args!("{mode} one-shot comes once"), clock.expect(VECTOR, 1), 1);
    let left = apic::read(CURRENT_COUNT);
    report.equal(format_args!("{mode} one-shot counts to 0"), left, 0);
    arm(0, clock.ticks(500));
    clock.until(|| apic::vector_bit(apic::IRR, VECTOR));
    let (before, waits) = (interrupts::seen(VECTOR), apic::vector_bit(apic::IRR, VECTOR));
    report.equal(format_args!("{mode} waits while interrupts are off"), (before, waits), (0, true));
    cpu::open_interrupt_window();
    report.equal(format_args!("{mode} comes then"), interrupts::seen(VECTOR), 1);
    stop();
}

fn accuracy(report: &mut Report, clock: Clock, mode: &str) {
    let mut best = u64::MAX;
    let mut early = false;
    for _ in 0..5 {
        let start = cpu::tsc();
        arm(0, clock.ticks(2000));
        interrupts::wait(VECTOR, 1, clock.cycles(100_000));
        let took = clock.microseconds(interrupts::last_tsc().wrapping_sub(start));
        early |= took < 1900;
        best = best.min(took);
    }
    report.equal(format_args!("{mode} one-shot is never early"), early, false);
    report.within(format_args!("{mode} one-shot of 2000 us"), best, 1900, 40_000);
    stop();
}

fn periodic(report: &mut Report, clock: Clock, mode: &str) {
    let start = cpu::tsc();
    arm(PERIODIC, clock.ticks(1000));
    let took = clock.time_of(VECTOR, 20, start);
    report.within(format_args!("{mode} 20 periods of 1 ms"), took, 19_000, PATIENCE);
    stop();
    interrupts::reset(VECTOR);
    clock.pass_open(3000);
    report.equal(format_args!("{mode} periodic stops"), interrupts::seen(VECTOR), 0);
}

fn counting(report: &mut Report, clock: Clock, mode: &str) {
    let initial = clock.ticks(20_000);
    arm(MASKED, initial);
    report.equal(
        format_args!("{mode} initial count reads back"),
        apic::read(INITIAL_COUNT),
        initial,
    );
    let mut last = apic::read(CURRENT_COUNT);
    let first = last;
    let mut falls = last <= initial;
    for _ in 0..200 {
        let now = apic::read(CURRENT_COUNT);
        falls &= now <= last;
        last = now;
    }
    report.holds(format_args!("{mode} current count falls"), falls && last < first, (first, last));
    stop();
}

fn divisors(report: &mut Report, clock: Clock, mode: &str) {
    const ENCODINGS: [(u32, u64); 8] =
        [(0b1011, 1), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128)];
    for (encoding, divisor) in ENCODINGS {
        apic::write(LVT_TIMER, MASKED | VECTOR as u32);
        apic::write(DIVIDE, encoding);
        apic::write(INITIAL_COUNT, u32::MAX);
        let (start, first) = (cpu::tsc(), apic::read(CURRENT_COUNT));
        clock.pass(1000);
        let (end, last) = (cpu::tsc(), apic::read(CURRENT_COUNT));
        let ticks = u64::from(first.wrapping_sub(last));
        let expected = clock.lapic / divisor / 1000 * clock.microseconds(end - start) / 1000;
        let slack = expected / 4 + 2;
        report.within(
            format_args!("{mode} divides by {divisor}"),
            ticks,
            expected - slack.min(expected),
            expected + slack,
        );
    }
    stop();
}

fn stopping(report: &mut Report, clock: Clock, mode: &str) {
    arm(0, clock.ticks(3000));
    apic::write(INITIAL_COUNT, 0);
    clock.pass_open(5000);
    report.equal(format_args!("{mode} count 0 cancels"), interrupts::seen(VECTOR), 0);
    report.equal(format_args!("{mode} cancelled reads 0"), apic::read(CURRENT_COUNT), 0);
    arm(MASKED, clock.ticks(1000));
    clock.pass_open(3000);
    report.equal(format_args!("{mode} masked stays silent"), interrupts::seen(VECTOR), 0);
    arm(0, clock.ticks(50_000));
    arm(0, clock.ticks(500));
    interrupts::wait(VECTOR, 1, clock.cycles(PATIENCE));
    clock.pass_open(60_000);
    report.equal(format_args!("{mode} armed again replaces"), interrupts::seen(VECTOR), 1);
    stop();
}

fn waking(report: &mut Report, clock: Clock, mode: &str) {
    arm(PERIODIC, clock.ticks(1000));
    for _ in 0..5 {
        cpu::wait_for_interrupt();
    }
    stop();
    report.within(format_args!("{mode} wakes HLT"), interrupts::seen(VECTOR).into(), 5, 6);
    arm(0, clock.ticks(1));
    cpu::wait_for_interrupt();
    report.equal(format_args!("{mode} wakes HLT at once"), interrupts::seen(VECTOR), 1);
    stop();
}

/// Switching the APIC off by software masks the local vector table.
fn software_disabled(report: &mut Report, clock: Clock, mode: &str) {
    let spurious = apic::read(SPURIOUS);
    arm(0, clock.ticks(1000));
    apic::write(SPURIOUS, spurious & !0x100);
    let masked = apic::read(LVT_TIMER) & MASKED;
    if cpu::is_bare_tcg() {
        report.skip(format_args!("{mode} off by software masks"), "QEMU does not do that");
    } else {
        report.equal(format_args!("{mode} off by software masks"), masked, MASKED);
    }
    clock.pass_open(3000);
    report.equal(format_args!("{mode} off stays silent"), interrupts::seen(VECTOR), 0);
    apic::write(SPURIOUS, spurious);
    stop();
}
