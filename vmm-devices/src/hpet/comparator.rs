// SPDX-License-Identifier: MIT OR Apache-2.0
//! One comparator (IA-PC HPET specification 1.0a, 2.3.8 to 2.3.10).

use serde::{Deserialize, Serialize};

use super::Hpet;

/// Configuration and capabilities register.
const LEVEL: u32 = 1 << 1;
const INTERRUPT_ENABLE: u32 = 1 << 2;
const PERIODIC: u32 = 1 << 3;
const CAN_BE_PERIODIC: u32 = 1 << 4;
const HAS_64_BITS: u32 = 1 << 5;
const SET_VALUE: u32 = 1 << 6;
const ROUTE_SHIFT: u32 = 9;
const ROUTE: u32 = 0x1F << ROUTE_SHIFT;
const MODE_32_BITS: u32 = 1 << 8;
const WRITABLE: u32 = LEVEL | INTERRUPT_ENABLE | PERIODIC | SET_VALUE | ROUTE | MODE_32_BITS;

/// The I/O APIC inputs that a comparator can be routed to, a bit each.
const ROUTES: u32 = ((1 << Hpet::INPUTS) - 1) << Hpet::FIRST_INPUT;

/// Registers of a comparator and its next match.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Comparator {
    /// The writable bits of the configuration register.
    config: u32,
    /// What the main counter is compared with.
    comparator: u64,
    /// What was last written to the comparator: its increment in periodic mode.
    period: u64,
    /// The tick of the next match, while the main counter runs; `None` if time ends before.
    due: Option<u64>,
}

impl Comparator {
    /// After reset: silent, the comparator out of reach.
    pub(super) const RESET: Self = Self { config: 0, comparator: u64::MAX, period: 0, due: None };

    pub(super) fn is_level(&self) -> bool {
        self.config & LEVEL != 0
    }

    pub(super) fn interrupts(&self) -> bool {
        self.config & INTERRUPT_ENABLE != 0
    }

    pub(super) fn interrupts_by_edge(&self) -> bool {
        self.interrupts() && !self.is_level()
    }

    pub(super) fn interrupts_by_level(&self) -> bool {
        self.interrupts() && self.is_level()
    }

    /// The I/O APIC input that was chosen; zero, which leads nowhere, if none was.
    pub(super) fn route(&self) -> u32 {
        (self.config & ROUTE) >> ROUTE_SHIFT
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// The configuration and capabilities register.
    pub(super) fn configuration(&self) -> u64 {
        u64::from(ROUTES) << 32 | u64::from(self.config | CAN_BE_PERIODIC | HAS_64_BITS)
    }

    /// The comparator register.
    pub(super) fn comparator(&self) -> u64 {
        self.comparator
    }

    /// The bits of counter and comparator that are compared.
    fn width(&self) -> u64 {
        if self.config & MODE_32_BITS != 0 { u64::from(u32::MAX) } else { u64::MAX }
    }

    pub(super) fn is_periodic(&self) -> bool {
        self.config & PERIODIC != 0
    }

    /// Writes the bits of the configuration register that `mask` selects. A route that does
    /// not exist is not taken, which is how software finds out. True if the width changed and
    /// with it the next match.
    pub(super) fn configure(&mut self, value: u64, mask: u64) -> bool {
        let old_width = self.width();
        let (value, mask) = (value as u32, mask as u32 & WRITABLE);
        let mut new = self.config & !mask | value & mask;
        if ROUTES >> ((new & ROUTE) >> ROUTE_SHIFT) & 1 == 0 {
            new = new & !ROUTE | self.config & ROUTE;
        }
        self.config = new;
        self.comparator &= self.width();
        self.period &= self.width();
        self.width() != old_width
    }

    /// Writes the bits of the comparator register that `mask` selects. In periodic mode that is the
    /// period, and the comparator itself only after software has asked for it.
    pub(super) fn compare_with(&mut self, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        self.period = merge(self.period) & self.width();
        if !self.is_periodic() || self.config & SET_VALUE != 0 {
            self.comparator = merge(self.comparator) & self.width();
        }
        self.config &= !SET_VALUE;
    }

    /// Looks for the next match: `running` is the present tick and what the main counter reads
    /// then; `None` while it stands still. A comparator that equals the counter matches now,
    /// one that the counter has passed only when the counter comes round.
    pub(super) fn start(&mut self, running: Option<(u64, u64)>) {
        self.due = running.and_then(|(tick, counter)| {
            tick.checked_add(self.comparator.wrapping_sub(counter) & self.width())
        });
    }

    /// Makes the matches up to `tick`; true if there were any.
    pub(super) fn advance(&mut self, tick: u64) -> bool {
        let Some(due) = self.due.filter(|&due| due <= tick) else { return false };
        if self.is_periodic() && self.period != 0 {
            let passed = ((tick - due) / self.period).saturating_add(1);
            let increment = passed.wrapping_mul(self.period);
            self.comparator = self.comparator.wrapping_add(increment) & self.width();
            self.due = due.checked_add(passed.saturating_mul(self.period));
        } else {
            // The counter comes round to the same value, within reach if it has 32 bits.
            let round = self.width().checked_add(1);
            self.due = round
                .and_then(|round| due.checked_add(((tick - due) / round + 1).checked_mul(round)?));
        }
        true
    }
}
