// SPDX-License-Identifier: MIT OR Apache-2.0
//! Priorities, pending interrupts and their end, with interrupts that the CPU sends itself.

use core::arch::asm;

use crate::rt::apic::{self, ESR, ICR_SELF, IRR, ISR, PPR, TPR, vector_bit};
use crate::rt::report::Report;
use crate::rt::{cpu, interrupts};

const LOW: u64 = 0x41;
const MIDDLE: u64 = 0x51;
const HIGH: u64 = 0x61;

fn send(vector: u64) {
    apic::send(0, ICR_SELF | vector as u32);
}

fn count_all() {
    for vector in [LOW, MIDDLE, HIGH] {
        interrupts::count(vector);
    }
}

pub fn run(report: &mut Report) {
    pending(report);
    order(report);
    task_priority(report);
    end_of_interrupt(report);
    shadow(report);
    illegal_vector(report);
}

fn pending(report: &mut Report) {
    count_all();
    send(LOW);
    send(LOW);
    let state = (interrupts::seen(LOW), vector_bit(IRR, LOW), vector_bit(ISR, LOW));
    report.equal("pending while interrupts are off", state, (0, true, false));
    cpu::open_interrupt_window();
    let state = (interrupts::seen(LOW), vector_bit(IRR, LOW), vector_bit(ISR, LOW));
    report.equal("comes once when they are on", state, (1, false, false));
    cpu::enable_interrupts();
    send(LOW);
    cpu::disable_interrupts();
    report.equal("comes at once while they are on", interrupts::seen(LOW), 2);
}

fn order(report: &mut Report) {
    count_all();
    for vector in [LOW, HIGH, MIDDLE] {
        send(vector);
    }
    cpu::open_interrupt_window();
    cpu::open_interrupt_window();
    report.equal("highest vector first", interrupts::order(), HIGH << 16 | MIDDLE << 8 | LOW);
}

fn task_priority(report: &mut Report) {
    count_all();
    apic::write(TPR, 0x50);
    report.equal("processor priority follows", apic::read(PPR), 0x50);
    for vector in [LOW, MIDDLE, HIGH] {
        send(vector);
    }
    cpu::open_interrupt_window();
    report.equal("task priority lets only higher pass", interrupts::order(), HIGH);
    // SAFETY: interrupts are off.
    unsafe { cpu::write_cr8(4) };
    report.equal("CR8 in the task priority", apic::read(TPR), 0x40);
    cpu::open_interrupt_window();
    report.equal("CR8 lowered lets the next pass", interrupts::order(), HIGH << 8 | MIDDLE);
    // With interrupts on, the write itself lets it in.
    cpu::enable_interrupts();
    // SAFETY: the handlers keep all registers.
    unsafe { cpu::write_cr8(0) };
    cpu::disable_interrupts();
    let all = HIGH << 16 | MIDDLE << 8 | LOW;
    report.equal("CR8 0 lets the last pass", interrupts::order(), all);
}

fn end_of_interrupt(report: &mut Report) {
    count_all();
    interrupts::count_without_end(HIGH);
    send(HIGH);
    cpu::open_interrupt_window();
    report.equal("in service", (vector_bit(ISR, HIGH), apic::read(PPR)), (true, 0x60));
    send(LOW);
    send(HIGH);
    cpu::open_interrupt_window();
    let waiting = (vector_bit(IRR, LOW), vector_bit(IRR, HIGH), interrupts::order());
    report.equal("nothing passes what is in service", waiting, (true, true, HIGH));
    apic::end_of_interrupt();
    cpu::open_interrupt_window();
    report.equal("its end lets the same vector in", interrupts::order(), HIGH << 8 | HIGH);
    apic::end_of_interrupt();
    cpu::open_interrupt_window();
    let all = HIGH << 16 | HIGH << 8 | LOW;
    report.equal("and then the lower one", (interrupts::order(), apic::read(PPR)), (all, 0));
    nested(report);
}

/// A higher one interrupts a lower one; ends come in the order highest first.
fn nested(report: &mut Report) {
    interrupts::count_without_end(LOW);
    interrupts::count_without_end(HIGH);
    send(LOW);
    cpu::open_interrupt_window();
    send(HIGH);
    cpu::open_interrupt_window();
    let both = (vector_bit(ISR, LOW), vector_bit(ISR, HIGH), apic::read(PPR));
    report.equal("both in service", both, (true, true, 0x60));
    apic::end_of_interrupt();
    let one = (vector_bit(ISR, LOW), vector_bit(ISR, HIGH), apic::read(PPR));
    report.equal("the higher ends first", one, (true, false, 0x40));
    apic::end_of_interrupt();
    let none = (vector_bit(ISR, LOW), vector_bit(ISR, HIGH), apic::read(PPR));
    report.equal("then the lower", none, (false, false, 0));
    apic::end_of_interrupt();
    report.equal("an end too many does nothing", apic::read(PPR), 0);
}

/// STI lets interrupts in only after the instruction that follows.
fn shadow(report: &mut Report) {
    count_all();
    send(LOW);
    // SAFETY: nothing can come in between.
    unsafe { asm!("sti", "cli") };
    report.equal("not between STI and CLI", interrupts::seen(LOW), 0);
    // SAFETY: the handler keeps all registers.
    unsafe { asm!("sti", "nop", "cli") };
    report.equal("behind STI and NOP", interrupts::seen(LOW), 1);
}

/// Vectors below 16 are refused, with a note in the error status register.
fn illegal_vector(report: &mut Report) {
    const SEND_ILLEGAL: u32 = 1 << 5;
    const RECEIVE_ILLEGAL: u32 = 1 << 6;
    if cpu::is_bare_tcg() {
        report.skip("illegal vector", "QEMU delivers it to the request register");
        return;
    }
    apic::write(ESR, 0);
    send(5);
    apic::write(ESR, 0);
    let errors = apic::read(ESR);
    report.holds("illegal vector", errors & (SEND_ILLEGAL | RECEIVE_ILLEGAL) != 0, errors);
    apic::write(ESR, 0);
}

/// The self-IPI register of x2APIC mode.
pub fn self_register(report: &mut Report) {
    count_all();
    // SAFETY: the handler keeps all registers.
    unsafe { cpu::wrmsr(0x83F, MIDDLE) };
    cpu::open_interrupt_window();
    report.equal("x2APIC self-IPI register", interrupts::seen(MIDDLE), 1);
}
