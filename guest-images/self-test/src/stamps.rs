// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pairs of readings of two clocks.

use std::arch::x86_64::{__rdtscp, _mm_lfence};
use std::time::Duration;

/// Readings of which the least disturbed is taken.
const READINGS: u32 = 200;

/// The time-stamp counter, not before what precedes it in the program.
pub fn tsc() -> u64 {
    let mut cpu = 0;
    // SAFETY: every x86-64 CPU has LFENCE, and every one that Alcazar runs on has RDTSCP.
    unsafe {
        let value = __rdtscp(&raw mut cpu);
        _mm_lfence();
        value
    }
}

/// A clock of the kernel, by its number, since some moment.
pub fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What two clocks said at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The kernel's clock.
    pub clock: Duration,
    /// Time-stamp counter.
    pub tsc: u64,
}

impl Stamp {
    /// Reads both; of many readings the one that took the shortest time, for the machine may be
    /// interrupted in between.
    pub fn take(id: libc::clockid_t) -> Self {
        let readings = (0..READINGS).map(|_| {
            let before = tsc();
            let clock = clock(id);
            let took = tsc().wrapping_sub(before);
            (took, Self { clock, tsc: before.wrapping_add(took / 2) })
        });
        readings
            .min_by_key(|&(took, _)| took)
            .map_or_else(|| Self { clock: Duration::ZERO, tsc: 0 }, |(_, stamp)| stamp)
    }

    /// What passed since `earlier`, by the clock and in ticks of the time-stamp counter.
    pub fn since(&self, earlier: &Self) -> (Duration, u64) {
        (self.clock.saturating_sub(earlier.clock), self.tsc.wrapping_sub(earlier.tsc))
    }
}
