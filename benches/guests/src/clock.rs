// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the local APIC's timer goes, by the time-stamp counter.

use bare_metal::rt::apic::{CURRENT_COUNT, DIVIDE, INITIAL_COUNT, LVT_TIMER, MASKED};
use bare_metal::rt::cpu::tsc;

use crate::apic::Mode;

/// Encoding of divide 1.
const DIVIDE_BY_1: u32 = 0xB;
/// Ticks of the time-stamp counter over which the two are compared.
const CALIBRATION: u64 = 5_000_000;

/// The two compared.
pub struct Clock {
    counts: u64,
    ticks: u64,
}

impl Clock {
    /// Compares them. Thereafter the timer divides by 1 and is stopped and masked.
    pub fn calibrate(mode: Mode) -> Self {
        mode.write(DIVIDE, DIVIDE_BY_1);
        mode.write(LVT_TIMER, MASKED);
        mode.write(INITIAL_COUNT, u32::MAX);
        let (start, first) = (tsc(), mode.read(CURRENT_COUNT));
        while tsc().wrapping_sub(start) < CALIBRATION {}
        let (end, last) = (tsc(), mode.read(CURRENT_COUNT));
        mode.write(INITIAL_COUNT, 0);
        Self { counts: first.wrapping_sub(last).into(), ticks: end.wrapping_sub(start).max(1) }
    }

    /// The initial count with which the timer takes so many ticks; at least 1.
    pub fn count_for(&self, ticks: u64) -> u32 {
        let count = u128::from(self.counts) * u128::from(ticks) / u128::from(self.ticks);
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }
}
