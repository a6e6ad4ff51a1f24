// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC timer (Intel SDM vol. 3, 11.5.4; AMD APM vol. 2, 16.4.1).
//!
//! Nothing counts: counts are derived from the time-stamp counter when the guest asks, and
//! the one moment at which something will happen is kept for the owner to arm.

use host_iface::Tsc;
use serde::{Deserialize, Serialize};

use crate::scale;

/// Frequency of the bus clock that the timer counts before division.
pub const APIC_BUS_HZ: u64 = 1_000_000_000;

/// Shortest period of the periodic mode in nanoseconds. A guest that asks for less would
/// keep its vCPU outside the guest for good.
pub const MINIMUM_PERIOD_NS: u64 = 100_000;

/// Timer mode, bits 18:17 of the timer's LVT entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl TimerMode {
    /// The mode of an LVT entry. The reserved value counts as one-shot.
    pub(super) const fn of(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::OneShot,
        }
    }
}

/// Registers and derived state of the timer. All moments are host TSC values.
#[derive(Clone, Copy, Debug)]
pub(super) struct ApicTimer {
    tsc_hz: u64,
    /// What the guest's TSC is ahead of the host's, wrapping.
    tsc_offset: u64,
    divide: u32,
    initial: u32,
    /// IA32_TSC_DEADLINE as the guest wrote it; zero when disarmed.
    guest_deadline: u64,
    /// When the count reaches zero or the deadline comes.
    expiry: Option<Tsc>,
}

/// The timer as data, relative to the moment it was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimerState {
    /// Divide configuration register.
    pub divide: u32,
    /// Initial count register.
    pub initial: u32,
    /// IA32_TSC_DEADLINE.
    pub guest_deadline: u64,
    /// Nanoseconds until the count reaches zero, if it is counting.
    pub remaining_ns: Option<u64>,
}

impl ApicTimer {
    pub(super) fn new(tsc_hz: u64) -> Self {
        Self {
            tsc_hz: tsc_hz.max(1),
            tsc_offset: 0,
            divide: 0,
            initial: 0,
            guest_deadline: 0,
            expiry: None,
        }
    }

    /// Back to the state after reset; the TSC offset is not the timer's and stays.
    pub(super) fn reset(&mut self) {
        *self = Self { tsc_offset: self.tsc_offset, ..Self::new(self.tsc_hz) };
    }

    #[inline]
    pub(super) fn expiry(&self) -> Option<Tsc> {
        self.expiry
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn guest_deadline(&self) -> u64 {
        self.guest_deadline
    }

    /// Count left, rounded up so that it is zero only once the timer has expired.
    pub(super) fn current(&self, now: Tsc, mode: TimerMode) -> u32 {
        let Some(expiry) = self.expiry.filter(|_| mode != TimerMode::TscDeadline) else {
            return 0;
        };
        let ticks = expiry.0.saturating_sub(now.0);
        let counts = scale(ticks, APIC_BUS_HZ, self.tsc_hz).div_ceil(u64::from(self.divisor()));
        u32::try_from(counts).unwrap_or(u32::MAX).min(self.initial)
    }

    /// Starts counting down from `count`; zero stops. Ignored in TSC-deadline mode.
    pub(super) fn set_initial(&mut self, count: u32, now: Tsc, mode: TimerMode) {
        if mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = count;
        self.expiry = (count != 0).then(|| later(now, self.period(mode)));
    }

    /// Changes the divisor. A running count goes on from where it is at the new rate.
    pub(super) fn set_divide(&mut self, divide: u32, now: Tsc, mode: TimerMode) {
        let left = u64::from(self.current(now, mode));
        self.divide = divide & 0xB;
        if self.expiry.is_some() && mode != TimerMode::TscDeadline {
            self.expiry = Some(later(now, self.ticks_of(left)));
        }
    }

    /// Arms the deadline; zero disarms. Ignored in the other modes.
    pub(super) fn set_guest_deadline(&mut self, deadline: u64, now: Tsc, mode: TimerMode) {
        if mode == TimerMode::TscDeadline {
            self.guest_deadline = deadline;
            self.place_deadline(now);
        }
    }

    pub(super) fn set_tsc_offset(&mut self, offset: u64, now: Tsc) {
        self.tsc_offset = offset;
        if self.guest_deadline != 0 {
            self.place_deadline(now);
        }
    }

    /// A change to or from TSC-deadline mode disarms the timer. A change between the counting
    /// modes lets the count go on.
    pub(super) fn change_mode(&mut self, from: TimerMode, to: TimerMode) {
        if (from == TimerMode::TscDeadline) != (to == TimerMode::TscDeadline) {
            self.initial = 0;
            self.guest_deadline = 0;
            self.expiry = None;
        }
    }

    /// True if the timer expired by `now`. It is disarmed then, or set for the next multiple
    /// of its period; periods that passed unseen count as one.
    pub(super) fn expire(&mut self, now: Tsc, mode: TimerMode) -> bool {
        let Some(expiry) = self.expiry.filter(|&expiry| expiry <= now) else { return false };
        self.guest_deadline = 0;
        self.expiry = match mode {
            TimerMode::Periodic if self.initial != 0 => {
                let period = self.period(mode);
                let passed = (now.0 - expiry.0) / period + 1;
                Some(later(expiry, passed.saturating_mul(period)))
            }
            _ => None,
        };
        true
    }

    pub(super) fn save(&self, now: Tsc) -> TimerState {
        let Self { tsc_hz, tsc_offset: _, divide, initial, guest_deadline, expiry } = *self;
        let remaining = |at: Tsc| scale(at.0.saturating_sub(now.0), crate::NANOSECONDS, tsc_hz);
        let counting = expiry.filter(|_| guest_deadline == 0);
        TimerState { divide, initial, guest_deadline, remaining_ns: counting.map(remaining) }
    }

    pub(super) fn restore(&mut self, state: &TimerState, now: Tsc) {
        let TimerState { divide, initial, guest_deadline, remaining_ns } = *state;
        self.divide = divide & 0xB;
        self.initial = initial;
        self.guest_deadline = guest_deadline;
        self.expiry = remaining_ns.map(|ns| later(now, scale(ns, self.tsc_hz, crate::NANOSECONDS)));
        if guest_deadline != 0 {
            self.place_deadline(now);
        }
    }

    /// Finds the host TSC at which the guest TSC reaches the deadline.
    fn place_deadline(&mut self, now: Tsc) {
        let guest_now = now.0.wrapping_add(self.tsc_offset);
        let left = self.guest_deadline.saturating_sub(guest_now);
        self.expiry = (self.guest_deadline != 0).then(|| later(now, left));
    }

    /// Divisor of the bus clock: bits 3, 1 and 0 encode 2, 4, … 128, 1.
    fn divisor(&self) -> u32 {
        let code = self.divide & 3 | (self.divide & 8) >> 1;
        1 << ((code + 1) & 7)
    }

    fn ticks_of(&self, count: u64) -> u64 {
        scale(count * u64::from(self.divisor()), self.tsc_hz, APIC_BUS_HZ).max(1)
    }

    fn period(&self, mode: TimerMode) -> u64 {
        let ticks = self.ticks_of(u64::from(self.initial));
        match mode {
            TimerMode::Periodic => {
                ticks.max(scale(MINIMUM_PERIOD_NS, self.tsc_hz, crate::NANOSECONDS))
            }
            _ => ticks,
        }
    }
}

fn later(from: Tsc, ticks: u64) -> Tsc {
    Tsc(from.0.saturating_add(ticks))
}
