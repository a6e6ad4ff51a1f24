// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers that count, and the order in which they ran.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::trap::{self, Frame};
use super::{apic, cpu, pic};

static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
/// The last eight vectors, the newest in the lowest byte.
static ORDER: AtomicU64 = AtomicU64::new(0);
static LAST_TSC: AtomicU64 = AtomicU64::new(0);

fn note(frame: &Frame) {
    LAST_TSC.store(cpu::tsc(), Ordering::SeqCst);
    if let Some(count) = COUNTS.get(frame.vector as usize) {
        count.fetch_add(1, Ordering::SeqCst);
    }
    let order = ORDER.load(Ordering::SeqCst);
    ORDER.store(order << 8 | frame.vector & 0xFF, Ordering::SeqCst);
}

fn count_only(frame: &mut Frame) {
    note(frame);
}

fn count_and_end(frame: &mut Frame) {
    note(frame);
    apic::end_of_interrupt();
}

fn count_and_end_pic(frame: &mut Frame) {
    note(frame);
    pic::end_of_interrupt(frame.vector.wrapping_sub(pic::BASE) as u8 & 15);
}

/// Counts a vector without ending the interrupt at its controller.
pub fn count_without_end(vector: u64) {
    trap::handle(vector, Some(count_only));
    reset(vector);
}

/// Counts a vector and ends the interrupt at the local APIC.
pub fn count(vector: u64) {
    trap::handle(vector, Some(count_and_end));
    reset(vector);
}

/// Counts a vector and ends the interrupt at the interrupt controller pair.
pub fn count_pic(vector: u64) {
    trap::handle(vector, Some(count_and_end_pic));
    reset(vector);
}

/// Sets a count to zero and forgets the order.
pub fn reset(vector: u64) {
    if let Some(count) = COUNTS.get(vector as usize) {
        count.store(0, Ordering::SeqCst);
    }
    ORDER.store(0, Ordering::SeqCst);
}

/// How often a vector came since its last reset.
pub fn seen(vector: u64) -> u32 {
    COUNTS.get(vector as usize).map_or(0, |count| count.load(Ordering::SeqCst))
}

/// The vectors in the order they came, one byte each, the newest lowest.
pub fn order() -> u64 {
    ORDER.load(Ordering::SeqCst)
}

/// Time-stamp counter when the last one came.
pub fn last_tsc() -> u64 {
    LAST_TSC.load(Ordering::SeqCst)
}

/// Waits with interrupts on until the vector has come `count` times; false after `cycles`.
pub fn wait(vector: u64, count: u32, cycles: u64) -> bool {
    let start = cpu::tsc();
    cpu::enable_interrupts();
    while seen(vector) < count && cpu::tsc().wrapping_sub(start) < cycles {
        core::hint::spin_loop();
    }
    cpu::disable_interrupts();
    seen(vector) >= count
}
