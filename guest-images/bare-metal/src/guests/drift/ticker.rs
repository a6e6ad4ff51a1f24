// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks that interrupt: channel 0 of the 8254, and the updates of the RTC.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Elapsed, Rate};
use crate::rt::cpu::{in8, out8};
use crate::rt::trap::{self, Frame};
use crate::rt::{apic, cpu, pit};

/// Inputs of the IOAPIC, the first by the interrupt source override.
const PIT_INPUT: u32 = 2;
const RTC_INPUT: u32 = 8;
const PIT_VECTOR: u64 = 0x42;
const RTC_VECTOR: u64 = 0x43;

/// The longest count, 65,536, is written as 0.
const PIT_COUNT: u16 = 0;
/// The 8254's clock is 14.31818 MHz / 12, which is 105/88 MHz.
const PIT_PERIOD: Rate = Rate { ticks: 105_000_000, seconds: 88 * 65_536 };

const STATUS_B: u8 = 0x0B;
const STATUS_C: u8 = 0x0C;
const UPDATE_INTERRUPT: u8 = 0x10;

/// A clock that interrupts: how often it did, and when for the first and the last time.
pub struct Ticker {
    name: &'static str,
    rate: Rate,
    count: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

static PIT: Ticker = Ticker::new("pit", PIT_PERIOD);
static RTC: Ticker = Ticker::new("rtc", Rate::hertz(1));

/// All of them.
pub fn all() -> [&'static Ticker; 2] {
    [&PIT, &RTC]
}

/// Lets them interrupt.
pub fn start() {
    trap::handle(PIT_VECTOR, Some(pit_ticked));
    trap::handle(RTC_VECTOR, Some(rtc_ticked));
    apic::route(PIT_INPUT, PIT_VECTOR as u32);
    apic::route(RTC_INPUT, RTC_VECTOR as u32);
    rtc_read(STATUS_C);
    rtc_write(STATUS_B, rtc_read(STATUS_B) | UPDATE_INTERRUPT);
    pit::start_channel0(2, PIT_COUNT);
}

/// Stops them.
pub fn stop() {
    apic::route(PIT_INPUT, apic::MASKED);
    apic::route(RTC_INPUT, apic::MASKED);
    pit::stop_channel0();
    rtc_write(STATUS_B, rtc_read(STATUS_B) & !UPDATE_INTERRUPT);
}

fn pit_ticked(_: &mut Frame) {
    PIT.note();
    apic::end_of_interrupt();
}

/// Reading status C takes the interrupt back.
fn rtc_ticked(_: &mut Frame) {
    RTC.note();
    rtc_read(STATUS_C);
    apic::end_of_interrupt();
}

fn rtc_read(register: u8) -> u8 {
    out8(0x70, register);
    in8(0x71)
}

fn rtc_write(register: u8, value: u8) {
    out8(0x70, register);
    out8(0x71, value);
}

impl Ticker {
    const fn new(name: &'static str, rate: Rate) -> Self {
        Self {
            name,
            rate,
            count: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn note(&self) {
        let now = cpu::tsc();
        if self.count.fetch_add(1, Ordering::SeqCst) == 0 {
            self.first.store(now, Ordering::SeqCst);
        }
        self.last.store(now, Ordering::SeqCst);
    }

    /// What passed from the first interrupt to the last; `None` with fewer than two.
    pub fn elapsed(&self) -> Option<Elapsed> {
        let periods = self.count.load(Ordering::SeqCst).checked_sub(1).filter(|&n| n > 0)?;
        let first = self.first.load(Ordering::SeqCst);
        let tsc = self.last.load(Ordering::SeqCst).wrapping_sub(first);
        Some(Elapsed { nanoseconds: self.rate.nanoseconds(periods), tsc })
    }
}
