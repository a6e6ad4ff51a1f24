// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC timer: armed, delivered, waking a halted CPU.
//!
//! What is given is the time beyond that for which the timer was armed: arming it, the delay until
//! its handler runs, and the handler's way back.

use core::sync::atomic::{AtomicBool, Ordering};

use bare_metal::rt::apic::{EOI, INITIAL_COUNT, LVT_TIMER, MASKED, MSR_TSC_DEADLINE, TSC_DEADLINE};
use bare_metal::rt::cpu::{self, tsc};
use bare_metal::rt::trap::{self, Handler};

use crate::apic::Mode;
use crate::clock::Clock;
use crate::samples::{Bench, ticks};

const VECTOR: u64 = 0x62;
/// Ticks of the time-stamp counter that the timer is armed for: more than arming it takes.
const DELAY: u64 = 50_000;

static CAME: AtomicBool = AtomicBool::new(false);

/// Measures it.
pub fn run(bench: &Bench, mode: Mode) {
    let handler: Handler = match mode {
        Mode::Xapic => |_| {
            Mode::Xapic.write(EOI, 0);
            CAME.store(true, Ordering::Relaxed);
        },
        Mode::X2apic => |_| {
            Mode::X2apic.write(EOI, 0);
            CAME.store(true, Ordering::Relaxed);
        },
    };
    trap::handle(VECTOR, Some(handler));
    let count = Clock::calibrate(mode).count_for(DELAY);
    mode.write(LVT_TIMER, VECTOR as u32);
    bench.sample("timer-oneshot", |_| beyond(|| mode.write(INITIAL_COUNT, count), spin));
    bench.sample("timer-halt-wake", |_| beyond(|| mode.write(INITIAL_COUNT, count), halt));
    deadline(bench, mode);
    mode.write(LVT_TIMER, MASKED);
    trap::handle(VECTOR, None);
}

fn deadline(bench: &Bench, mode: Mode) {
    if cpu::cpuid(1, 0)[2] >> 24 & 1 == 0 {
        bench.skip("timer-deadline", "the CPU does not have it");
        return;
    }
    mode.write(LVT_TIMER, TSC_DEADLINE | VECTOR as u32);
    // SAFETY: the register only arms the timer.
    let arm = || unsafe { cpu::wrmsr(MSR_TSC_DEADLINE, tsc() + DELAY) };
    bench.sample("timer-deadline", |_| beyond(arm, spin));
}

/// Arms the timer, waits for it and gives the ticks beyond [`DELAY`].
fn beyond(arm: impl FnOnce(), wait: fn()) -> u64 {
    CAME.store(false, Ordering::Relaxed);
    let took = ticks(|| {
        arm();
        wait();
    });
    took.saturating_sub(DELAY)
}

fn spin() {
    cpu::enable_interrupts();
    while !CAME.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    cpu::disable_interrupts();
}

fn halt() {
    cpu::wait_for_interrupt();
}
