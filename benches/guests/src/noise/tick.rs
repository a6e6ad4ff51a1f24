// SPDX-License-Identifier: MIT OR Apache-2.0
//! The timer tick that a guest may have, as most kernels do.

use core::sync::atomic::{AtomicU64, Ordering};

use bare_metal::rt::apic::{EOI, INITIAL_COUNT, LVT_TIMER, MASKED, PERIODIC};
use bare_metal::rt::cpu;
use bare_metal::rt::trap::{self, Handler};

use crate::apic::Mode;
use crate::clock::Clock;

const VECTOR: u64 = 0x62;

static CAME: AtomicU64 = AtomicU64::new(0);

/// The local APIC's timer, in periodic mode.
pub struct Tick {
    mode: Mode,
    clock: Clock,
}

impl Tick {
    /// Compares the timer with the time-stamp counter.
    pub fn new(mode: Mode) -> Self {
        let handler: Handler = match mode {
            Mode::Xapic => |_| came(Mode::Xapic),
            Mode::X2apic => |_| came(Mode::X2apic),
        };
        trap::handle(VECTOR, Some(handler));
        Self { mode, clock: Clock::calibrate(mode) }
    }

    /// Lets interrupts in, and has the timer interrupt with this period, if there is one.
    pub fn start(&self, period: Option<u64>) {
        self.forget();
        if let Some(ticks) = period {
            self.mode.write(LVT_TIMER, PERIODIC | VECTOR as u32);
            self.mode.write(INITIAL_COUNT, self.clock.count_for(ticks));
        }
        cpu::enable_interrupts();
    }

    /// Begins to count at zero.
    pub fn forget(&self) {
        CAME.store(0, Ordering::Relaxed);
    }

    /// Lets nothing in any more, and gives how often the timer has interrupted.
    pub fn stop(&self) -> u64 {
        cpu::disable_interrupts();
        let came = CAME.load(Ordering::Relaxed);
        self.mode.write(LVT_TIMER, MASKED);
        self.mode.write(INITIAL_COUNT, 0);
        came
    }
}

#[inline(always)]
fn came(mode: Mode) {
    CAME.fetch_add(1, Ordering::Relaxed);
    mode.write(EOI, 0);
}
