// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executes random instructions in all modes and at all privileges, after random acts, under timers
//! that take the CPU back: exceptions, interrupts, or an NMI end each attempt.
//!
//! All it does follows from `seed=N`, except for what it reads from clocks. It ends with exit value
//! 0 after `attempts=N` (300), unless an attempt ends the VM in another way, or makes it hang: so
//! give it a time limit. Not for bare QEMU.

mod acts;
mod code;
mod forms;
mod places;
mod random;
mod recover;
mod tables;
mod undo;
mod values;

use core::arch::asm;

use crate::rt::{apic, console, cpu, pic, pit, start_info};
use random::Random;

/// Vector of the local APIC's timer.
const TIMER: u32 = 0x40;
/// How long an attempt may take.
struct Patience {
    /// In the timer's nanoseconds. On the way to the attempt's mode are some exits.
    timer: u32,
    /// In ticks of the 8254, whose NMI comes if interrupts are off. It must not come on the way back.
    nmi: u16,
}

/// On QEMU time goes on while the emulator works, and an exit takes long.
const PATIENCE_ON_TCG: Patience = Patience { timer: 1_000_000, nmi: 6000 };
const PATIENCE: Patience = Patience { timer: 300_000, nmi: 1200 };

const PIT_INPUT: u32 = 2;
/// Delivery mode of a redirection entry.
const DELIVER_NMI: u32 = 4 << 8;

/// Attempts until interrupts that were taken are ended for certain.
const SETTLE_EVERY: u64 = 16;

const DEFAULT_ATTEMPTS: u64 = 300;

/// Makes the attempts.
pub fn run() -> u32 {
    let number = |name| start_info::words().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let seed: u64 = number("seed=").unwrap_or(1);
    let attempts = number("attempts=").unwrap_or(DEFAULT_ATTEMPTS);
    pic::init();
    tables::prepare();
    tables::low_memory();
    tables::load();
    let mut vectors = [0_u32; recover::REAL_MODE as usize + 1];
    for attempt in 0..attempts {
        let mut random = Random::new(Random::new(seed).next() ^ attempt);
        guarded(|| settle(attempt));
        guarded(take_interrupt);
        guarded(arm_nmi);
        for _ in 0..random.below(3) {
            guarded(|| acts::commit(&mut random));
        }
        guarded(|| places::execute(&mut random));
        guarded(places::restore);
        // SAFETY: written by the way back only.
        let vector = unsafe { (&raw const recover::torture_vector).read_volatile() };
        if let Some(count) = vectors.get_mut(vector as usize) {
            *count += 1;
        }
    }
    let sum =
        |range: core::ops::Range<usize>| -> u32 { vectors.get(range).into_iter().flatten().sum() };
    // The serial port is as some attempt has left it.
    console::init();
    println!(
        "{attempts} attempts: {} exceptions, {} NMIs, {} interrupts, {} in real mode",
        sum(0..2) + sum(3..32),
        sum(2..3),
        sum(32..256),
        sum(256..257)
    );
    0
}

/// Calls the closure, and comes back whatever happens in it. It must own nothing that wants
/// dropping.
fn guarded<F: FnMut()>(mut code: F) {
    extern "C" fn call<F: FnMut()>(data: *mut u8) {
        // SAFETY: `data` is the closure that `guarded` passed along.
        let code = unsafe { &mut *data.cast::<F>() };
        code();
    }
    // SAFETY: the closure outlives the call, after which stack and registers are as before it.
    unsafe { recover::torture_call(call::<F>, (&raw mut code).cast()) };
}

/// Ends interrupts that were taken, and makes the local APIC usable.
fn settle(attempt: u64) {
    const BASE: u64 = apic::LAPIC | apic::ENABLE | 1 << 8;
    if cpu::rdmsr(apic::MSR_APIC_BASE) != BASE {
        // SAFETY: off, and on again at its usual place, in xAPIC mode.
        unsafe {
            cpu::wrmsr(apic::MSR_APIC_BASE, BASE & !apic::ENABLE);
            cpu::wrmsr(apic::MSR_APIC_BASE, BASE);
        }
    }
    let ends = if attempt.is_multiple_of(SETTLE_EVERY) { 16 } else { 1 };
    (0..ends).for_each(|_| apic::end_of_interrupt());
}

/// Takes what the timer of the attempt before may have asked for since, or the next would end with
/// it before its first instruction.
fn take_interrupt() {
    apic::end_of_interrupt();
    apic::write(apic::INITIAL_COUNT, 0);
    // SAFETY: an interrupt takes the way back.
    unsafe { asm!("sti", "nop", "cli", options(nomem, nostack)) };
}

fn patience() -> Patience {
    if start_info::is_tcg_cpu() { PATIENCE_ON_TCG } else { PATIENCE }
}

/// Starts the two timers that end an attempt; last before it, or they would end it before its first
/// instruction.
fn arm() {
    arm_nmi();
    apic::write(apic::DIVIDE, 0xB);
    apic::write(apic::LVT_TIMER, TIMER);
    apic::write(apic::INITIAL_COUNT, patience().timer);
}

/// Starts the one that needs no interrupts.
fn arm_nmi() {
    apic::write(apic::TPR, 0);
    apic::write(apic::SPURIOUS, 0x100 | apic::SPURIOUS_VECTOR as u32);
    apic::write(apic::LVT_LINT0, apic::MASKED);
    apic::route(PIT_INPUT, DELIVER_NMI);
    pit::start_channel0(0, patience().nmi);
}
