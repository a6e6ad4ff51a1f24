// SPDX-License-Identifier: MIT OR Apache-2.0
//! One counter of the 8254.

use serde::{Deserialize, Serialize};

/// Whether the counting element counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Counting {
    /// It waits for a count or for a trigger.
    Stopped,
    /// It holds its initial count at tick `since`.
    Running { since: u64 },
    /// The gate stopped it `elapsed` ticks after its initial count.
    Paused { elapsed: u64 },
}

/// Which bytes of the count a port access moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Bytes {
    Low,
    High,
    LowThenHigh,
}

/// One counter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Channel {
    /// 0 to 5.
    mode: u8,
    bytes: Bytes,
    bcd: bool,
    gate: bool,
    counting: Counting,
    /// Initial count of the counting element, 1 to 65536.
    count: u32,
    /// Count register: the initial count of the next period.
    reload: u32,
    /// A count has been written since the control word.
    loaded: bool,
    /// `reload` has not reached the counting element.
    null_count: bool,
    /// Tick at which `reload` will be taken over.
    reload_at: Option<u64>,
    /// The first byte of a count whose second is outstanding.
    low_byte: Option<u8>,
    /// The next read yields the high byte.
    reads_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    /// A counter that has not been programmed: it does nothing.
    pub fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            bytes: Bytes::LowThenHigh,
            bcd: false,
            gate,
            counting: Counting::Stopped,
            count: 0x1_0000,
            reload: 0x1_0000,
            loaded: false,
            null_count: true,
            reload_at: None,
            low_byte: None,
            reads_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// Number of states of the counting element.
    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    fn initial(&self) -> u64 {
        u64::from(self.count.max(1))
    }

    /// Period of modes 2 and 3, for which a count of 1 is illegal.
    fn period(&self) -> u64 {
        self.initial().max(2)
    }

    fn elapsed(&self, tick: u64) -> Option<u64> {
        match self.counting {
            Counting::Stopped => None,
            Counting::Running { since } => Some(tick.saturating_sub(since)),
            Counting::Paused { elapsed } => Some(elapsed),
        }
    }

    fn start(&mut self, tick: u64) {
        self.count = self.reload;
        self.null_count = false;
        self.reload_at = None;
        self.counting = Counting::Running { since: tick };
    }

    /// Takes over a count that was waiting for the end of a period.
    pub fn advance(&mut self, tick: u64) {
        if let Some(at) = self.reload_at.filter(|&at| at <= tick) {
            self.start(at);
        }
    }

    /// A control word other than a latch command.
    pub fn program(&mut self, control: u8) {
        let bytes = match control >> 4 & 3 {
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::LowThenHigh,
        };
        let mode = match control >> 1 & 7 {
            mode @ 0..=5 => mode,
            mode => mode - 4,
        };
        *self = Self {
            mode,
            bytes,
            bcd: control & 1 != 0,
            count: self.count,
            reload: self.reload,
            ..Self::new(self.gate)
        };
    }

    /// Writes a byte of the count; true if that changed what the counter does.
    pub fn write(&mut self, tick: u64, value: u8) -> bool {
        let raw = match (self.bytes, self.low_byte.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::LowThenHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Bytes::LowThenHigh, None) => {
                self.low_byte = Some(value);
                // In mode 0 the first byte stops the counting.
                if self.mode == 0 {
                    self.counting = Counting::Stopped;
                }
                return self.mode == 0;
            }
        };
        self.load(tick, raw);
        true
    }

    fn load(&mut self, tick: u64, raw: u16) {
        let count = if self.bcd { from_bcd(raw) } else { u32::from(raw) };
        self.reload = if count == 0 { self.modulus() } else { count };
        self.loaded = true;
        self.null_count = true;
        match (self.mode, self.counting) {
            // The next trigger takes the count.
            (1 | 5, _) => {}
            // The end of the period takes the count.
            (2 | 3, Counting::Running { since }) => {
                let periods = tick.saturating_sub(since) / self.period() + 1;
                self.reload_at = Some(since.saturating_add(periods.saturating_mul(self.period())));
            }
            // The gate starts these when it rises.
            (2 | 3, _) if !self.gate => {}
            _ => {
                self.start(tick);
                if !self.gate {
                    self.counting = Counting::Paused { elapsed: 0 };
                }
            }
        }
    }

    /// Drives the gate input.
    pub fn set_gate(&mut self, tick: u64, high: bool) {
        if self.gate == high {
            return;
        }
        self.gate = high;
        match (self.mode, high, self.counting) {
            (0 | 4, true, Counting::Paused { elapsed }) => {
                self.counting = Counting::Running { since: tick.saturating_sub(elapsed) };
            }
            (0 | 4, false, Counting::Running { since }) => {
                self.counting = Counting::Paused { elapsed: tick.saturating_sub(since) };
            }
            (2 | 3, false, _) => {
                self.counting = Counting::Stopped;
                self.reload_at = None;
            }
            (1 | 2 | 3 | 5, true, _) if self.loaded => self.start(tick),
            _ => {}
        }
    }

    /// The OUT pin.
    pub fn output(&self, tick: u64) -> bool {
        let Some(elapsed) = self.elapsed(tick) else { return self.mode != 0 };
        match self.mode {
            0 | 1 => elapsed >= self.initial(),
            2 => elapsed % self.period() != self.period() - 1,
            3 => elapsed % self.period() < self.period().div_ceil(2),
            _ => elapsed != self.initial(),
        }
    }

    /// The first tick after `tick` at which OUT rises, if nobody touches the counter.
    pub fn next_edge(&self, tick: u64) -> Option<u64> {
        let Counting::Running { since } = self.counting else { return None };
        let after = match self.mode {
            0 | 1 => self.initial(),
            2 | 3 => {
                let periods = tick.saturating_sub(since) / self.period() + 1;
                periods.checked_mul(self.period())?
            }
            _ => self.initial() + 1,
        };
        since.checked_add(after).filter(|&edge| edge > tick)
    }

    /// True if OUT stays high after it rose until the counter is programmed anew.
    pub fn holds_line_after_edge(&self) -> bool {
        self.mode == 0
    }

    /// The value of the counting element.
    fn value(&self, tick: u64) -> u16 {
        let modulus = u64::from(self.modulus());
        let elapsed = self.elapsed(tick).unwrap_or(0);
        let value = match self.mode {
            2 => self.period() - elapsed % self.period(),
            3 => {
                let phase = elapsed % self.period();
                let half = self.period().div_ceil(2);
                let into_half = if phase < half { phase } else { phase - half };
                (self.period() & !1).saturating_sub(2 * into_half)
            }
            _ => self.initial() + modulus - elapsed % modulus,
        };
        let value = (value % modulus) as u16;
        if self.bcd { to_bcd(value) } else { value }
    }

    pub fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(tick));
        }
    }

    pub fn latch_status(&mut self, tick: u64) {
        let bytes = match self.bytes {
            Bytes::Low => 1,
            Bytes::High => 2,
            Bytes::LowThenHigh => 3,
        };
        let status = u8::from(self.output(tick)) << 7
            | u8::from(self.null_count) << 6
            | bytes << 4
            | self.mode << 1
            | u8::from(self.bcd);
        self.latched_status.get_or_insert(status);
    }

    /// Reads the counter's port: a latched status, a latched count, or the count as it is.
    pub fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.value(tick)).to_le_bytes();
        let (byte, complete) = match self.bytes {
            Bytes::Low => (low, true),
            Bytes::High => (high, true),
            Bytes::LowThenHigh => {
                self.reads_high = !self.reads_high;
                if self.reads_high { (low, false) } else { (high, true) }
            }
        };
        if complete {
            self.latched_count = None;
        }
        byte
    }
}

fn from_bcd(raw: u16) -> u32 {
    (0..4).rev().fold(0, |value, digit| value * 10 + u32::from(raw >> (4 * digit) & 0xF))
}

fn to_bcd(value: u16) -> u16 {
    let digits = [value % 10, value / 10 % 10, value / 100 % 10, value / 1000 % 10];
    digits.iter().rev().fold(0, |bcd, digit| (bcd << 4) | digit)
}
