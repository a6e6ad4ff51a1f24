// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers and events of the clock.

use host_iface::WallClockTime;
use serde::{Deserialize, Serialize};
use vmm_core::{NANOSECONDS, VmInstant, scale};

use super::{
    civil::{CivilTime, DAY},
    cmos::Cmos,
    format::Format,
};

/// Time and date registers.
const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const CENTURY: u8 = 0x32;

/// Control and status registers.
const A: u8 = 0x0A;
const B: u8 = 0x0B;
const C: u8 = 0x0C;
const D: u8 = 0x0D;

/// Register A: update in progress.
const UIP: u8 = 0x80;
/// Register A: with these two bits of the divider field set, the divider is held in reset.
const DIVIDER_RESET: u8 = 0x60;
/// Register A: divider for the 32,768 Hz crystal, periodic rate of 1024 Hz.
const A_DEFAULT: u8 = 0x26;

/// Register B.
const SET: u8 = 0x80;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE_ENDED: u8 = 0x10;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;

/// Register C: the interrupt request; its other flags lie where register B enables them.
const IRQF: u8 = 0x80;
const SOURCES: u8 = PERIODIC | ALARM | UPDATE_ENDED;

/// Register D: the battery is good.
const VALID: u8 = 0x80;

/// Frequency of the crystal.
const CRYSTAL_HZ: u64 = 32_768;
/// The update-in-progress bit precedes the update by 244 µs.
const UIP_LEAD: u64 = 244_000;
/// The first update follows half a second after the divider's release.
const FIRST_UPDATE: u64 = NANOSECONDS / 2;

/// The last second that fits the registers, 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

/// State of the clock and its memory. Times are in nanoseconds of the VM's clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RtcState {
    index: u8,
    nmi_masked: bool,
    /// The memory. The time registers in it count only while the calendar is stopped.
    cmos: Cmos,
    a: u8,
    b: u8,
    /// The flags of register C, without IRQF.
    flags: u8,
    /// Seconds since 1970 that the calendar showed, or would have shown, when second number
    /// zero of the divider began.
    base: i64,
    /// How far the divider was within a second when the VM's clock read zero.
    phase: u64,
    /// Up to when events are in `flags`.
    examined: u64,
}

impl RtcState {
    pub(super) fn new(now: VmInstant, time: WallClockTime, cmos: Cmos) -> Self {
        let into_second = u64::from(time.nanoseconds) % NANOSECONDS;
        let mut state = Self {
            index: 0,
            nmi_masked: false,
            cmos,
            a: A_DEFAULT,
            b: HOURS_24,
            flags: 0,
            base: 0,
            phase: 0,
            examined: now.0,
        };
        state.restart_second(into_second);
        state.set_time(i64::try_from(time.unix_seconds).unwrap_or(i64::MAX));
        state
    }

    /// Cuts a state that came from outside to what the clock can be in at `now`.
    pub(super) fn within_limits(self, now: VmInstant) -> Self {
        Self {
            index: self.index & 0x7F,
            a: self.a & !UIP,
            flags: self.flags & SOURCES,
            base: self.base.clamp(-LAST_SECOND, LAST_SECOND),
            phase: self.phase % NANOSECONDS,
            examined: self.examined.min(now.0),
            ..self
        }
    }

    pub(super) fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    fn format(&self) -> Format {
        Format { binary: self.b & BINARY != 0, hours_24: self.b & HOURS_24 != 0 }
    }

    fn divider_runs(&self) -> bool {
        self.a & DIVIDER_RESET != DIVIDER_RESET
    }

    fn calendar_runs(&self) -> bool {
        self.divider_runs() && self.b & SET == 0
    }

    /// Nanoseconds that the divider counts at `at`.
    fn divider(&self, at: u64) -> u64 {
        at.saturating_add(self.phase)
    }

    /// The moment at which the divider counts `nanoseconds`.
    fn when_divider(&self, nanoseconds: u64) -> VmInstant {
        VmInstant(nanoseconds.saturating_sub(self.phase))
    }

    /// Makes the present moment lie `nanoseconds` into a second.
    fn restart_second(&mut self, nanoseconds: u64) {
        let wanted = nanoseconds % NANOSECONDS + NANOSECONDS;
        self.phase = (wanted - self.examined % NANOSECONDS) % NANOSECONDS;
    }

    /// Number of the second that the divider is in.
    fn second(&self, at: u64) -> u64 {
        self.divider(at) / NANOSECONDS
    }

    fn time(&self) -> i64 {
        // A u64 of nanoseconds holds fewer than 2^35 seconds.
        self.base.saturating_add(self.second(self.examined) as i64)
    }

    fn set_time(&mut self, unix: i64) {
        let unix = unix.min(LAST_SECOND);
        self.base = unix.saturating_sub(self.second(self.examined) as i64);
    }

    /// Notes the events up to `now`.
    pub(super) fn advance(&mut self, now: VmInstant) {
        let (from, to) = (self.examined, now.0.max(self.examined));
        if self.period().is_some_and(|p| self.cycle(from, p) != self.cycle(to, p)) {
            self.flags |= PERIODIC;
        }
        let seconds = self.second(to) - self.second(from);
        if self.calendar_runs() && seconds > 0 {
            self.flags |= UPDATE_ENDED;
            if self.seconds_to_alarm().is_some_and(|wait| wait <= seconds) {
                self.flags |= ALARM;
            }
        }
        self.examined = to;
    }

    /// Period of the periodic interrupt in crystal cycles.
    fn period(&self) -> Option<u64> {
        match self.a & 0xF {
            _ if !self.divider_runs() => None,
            0 => None,
            // The two shortest codes mean what 8 and 9 mean.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Number of the period that the divider is in.
    fn cycle(&self, at: u64, period: u64) -> u64 {
        scale(self.divider(at), CRYSTAL_HZ, NANOSECONDS) / period
    }

    /// Seconds from the present one to the next that matches the alarm: 1 to 86400. `None`
    /// if no time of day does.
    fn seconds_to_alarm(&self) -> Option<u64> {
        let format = self.format();
        let hours = format.alarm_hour(self.cmos.get(HOURS_ALARM));
        let minutes = format.alarm(self.cmos.get(MINUTES_ALARM));
        let seconds = format.alarm(self.cmos.get(SECONDS_ALARM));
        let first = self.time().saturating_add(1).rem_euclid(DAY);
        let (hour, minute, second) = (first / 3600, first / 60 % 60, first % 60);
        // Later hours begin with minute 0, later minutes with second 0.
        for h in (hour..=hour + 24).filter(|&h| hours.matches((h % 24) as u8)) {
            let minute = if h == hour { minute } else { 0 };
            for m in (minute..60).filter(|&m| minutes.matches(m as u8)) {
                let begun = h == hour && m == first / 60 % 60;
                let second = if begun { second } else { 0 };
                if let Some(s) = (second..60).find(|&s| seconds.matches(s as u8)) {
                    return u64::try_from(h * 3600 + m * 60 + s - first + 1).ok();
                }
            }
        }
        None
    }

    /// The interrupt output.
    pub(super) fn interrupts(&self) -> bool {
        self.flags & self.b & SOURCES != 0
    }

    /// When the next enabled event comes that has not occurred yet.
    pub(super) fn next_event(&self) -> Option<VmInstant> {
        let awaited = self.b & !self.flags;
        let in_seconds = |seconds: u64| {
            let second = self.second(self.examined).saturating_add(seconds);
            self.when_divider(second.saturating_mul(NANOSECONDS))
        };
        let runs = self.calendar_runs();
        let update = (runs && awaited & UPDATE_ENDED != 0).then(|| in_seconds(1));
        let alarm = if runs && awaited & ALARM != 0 { self.seconds_to_alarm() } else { None };
        let periodic = if awaited & PERIODIC != 0 { self.period() } else { None };
        let periodic = periodic.map(|period| {
            let cycles = (self.cycle(self.examined, period) + 1).saturating_mul(period);
            let early = scale(cycles, NANOSECONDS, CRYSTAL_HZ);
            let complete = scale(early, CRYSTAL_HZ, NANOSECONDS) >= cycles;
            self.when_divider(if complete { early } else { early.saturating_add(1) })
        });
        [update, alarm.map(in_seconds), periodic].into_iter().flatten().min()
    }

    /// Writes the index port.
    pub(super) fn select(&mut self, value: u8) {
        self.index = value & 0x7F;
        self.nmi_masked = value & 0x80 != 0;
    }

    /// Reads the selected register as of the last [`advance`](Self::advance).
    pub(super) fn read(&mut self) -> u8 {
        match self.index {
            A => self.a | if self.update_is_near() { UIP } else { 0 },
            B => self.b,
            C => {
                let request = if self.interrupts() { IRQF } else { 0 };
                core::mem::take(&mut self.flags) | request
            }
            D => VALID,
            index if is_time(index) && self.calendar_runs() => self.time_register(index),
            index => self.cmos.get(index),
        }
    }

    fn update_is_near(&self) -> bool {
        let left = NANOSECONDS - self.divider(self.examined) % NANOSECONDS;
        self.calendar_runs() && left <= UIP_LEAD
    }

    fn time_register(&self, index: u8) -> u8 {
        let time = CivilTime::from_unix(self.time());
        let format = self.format();
        match index {
            SECONDS => format.encode(time.second),
            MINUTES => format.encode(time.minute),
            HOURS => format.encode_hour(time.hour),
            WEEKDAY => format.encode(time.weekday()),
            DAY_OF_MONTH => format.encode(time.day),
            MONTH => format.encode(time.month),
            YEAR => format.encode(time.year.rem_euclid(100) as u8),
            _ => format.encode(time.year.div_euclid(100).rem_euclid(100) as u8),
        }
    }

    /// Writes the selected register as of the last [`advance`](Self::advance).
    pub(super) fn write(&mut self, value: u8) {
        match self.index {
            A => self.control(value & !UIP, self.b),
            B => self.control(self.a, value),
            C | D => {}
            index if is_time(index) && self.calendar_runs() => {
                self.store_time();
                self.cmos.set(index, value);
                self.load_time();
            }
            index => self.cmos.set(index, value),
        }
    }

    /// Changes the control registers. A calendar that stops leaves its time in the
    /// registers, and takes the time from them when it starts. Setting the time disables the
    /// update-ended interrupt.
    fn control(&mut self, a: u8, b: u8) {
        let (ran, divided) = (self.calendar_runs(), self.divider_runs());
        if ran {
            self.store_time();
        }
        self.a = a;
        self.b = if b & SET != 0 { b & !UPDATE_ENDED } else { b };
        if self.divider_runs() && !divided {
            self.restart_second(FIRST_UPDATE);
        }
        if self.calendar_runs() && !ran {
            self.load_time();
        }
    }

    fn store_time(&mut self) {
        for index in TIME_REGISTERS {
            self.cmos.set(index, self.time_register(index));
        }
    }

    fn load_time(&mut self) {
        let format = self.format();
        let number = |index| format.decode(self.cmos.get(index));
        let time = CivilTime {
            year: i64::from(number(CENTURY)) * 100 + i64::from(number(YEAR)),
            month: number(MONTH),
            day: number(DAY_OF_MONTH),
            hour: format.decode_hour(self.cmos.get(HOURS)),
            minute: number(MINUTES),
            second: number(SECONDS),
        };
        self.set_time(time.to_unix());
    }
}

const TIME_REGISTERS: [u8; 8] =
    [SECONDS, MINUTES, HOURS, WEEKDAY, DAY_OF_MONTH, MONTH, YEAR, CENTURY];

fn is_time(index: u8) -> bool {
    TIME_REGISTERS.contains(&index)
}
