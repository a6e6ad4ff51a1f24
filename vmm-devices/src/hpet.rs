// SPDX-License-Identifier: MIT OR Apache-2.0
//! The high precision event timers.

mod comparator;
mod legacy;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{
    AccessWidth, GuestPhysAddr, IrqLine, MmioDevice, Timer, TimerClient, VmClock, VmInstant,
};

use crate::{deadline::Deadline, output_line::OutputLine};
use comparator::Comparator;
pub use legacy::LegacyReplacement;

/// Nanoseconds of a tick of the main counter.
const TICK_NS: u64 = 10;
/// Femtoseconds of a tick, as the capabilities register gives it; at most 100 ns are allowed.
const TICK_FS: u64 = TICK_NS * 1_000_000;

/// Shortest time between two interrupts of a comparator in nanoseconds. A guest that asks for
/// less would keep its first vCPU busy with interrupts and nothing else; matches in between
/// count as one.
const MINIMUM_PERIOD_NS: u64 = 100_000;

/// Number of comparators.
const TIMERS: usize = 3;
/// The comparators that legacy replacement routes to IRQ 0 and IRQ 8.
const LEGACY_TIMERS: usize = 2;
/// Number of I/O APIC inputs that comparators can be routed to.
const ROUTES: usize = 4;

/// Registers (IA-PC HPET specification 1.0a, 2.3).
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x10;
const INTERRUPT_STATUS: u64 = 0x20;
const MAIN_COUNTER: u64 = 0xF0;
const FIRST_TIMER: u64 = 0x100;
const TIMER_BYTES: u64 = 0x20;
const TIMER_CONFIGURATION: u64 = 0x00;
const TIMER_COMPARATOR: u64 = 0x08;

/// General configuration register.
const ENABLE: u64 = 1 << 0;
const LEGACY: u64 = 1 << 1;

/// All of an HPET's state. Times are in ticks of 10 ns of the VM's clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HpetState {
    /// The main counter runs and comparators interrupt.
    enabled: bool,
    /// Comparators 0 and 1 take the place of the 8254 and the RTC.
    legacy: bool,
    /// What the main counter read at tick `since`.
    counter: u64,
    /// When `counter` was true; it has run from there if it is enabled.
    since: u64,
    /// A bit for each comparator: a level-triggered interrupt that was not acknowledged.
    status: u8,
    timers: [Comparator; TIMERS],
}

/// The timer block of the IA-PC HPET specification 1.0a: a 64-bit main counter of exactly
/// 100 MHz and three comparators of 64 bits, all of which can be periodic.
///
/// Nothing counts: the main counter is computed from the VM's clock when it is read. The timer
/// is armed only while a comparator with its interrupt enabled has a match ahead of it. Matches
/// are exact multiples of the period, so nothing drifts; those that pass while the guest does
/// not run count as one.
///
/// Comparators reach the I/O APIC inputs from [`Hpet::FIRST_INPUT`] on, which they share with
/// no other device, or with legacy replacement IRQ 0 and IRQ 8. There are no messages (FSB
/// interrupts).
///
/// Locks are taken in the order HPET, legacy replacement, interrupt controllers.
pub struct Hpet {
    clock: VmClock,
    inner: Mutex<Inner>,
}

struct Inner {
    state: HpetState,
    replacement: Arc<LegacyReplacement>,
    legacy: [OutputLine; LEGACY_TIMERS],
    routed: [OutputLine; ROUTES],
    deadline: Deadline,
}

impl Hpet {
    /// Where a PC has it.
    pub const BASE: GuestPhysAddr = GuestPhysAddr::new(0xFED0_0000);
    /// Length of its range in bytes.
    pub const BYTES: u64 = 0x400;
    /// First of the I/O APIC inputs that comparators can be routed to.
    pub const FIRST_INPUT: u32 = 20;
    /// Their number.
    pub const INPUTS: u32 = ROUTES as u32;
    /// The low half of the capabilities register, which the ACPI table repeats: Intel's vendor
    /// ID, legacy replacement, a 64-bit counter, three comparators, revision 1.
    pub const BLOCK_ID: u32 = 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u32 - 1) << 8 | 1;
    /// Fewest ticks of a period with which no interrupt is lost.
    pub const MINIMUM_TICKS: u16 = (MINIMUM_PERIOD_NS / TICK_NS) as u16;

    /// A timer block that is called by `timer`. `inputs` lead to the I/O APIC inputs from
    /// [`Hpet::FIRST_INPUT`] on; `replacement` is asked to switch IRQ 0 and IRQ 8 over.
    pub fn new(
        clock: VmClock,
        timer: Timer,
        replacement: Arc<LegacyReplacement>,
        inputs: [IrqLine; ROUTES],
    ) -> Arc<Self> {
        let inner = Inner {
            state: HpetState {
                enabled: false,
                legacy: false,
                counter: 0,
                since: 0,
                status: 0,
                timers: [Comparator::RESET; TIMERS],
            },
            legacy: replacement.hpet_lines().map(OutputLine::new),
            replacement,
            routed: inputs.map(OutputLine::new),
            deadline: Deadline::new(timer.clone()),
        };
        let hpet = Arc::new(Self { clock, inner: Mutex::new(inner) });
        timer.connect(hpet.clone());
        hpet
    }

    /// Takes the state out.
    pub fn save(&self) -> HpetState {
        self.inner.lock().state.clone()
    }

    /// Puts a state back that was taken by the same VM clock, and arms the timer.
    pub fn restore(&self, state: HpetState) {
        let mut inner = self.inner.lock();
        inner.replacement.switch(state.legacy);
        inner.state = state;
        inner.drive_levels();
        inner.arm(0, 0);
    }

    /// Brings the state up to now, applies `access`, and does what follows from it.
    fn access<R>(&self, access: impl FnOnce(&mut HpetState, u64) -> R) -> R {
        let tick = tick_at(self.clock.now());
        let mut inner = self.inner.lock();
        inner.advance(tick);
        let was_legacy = inner.state.legacy;
        let result = access(&mut inner.state, tick);
        if inner.state.legacy != was_legacy {
            inner.replacement.switch(inner.state.legacy);
        }
        // What was written may match at this very tick.
        inner.advance(tick);
        inner.arm(0, 0);
        result
    }
}

fn tick_at(moment: VmInstant) -> u64 {
    moment.0 / TICK_NS
}

impl Inner {
    /// Makes the matches up to `tick` and drives the lines; the result has a bit for each
    /// comparator that matched.
    fn advance(&mut self, tick: u64) -> u8 {
        let matched = self.state.advance(tick);
        self.drive_levels();
        for index in (0..TIMERS).filter(|index| matched >> index & 1 != 0) {
            let edge = self.state.timers.get(index).is_some_and(|t| t.interrupts_by_edge());
            if let Some(line) = self.line_of(index).filter(|line| edge && !line.is_asserted()) {
                line.pulse();
            }
        }
        matched
    }

    /// Drives each line as the level-triggered comparators that lead to it want.
    fn drive_levels(&mut self) {
        let state = &self.state;
        let wanted = |route: Route| {
            (0..TIMERS).any(|index| state.asserts(index) && state.route(index) == Some(route))
        };
        for (number, line) in self.legacy.iter_mut().enumerate() {
            line.set(wanted(Route::Legacy(number)));
        }
        for (number, line) in self.routed.iter_mut().enumerate() {
            line.set(wanted(Route::Input(number)));
        }
    }

    fn line_of(&mut self, index: usize) -> Option<&mut OutputLine> {
        match self.state.route(index)? {
            Route::Legacy(number) => self.legacy.get_mut(number),
            Route::Input(number) => self.routed.get_mut(number),
        }
    }

    /// Arms the timer for the next interrupt. The periodic ones among the comparators in
    /// `matched`, a bit each, have to wait for tick `earliest`.
    fn arm(&mut self, matched: u8, earliest: u64) {
        let due = self.state.next_interrupt(matched, earliest);
        self.deadline.set(due.and_then(|tick| tick.checked_mul(TICK_NS)).map(VmInstant));
    }
}

/// Where a comparator's interrupts go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    /// In the place of the 8254 or the RTC.
    Legacy(usize),
    /// To this one of the I/O APIC inputs, counted from [`Hpet::FIRST_INPUT`].
    Input(usize),
}

impl HpetState {
    /// The main counter at `tick`.
    fn counter_at(&self, tick: u64) -> u64 {
        let passed = if self.enabled { tick.saturating_sub(self.since) } else { 0 };
        self.counter.wrapping_add(passed)
    }

    /// Makes the matches up to `tick`; the result has a bit for each comparator that matched.
    fn advance(&mut self, tick: u64) -> u8 {
        let mut matched = 0;
        for (index, timer) in self.timers.iter_mut().enumerate() {
            if timer.advance(tick) {
                matched |= 1 << index;
                if timer.is_level() {
                    self.status |= 1 << index;
                }
            }
        }
        matched
    }

    /// Sets the counter to `counter` at `tick`, running or not, and lets the comparators look
    /// for their next match.
    fn set_counter(&mut self, counter: u64, enabled: bool, tick: u64) {
        (self.counter, self.since, self.enabled) = (counter, tick, enabled);
        self.timers.iter_mut().for_each(|t| t.start(enabled.then_some((tick, counter))));
    }

    fn asserts(&self, index: usize) -> bool {
        let interrupts = self.timers.get(index).is_some_and(|t| t.interrupts_by_level());
        self.enabled && interrupts && self.status >> index & 1 != 0
    }

    fn route(&self, index: usize) -> Option<Route> {
        if self.legacy && index < LEGACY_TIMERS {
            return Some(Route::Legacy(index));
        }
        let input = self.timers.get(index)?.route().checked_sub(Hpet::FIRST_INPUT)?;
        Some(Route::Input(input as usize))
    }

    /// The tick of the next match that has to interrupt the guest. A level-triggered interrupt
    /// that waits for its acknowledgement says nothing new. The periodic ones among the
    /// comparators in `matched` count from tick `earliest`.
    fn next_interrupt(&self, matched: u8, earliest: u64) -> Option<u64> {
        let silent = |index: usize, t: &Comparator| t.is_level() && self.status >> index & 1 != 0;
        let awaited = self.timers.iter().enumerate().filter(|&(index, t)| {
            t.interrupts() && self.route(index).is_some() && !silent(index, t)
        });
        let due = awaited.filter_map(|(index, t)| {
            let spaced = t.is_periodic() && matched >> index & 1 != 0;
            t.due().map(|due| if spaced { due.max(earliest) } else { due })
        });
        due.min()
    }

    /// The 64-bit register at `offset`; what is not defined reads as zero.
    fn read(&self, offset: u64, tick: u64) -> u64 {
        match offset {
            CAPABILITIES => TICK_FS << 32 | u64::from(Hpet::BLOCK_ID),
            CONFIGURATION => {
                let bit = |set, bit| if set { bit } else { 0 };
                bit(self.enabled, ENABLE) | bit(self.legacy, LEGACY)
            }
            INTERRUPT_STATUS => u64::from(self.status),
            MAIN_COUNTER => self.counter_at(tick),
            _ => {
                let Some((index, register)) = timer_register(offset) else { return 0 };
                let timer = self.timers.get(index);
                timer.map_or(0, |t| match register {
                    TIMER_CONFIGURATION => t.configuration(),
                    TIMER_COMPARATOR => t.comparator(),
                    _ => 0,
                })
            }
        }
    }

    /// Writes the bits of the register at `offset` that `mask` selects.
    fn write(&mut self, offset: u64, value: u64, mask: u64, tick: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        match offset {
            CONFIGURATION => {
                let new = merge(self.read(CONFIGURATION, tick));
                self.legacy = new & LEGACY != 0;
                if (new & ENABLE != 0) != self.enabled {
                    self.set_counter(self.counter_at(tick), new & ENABLE != 0, tick);
                }
            }
            INTERRUPT_STATUS => self.status &= !((value & mask) as u8),
            MAIN_COUNTER => {
                self.set_counter(merge(self.counter_at(tick)), self.enabled, tick);
            }
            _ => self.write_timer(offset, value, mask, tick),
        }
    }

    fn write_timer(&mut self, offset: u64, value: u64, mask: u64, tick: u64) {
        let running = self.enabled.then_some((tick, self.counter_at(tick)));
        let Some((index, register)) = timer_register(offset) else { return };
        let Some(timer) = self.timers.get_mut(index) else { return };
        let moved = match register {
            TIMER_CONFIGURATION => timer.configure(value, mask),
            TIMER_COMPARATOR => {
                timer.compare_with(value, mask);
                true
            }
            _ => false,
        };
        if moved {
            timer.start(running);
        }
        if !timer.is_level() {
            self.status &= !(1 << index);
        }
    }
}

/// The comparator that the register at `offset` belongs to, and its offset within.
fn timer_register(offset: u64) -> Option<(usize, u64)> {
    let within = offset.checked_sub(FIRST_TIMER)?;
    Some(((within / TIMER_BYTES) as usize, within % TIMER_BYTES))
}

/// Registers have 64 bits and are reached whole or in halves, aligned. Narrower aligned reads
/// give that part of the register; all other accesses are dropped.
impl MmioDevice for Hpet {
    fn name(&self) -> &str {
        "hpet"
    }

    fn read_mmio(&self, offset: u64, width: AccessWidth) -> Option<u64> {
        if !offset.is_multiple_of(width.bytes() as u64) {
            return None;
        }
        let value = self.access(|state, tick| state.read(offset & !7, tick));
        Some(value >> (8 * (offset & 7)) & width.all_ones())
    }

    fn write_mmio(&self, offset: u64, width: AccessWidth, value: u64) -> bool {
        if width < AccessWidth::Dword || !offset.is_multiple_of(width.bytes() as u64) {
            return false;
        }
        let shift = 8 * (offset & 7);
        let mask = width.all_ones() << shift;
        self.access(|state, tick| state.write(offset & !7, value << shift, mask, tick));
        true
    }
}

impl TimerClient for Hpet {
    fn timer_expired(&self, now: VmInstant) {
        let mut inner = self.inner.lock();
        inner.deadline.expired(now);
        let tick = tick_at(now);
        let matched = inner.advance(tick);
        inner.arm(matched, tick.saturating_add(u64::from(Self::MINIMUM_TICKS)));
    }
}
