// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often, and for how long, a computation is interrupted: the Selfish Detour benchmark.
//!
//! It samples the time-stamp counter in a tight loop. Between two samples there is always the same
//! short distance, unless something else has had the CPU: that is a detour (Beckman, Iskra, Yoshii
//! and Coghlan, "The Influence of Operating Systems on the Performance of Collective Operations at
//! Extreme Scale", 2006).
//!
//! Words of the command line, all numbers in ticks of the time-stamp counter:
//! - `span=TICKS`: how long to sample;
//! - `threshold=TICKS`: distances above are detours;
//! - `tick=off` or `tick=TICKS`: without a timer, or with one that interrupts with this period;
//!   given several times, it samples as often, in this order;
//! - `busy=TICKS`: do not measure, but be a neighbour that works for so long, with the first of the
//!   timers named.

mod detours;
mod neighbour;
mod tick;

use bare_metal::rt::start_info::words;
use bare_metal::rt::{apic, cpu, pic};

use crate::apic::Mode;
use detours::Detours;
use tick::Tick;

/// Ticks for which it samples before it counts, so that all it needs is there.
const WARM_UP: u64 = 3_000_000;

/// The exit value for a command line that lacks something.
const USAGE: u32 = 2;

/// Measures, or is busy.
pub fn run() -> u32 {
    pic::init();
    let has_x2apic = cpu::cpuid(1, 0)[2] >> 21 & 1 == 1;
    apic::enable(has_x2apic);
    let mode = if has_x2apic { Mode::X2apic } else { Mode::Xapic };
    let tick = Tick::new(mode);
    if let Some(span) = number("busy") {
        neighbour::run(span, periods().next().and_then(ticks), &tick);
        return 0;
    }
    let (Some(span), Some(threshold)) = (number("span"), number("threshold")) else {
        return USAGE;
    };
    let mut detours = Detours::take();
    for period in periods() {
        tick.start(ticks(period));
        detours.gather(WARM_UP, threshold);
        tick.forget();
        let summary = detours.gather(span, threshold);
        let came = tick.stop();
        detours.print(period, &summary, came);
    }
    0
}

/// The periods of the timers that are to interrupt, as they are named.
fn periods() -> impl Iterator<Item = &'static str> {
    words().filter_map(|word| word.strip_prefix("tick="))
}

/// The same in ticks; nothing for none.
fn ticks(period: &str) -> Option<u64> {
    period.parse().ok()
}

/// The number in the word `name=NUMBER`.
fn number(name: &str) -> Option<u64> {
    words().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
