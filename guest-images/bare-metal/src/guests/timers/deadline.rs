// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC timer in TSC-deadline mode.

use super::Clock;
use super::local::VECTOR;
use crate::rt::apic::{self, INITIAL_COUNT, LVT_TIMER, MASKED, MSR_TSC_DEADLINE, TSC_DEADLINE};
use crate::rt::report::Report;
use crate::rt::{cpu, interrupts};

fn arm(deadline: u64) {
    // SAFETY: the register only arms the timer.
    unsafe { cpu::wrmsr(MSR_TSC_DEADLINE, deadline) };
}

pub fn run(report: &mut Report, clock: Clock, mode: &str) {
    if cpu::cpuid(1, 0)[2] >> 24 & 1 == 0 {
        report.skip(format_args!("{mode} TSC deadline"), "the CPU does not have it");
        return;
    }
    interrupts::count(VECTOR);
    apic::write(LVT_TIMER, TSC_DEADLINE | VECTOR as u32);
    let deadline = cpu::tsc() + clock.cycles(2000);
    arm(deadline);
    report.equal(
        format_args!("{mode} deadline reads back"),
        cpu::rdmsr(MSR_TSC_DEADLINE),
        deadline,
    );
    report.equal(format_args!("{mode} deadline comes once"), clock.expect(VECTOR, 1), 1);
    let late = interrupts::last_tsc().saturating_sub(deadline);
    let early = interrupts::last_tsc() < deadline;
    report.equal(format_args!("{mode} deadline is not early"), early, false);
    report.within(format_args!("{mode} deadline lateness"), clock.microseconds(late), 0, 40_000);
    report.equal(format_args!("{mode} deadline reads 0 then"), cpu::rdmsr(MSR_TSC_DEADLINE), 0);

    interrupts::reset(VECTOR);
    arm(1);
    cpu::open_interrupt_window();
    clock.pass_open(500);
    report.equal(format_args!("{mode} past deadline comes at once"), interrupts::seen(VECTOR), 1);
    interrupts::reset(VECTOR);
    arm(cpu::tsc() + clock.cycles(1000));
    arm(0);
    clock.pass_open(3000);
    report.equal(format_args!("{mode} deadline 0 cancels"), interrupts::seen(VECTOR), 0);
    apic::write(INITIAL_COUNT, 1000);
    clock.pass_open(1000);
    report.equal(format_args!("{mode} initial count has no effect"), interrupts::seen(VECTOR), 0);
    arm(cpu::tsc() + clock.cycles(500));
    cpu::wait_for_interrupt();
    report.equal(format_args!("{mode} deadline wakes HLT"), interrupts::seen(VECTOR), 1);

    arm(cpu::tsc() + clock.cycles(1000));
    apic::write(LVT_TIMER, MASKED | VECTOR as u32);
    report.equal(format_args!("{mode} leaving the mode disarms"), cpu::rdmsr(MSR_TSC_DEADLINE), 0);
    interrupts::reset(VECTOR);
    arm(1);
    apic::write(LVT_TIMER, VECTOR as u32);
    clock.pass_open(500);
    report.equal(format_args!("{mode} no deadline in other modes"), interrupts::seen(VECTOR), 0);
    apic::write(LVT_TIMER, MASKED);
}
