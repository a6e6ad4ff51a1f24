// SPDX-License-Identifier: MIT OR Apache-2.0
//! Priorities: classes, task and processor priority, order, ends (Intel SDM vol. 3, 11.8.3 ff.).

use super::{NEVER, ONCE, Results, arrivals, drain};
use crate::rt::apic::{self, ICR_SELF, IRR, ISR, PPR, TPR, vector_bit};
use crate::rt::trap::{self, Frame};
use crate::rt::{cpu, interrupts};

const LOW: u64 = 0x41;
const SAME_CLASS: u64 = 0x4E;
const HIGH: u64 = 0x91;

fn send(vector: u64) {
    apic::send(0, ICR_SELF | vector as u32);
}

pub fn run(results: &mut Results<'_>) {
    every_vector(results);
    task_priority(results);
    same_class(results);
    nested(results);
    repeated(results);
}

/// Each vector that may be sent arrives as itself, and leaves nothing behind.
fn every_vector(results: &mut Results<'_>) {
    // Some belong to the tests themselves: 0x81 ends their code, 0xFF is the spurious one.
    let usable = || (0x20..0xFFu64).filter(|&vector| vector != trap::DONE);
    let mut wrong = 0;
    for vector in usable() {
        interrupts::count(vector);
        send(vector);
        let pending = (vector_bit(IRR, vector), vector_bit(ISR, vector)) == (true, false);
        let arrived = arrivals(vector) == ONCE;
        wrong += u32::from(!pending || !arrived);
    }
    results.equal(format_args!("vectors that do not arrive"), wrong, 0);
    usable().for_each(interrupts::count);
    usable().for_each(send);
    cpu::enable_interrupts();
    cpu::disable_interrupts();
    drain();
    let last = interrupts::order();
    results.equal(format_args!("all at once: the lowest come last"), last, 0x2726_2524_2322_2120);
    let missing = usable().filter(|&vector| interrupts::seen(vector) != 1).count();
    results.equal(format_args!("all at once: vectors not once"), missing, 0);
}

/// A vector passes if its class is above the task's, whatever its subclass.
fn task_priority(results: &mut Results<'_>) {
    for class in 3..=14u32 {
        let vector = u64::from(class << 4 | 2);
        interrupts::count(vector);
        apic::write(TPR, class << 4);
        send(vector);
        drain();
        let held = (interrupts::seen(vector), apic::read(PPR));
        results.equal(format_args!("class {class} is held"), held, (0, class << 4));
        apic::write(TPR, (class - 1) << 4 | 0xF);
        results.equal(format_args!("class {class} passes"), arrivals(vector), ONCE);
    }
    apic::write(TPR, 0xFF);
    interrupts::count(HIGH);
    send(HIGH);
    drain();
    results.equal(format_args!("task priority 0xFF holds all"), interrupts::seen(HIGH), 0);
    // SAFETY: interrupts are off.
    unsafe { cpu::write_cr8(0) };
    results.equal(format_args!("CR8 clears the subclass, too"), apic::read(TPR), 0);
    results.equal(format_args!("and lets it pass"), arrivals(HIGH), ONCE);
}

/// Within a class nothing interrupts what is in service.
fn same_class(results: &mut Results<'_>) {
    interrupts::count_without_end(LOW);
    interrupts::count(SAME_CLASS);
    send(LOW);
    drain();
    send(SAME_CLASS);
    drain();
    let state = (interrupts::seen(LOW), interrupts::seen(SAME_CLASS), apic::read(PPR));
    results.equal(format_args!("a higher one of the class waits"), state, (1, 0, 0x40));
    apic::end_of_interrupt();
    results.equal(format_args!("until the end"), arrivals(SAME_CLASS), ONCE);
    results.equal(format_args!("processor priority falls"), apic::read(PPR), 0);
}

/// The handler of the lower one lets interrupts in, and the higher one interrupts it.
fn nested(results: &mut Results<'_>) {
    fn outer(_: &mut Frame) {
        apic::send(0, ICR_SELF | HIGH as u32);
        apic::send(0, ICR_SELF | SAME_CLASS as u32);
        drain();
        DURING.store(interrupts::seen(HIGH) << 8 | interrupts::seen(SAME_CLASS), Ordering::SeqCst);
        apic::end_of_interrupt();
    }
    use core::sync::atomic::{AtomicU32, Ordering};
    static DURING: AtomicU32 = AtomicU32::new(0);
    interrupts::count(HIGH);
    interrupts::count(SAME_CLASS);
    trap::handle(LOW, Some(outer));
    send(LOW);
    drain();
    let during = DURING.load(Ordering::SeqCst);
    results.equal(format_args!("a handler is interrupted by higher classes"), during, 0x100);
    results.equal(format_args!("and not by its own"), arrivals(SAME_CLASS), ONCE);
}

/// One request waits while one is in service; more of the same are lost.
fn repeated(results: &mut Results<'_>) {
    interrupts::count_without_end(LOW);
    send(LOW);
    drain();
    for _ in 0..3 {
        send(LOW);
    }
    drain();
    let state = (interrupts::seen(LOW), vector_bit(IRR, LOW), vector_bit(ISR, LOW));
    results.equal(format_args!("the next waits for the end"), state, (1, true, true));
    apic::end_of_interrupt();
    drain();
    let state = (interrupts::seen(LOW), vector_bit(IRR, LOW), vector_bit(ISR, LOW));
    results.equal(format_args!("three that wait are one"), state, (2, false, true));
    apic::end_of_interrupt();
    interrupts::count(LOW);
    results.equal(format_args!("nothing more comes"), arrivals(LOW), NEVER);
}
