// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers, and the interrupt controllers that bring their interrupts.
//!
//! Times are compared with the time-stamp counter, in bounds wide enough for an emulated machine
//! that shares its processor: never early, and late by no more than other tasks may cause.

mod deadline;
mod hpet;
mod interrupt;
mod level;
mod local;
mod pit;
mod rtc;

use crate::rt::report::Report;
use crate::rt::{apic, cpu, interrupts, pic};

/// How late an interrupt may be, in microseconds.
const PATIENCE: u64 = 500_000;

/// What the tests measure with.
#[derive(Clone, Copy)]
struct Clock {
    /// Time-stamp counter in Hz.
    tsc: u64,
    /// Local APIC timer at divide 1, in Hz.
    lapic: u64,
}

impl Clock {
    fn cycles(self, microseconds: u64) -> u64 {
        self.tsc / 1000 * microseconds / 1000
    }

    fn microseconds(self, cycles: u64) -> u64 {
        cycles / (self.tsc / 1_000_000).max(1)
    }

    /// Initial count for a time at divide 1.
    fn ticks(self, microseconds: u64) -> u32 {
        (self.lapic / 1000 * microseconds / 1000) as u32
    }

    /// Lets a time pass, interrupts as they are.
    fn pass(self, microseconds: u64) {
        let start = cpu::tsc();
        while cpu::tsc().wrapping_sub(start) < self.cycles(microseconds) {
            core::hint::spin_loop();
        }
    }

    /// Waits until the vector has come so often, then looks whether more come than that.
    fn expect(self, vector: u64, count: u32) -> u32 {
        interrupts::wait(vector, count, self.cycles(PATIENCE));
        self.pass_open(3000);
        interrupts::seen(vector)
    }

    /// The time in microseconds from `start` until the vector has come so often.
    fn time_of(self, vector: u64, count: u32, start: u64) -> u64 {
        interrupts::wait(vector, count, self.cycles(PATIENCE));
        self.microseconds(cpu::tsc().wrapping_sub(start))
    }

    /// Waits, interrupts as they are, until something holds or patience ends.
    fn until(self, condition: impl Fn() -> bool) {
        let start = cpu::tsc();
        while !condition() && cpu::tsc().wrapping_sub(start) < self.cycles(PATIENCE) {
            core::hint::spin_loop();
        }
    }

    /// Lets a time pass with interrupts on.
    fn pass_open(self, microseconds: u64) {
        cpu::enable_interrupts();
        self.pass(microseconds);
        cpu::disable_interrupts();
    }
}

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    let tsc = crate::rt::pit::tsc_frequency();
    let clock = Clock { tsc, lapic: local::frequency(tsc) };
    report.within("TSC in MHz", tsc / 1_000_000, 50, 10_000);
    report.within("APIC timer in kHz", clock.lapic / 1000, 1000, 10_000_000);
    pit::run(&mut report, clock);
    rtc::run(&mut report, clock);
    hpet::run(&mut report, clock);
    interrupt::run(&mut report);
    level::run(&mut report, clock);
    local::run(&mut report, clock, "xAPIC");
    deadline::run(&mut report, clock, "xAPIC");
    if cpu::cpuid(1, 0)[2] >> 21 & 1 == 1 {
        apic::enable(true);
        interrupt::run(&mut report);
        interrupt::self_register(&mut report);
        local::run(&mut report, clock, "x2APIC");
        deadline::run(&mut report, clock, "x2APIC");
        apic::back_to_xapic();
        local::once(&mut report, clock, "xAPIC again");
    } else {
        report.skip("x2APIC", "the CPU does not have it");
    }
    report.finish()
}
