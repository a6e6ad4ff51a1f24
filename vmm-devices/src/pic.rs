// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pair of 8259A interrupt controllers of a PC.

mod chip;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::{
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};

use serde::{Deserialize, Serialize};
use spin::Mutex;
use vmm_core::{Doorbell, ExternalInterruptSource, InterruptInputs, Vector};

use crate::{
    PortRange,
    byte_ports::{BytePorts, port_range},
};
use chip::Chip;

/// The master's input that the slave's INTR output drives.
const CASCADE: u8 = 2;
/// The input whose vector stands for a request that was withdrawn.
const SPURIOUS: u8 = 7;
/// Inputs of the master and of the slave that exist as level-triggered ones: not the timer,
/// keyboard and cascade, and not the clock and the coprocessor.
const MASTER_ELCR_MASK: u8 = 0xF8;
const SLAVE_ELCR_MASK: u8 = 0xDE;

/// Whose request the INTR output stands for: values of [`Pic::intr`] and [`Pic::sampled`].
const NOBODY: u8 = 0;
const MASTER: u8 = 1;
const SLAVE: u8 = 2;

/// State of the pair.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PicState {
    master: Chip,
    slave: Chip,
}

/// Two 8259A in cascade with edge/level control registers (Intel 8259A data sheet, order
/// number 231468; for ELCR: Intel 82371SB data sheet, 2.5.4).
///
/// They start with all inputs masked and with the vectors that PC firmware gives them.
/// An edge is remembered even if the line falls before it is acknowledged, where the chip
/// would answer with a spurious interrupt. ICW1's LTIM is ignored in favour of ELCR, and the
/// cascade wiring of ICW3 is fixed, as on a PC.
///
/// Its lock is innermost: while it is held, nothing else is called.
pub struct Pic {
    state: Mutex<PicState>,
    /// The INTR output; follows `state`.
    intr: AtomicU8,
    /// What the CPU last saw INTR stand for, until it acknowledges: tells a withdrawn request
    /// from one that never was.
    sampled: AtomicU8,
    /// INTR became asserted, and nobody has taken note of that edge.
    risen: AtomicBool,
    doorbell: Doorbell,
}

impl Pic {
    /// Command and data port of the master.
    pub const MASTER_PORTS: RangeInclusive<u16> = 0x20..=0x21;
    /// Command and data port of the slave.
    pub const SLAVE_PORTS: RangeInclusive<u16> = 0xA0..=0xA1;
    /// The edge/level control registers.
    pub const ELCR_PORTS: RangeInclusive<u16> = 0x4D0..=0x4D1;

    /// A pair that rings `doorbell` whenever INTR becomes asserted.
    pub fn new(doorbell: Doorbell) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(PicState { master: Chip::new(0x08), slave: Chip::new(0x70) }),
            intr: AtomicU8::new(NOBODY),
            sampled: AtomicU8::new(NOBODY),
            risen: AtomicBool::new(false),
            doorbell,
        })
    }

    /// The ports to claim.
    pub fn ports(self: &Arc<Self>) -> [PortRange; 3] {
        [Self::MASTER_PORTS, Self::SLAVE_PORTS, Self::ELCR_PORTS].map(|p| port_range(self, &p))
    }

    /// Takes the state out.
    pub fn save(&self) -> PicState {
        self.state.lock().clone()
    }

    /// Puts a state back.
    pub fn restore(&self, state: PicState) {
        self.sampled.store(NOBODY, Ordering::SeqCst);
        self.change(|s| *s = state);
    }

    /// Changes the state, lets the change reach INTR, and rings if that rises.
    fn change<R>(&self, change: impl FnOnce(&mut PicState) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let source = state.settle();
        let before = self.intr.swap(source, Ordering::SeqCst);
        drop(state);
        if before == NOBODY && source != NOBODY {
            self.risen.store(true, Ordering::SeqCst);
            self.doorbell.ring();
        }
        result
    }
}

impl PicState {
    /// Carries the slave's output to the master; tells whom INTR stands for.
    fn settle(&mut self) -> u8 {
        self.master.hold_request(CASCADE, self.slave.request(None).is_some());
        match self.master.request(Some(CASCADE)) {
            None => NOBODY,
            Some(CASCADE) => SLAVE,
            Some(_) => MASTER,
        }
    }

    /// The two INTA cycles; `sampled` is what the CPU saw before it began them.
    fn acknowledge(&mut self, sampled: u8) -> Option<Vector> {
        let level = match self.master.request(Some(CASCADE)) {
            Some(level) => level,
            None if sampled == SLAVE => CASCADE,
            None if sampled == MASTER => return Some(self.master.vector(SPURIOUS)),
            None => return None,
        };
        self.master.acknowledge(level);
        if level != CASCADE {
            return Some(self.master.vector(level));
        }
        let Some(level) = self.slave.request(None) else {
            return Some(self.slave.vector(SPURIOUS));
        };
        self.slave.acknowledge(level);
        Some(self.slave.vector(level))
    }
}

impl InterruptInputs for Pic {
    fn set_input(&self, input: u32, asserted: bool) {
        let Ok(input) = u8::try_from(input) else { return };
        self.change(|s| match input {
            CASCADE => {}
            0..8 => s.master.set_input(input, asserted),
            8..16 => s.slave.set_input(input - 8, asserted),
            _ => {}
        });
    }
}

impl ExternalInterruptSource for Pic {
    fn pending(&self) -> bool {
        let source = self.intr.load(Ordering::SeqCst);
        if source == NOBODY {
            return false;
        }
        self.sampled.store(source, Ordering::SeqCst);
        true
    }

    fn take_rise(&self) -> bool {
        self.risen.swap(false, Ordering::SeqCst)
    }

    fn acknowledge(&self) -> Option<Vector> {
        let sampled = self.sampled.swap(NOBODY, Ordering::SeqCst);
        self.change(|s| s.acknowledge(sampled))
    }
}

impl BytePorts for Pic {
    fn name(&self) -> &str {
        "pic"
    }

    fn read_byte(&self, port: u16) -> Option<u8> {
        self.change(|s| match port {
            0x20 => Some(s.master.read_command(Some(CASCADE))),
            0x21 => Some(s.master.read_data(Some(CASCADE))),
            0xA0 => Some(s.slave.read_command(None)),
            0xA1 => Some(s.slave.read_data(None)),
            0x4D0 => Some(s.master.level_triggered()),
            0x4D1 => Some(s.slave.level_triggered()),
            _ => None,
        })
    }

    fn write_byte(&self, port: u16, value: u8) -> bool {
        // A CPU that writes here is not about to acknowledge: what it has just masked is not
        // owed to it as a spurious interrupt.
        self.sampled.store(NOBODY, Ordering::SeqCst);
        self.change(|s| {
            match port {
                0x20 => s.master.write_command(value),
                0x21 => s.master.write_data(value),
                0xA0 => s.slave.write_command(value),
                0xA1 => s.slave.write_data(value),
                0x4D0 => s.master.set_level_triggered(value & MASTER_ELCR_MASK),
                0x4D1 => s.slave.set_level_triggered(value & SLAVE_ELCR_MASK),
                _ => return false,
            }
            true
        })
    }
}
