// SPDX-License-Identifier: MIT OR Apache-2.0
//! A level-triggered input of the IOAPIC: the PIT's output, which in mode 0 stays high once the
//! count has run out and falls when a new count is written.

use super::Clock;
use super::pit::IOAPIC_INPUT;
use crate::rt::apic::{self, LEVEL, REMOTE_IRR};
use crate::rt::report::Report;
use crate::rt::{cpu, interrupts, pit};

const VECTOR: u64 = 0x45;

/// Whether an input's interrupt was accepted and has not ended.
pub fn remote_irr(input: u32) -> bool {
    apic::ioapic_read(apic::redirection(input)) & REMOTE_IRR != 0
}

pub fn run(report: &mut Report, clock: Clock) {
    interrupts::count_without_end(VECTOR);
    pit::stop_channel0();
    apic::route(IOAPIC_INPUT, LEVEL | VECTOR as u32);
    report.equal("remote IRR is clear", remote_irr(IOAPIC_INPUT), false);
    pit::start_channel0(0, 1000);
    let first = (clock.expect(VECTOR, 1), remote_irr(IOAPIC_INPUT));
    report.equal("level comes once until its end", first, (1, true));
    apic::end_of_interrupt();
    cpu::open_interrupt_window();
    clock.pass_open(500);
    let again = (interrupts::seen(VECTOR), remote_irr(IOAPIC_INPUT));
    report.equal("and again while the line is high", again, (2, true));
    pit::start_channel0(0, u16::MAX);
    apic::end_of_interrupt();
    clock.pass_open(500);
    let over = (interrupts::seen(VECTOR), remote_irr(IOAPIC_INPUT));
    report.equal("and no more once it is low", over, (2, false));
    apic::route(IOAPIC_INPUT, apic::MASKED);
    pit::stop_channel0();
}
