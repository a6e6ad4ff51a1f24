// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far every clock of the machine gets in a while.
//!
//! Prints `clock NAME: N ns in M ticks` for each: the nanoseconds that passed by that clock, at
//! the rate that the machine promises for it, and the ticks of the time-stamp counter. Whoever
//! knows how fast the time-stamp counter really is can tell from it how much the clock drifts.
//! The guest itself sees only that no clock is far off.
//!
//! Option: `seconds=N`, how long (3 if absent). It halts meanwhile.

pub(super) mod counter;
mod ticker;

use core::fmt::Display;

use counter::Counter;

use crate::rt::report::Report;
use crate::rt::{apic, cpu, pic, pit, start_info};

const DEFAULT_SECONDS: u64 = 3;
pub(super) const NANOSECONDS: u128 = 1_000_000_000;
/// What a clock may be off by before the guest objects, in percent: on the bare machine ticks
/// get lost when the host is busy.
const TOLERANCE: u64 = 25;

/// How fast a clock is promised to go: ticks in so many seconds.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    ticks: u64,
    seconds: u64,
}

impl Rate {
    pub(super) const fn hertz(ticks: u64) -> Self {
        Self { ticks, seconds: 1 }
    }

    pub(super) fn nanoseconds(self, ticks: u64) -> u64 {
        let product = u128::from(ticks) * NANOSECONDS * u128::from(self.seconds);
        u64::try_from(product / u128::from(self.ticks.max(1))).unwrap_or(u64::MAX)
    }
}

/// What passed by a clock and by the time-stamp counter.
pub(super) struct Elapsed {
    pub(super) nanoseconds: u64,
    pub(super) tsc: u64,
}

/// Runs all clocks at once.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    let tsc = pit::tsc_frequency();
    let option = start_info::words().find_map(|word| word.strip_prefix("seconds="));
    let seconds = option.and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_SECONDS);
    let mut counters = counter::all(&report);
    ticker::start();
    counters.iter_mut().flatten().for_each(Counter::start);
    let begin = cpu::tsc();
    while cpu::tsc().wrapping_sub(begin) < tsc.saturating_mul(seconds) {
        cpu::wait_for_interrupt();
        counters.iter_mut().flatten().for_each(Counter::advance);
    }
    for counter in counters.iter_mut().flatten() {
        let elapsed = counter.elapsed();
        tell(&mut report, tsc, counter.name(), &elapsed);
    }
    ticker::stop();
    for ticker in ticker::all() {
        match ticker.elapsed() {
            Some(elapsed) => tell(&mut report, tsc, ticker.name(), &elapsed),
            None => report.holds(format_args!("{} interrupts", ticker.name()), false, "never"),
        }
    }
    report.finish()
}

fn tell(report: &mut Report, tsc: u64, name: impl Display, elapsed: &Elapsed) {
    println!("clock {name}: {} ns in {} ticks", elapsed.nanoseconds, elapsed.tsc);
    let expected = Rate::hertz(tsc).nanoseconds(elapsed.tsc);
    let slack = expected / 100 * TOLERANCE;
    report.within(
        format_args!("{name} in ns"),
        elapsed.nanoseconds,
        expected - slack,
        expected + slack,
    );
}
