// SPDX-License-Identifier: MIT OR Apache-2.0
//! One 8259A.

use serde::{Deserialize, Serialize};

/// What the next write to the data port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum DataPort {
    Icw2,
    Icw3,
    Icw4,
    /// OCW1: the interrupt mask.
    Mask,
}

/// One 8259A. Sets of inputs are bit masks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Chip {
    /// Electrical state of the inputs.
    lines: u8,
    /// Edges that have not been acknowledged.
    edges: u8,
    /// IMR.
    masked: u8,
    /// ISR.
    in_service: u8,
    /// ELCR.
    level_triggered: u8,
    /// Vector of input 0; a multiple of 8.
    vector_base: u8,
    /// The input of lowest priority; the next one has the highest.
    lowest: u8,
    data_port: DataPort,
    /// ICW1: ICW4 follows.
    icw4_follows: bool,
    /// ICW1: no cascade, so no ICW3.
    single: bool,
    /// OCW3: the command port reads ISR rather than IRR.
    reads_in_service: bool,
    /// OCW3: the next read is a poll.
    poll: bool,
    special_mask: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
}

const fn bit(level: u8) -> u8 {
    1 << (level & 7)
}

impl Chip {
    /// A chip with all inputs masked.
    pub fn new(vector_base: u8) -> Self {
        Self {
            lines: 0,
            edges: 0,
            masked: 0xFF,
            in_service: 0,
            level_triggered: 0,
            vector_base,
            lowest: 7,
            data_port: DataPort::Mask,
            icw4_follows: false,
            single: false,
            reads_in_service: false,
            poll: false,
            special_mask: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_fully_nested: false,
        }
    }

    pub fn set_input(&mut self, level: u8, asserted: bool) {
        if asserted {
            self.edges |= bit(level) & !self.lines;
            self.lines |= bit(level);
        } else {
            self.lines &= !bit(level);
        }
    }

    /// Makes the request at `level` follow the output of another chip, edge or not.
    pub fn hold_request(&mut self, level: u8, requested: bool) {
        if requested {
            self.edges |= bit(level);
        } else {
            self.edges &= !bit(level);
        }
    }

    /// IRR.
    fn requests(&self) -> u8 {
        (self.edges & !self.level_triggered) | (self.lines & self.level_triggered)
    }

    /// The input of highest priority in `set`.
    fn first_of(&self, set: u8) -> Option<u8> {
        let highest = self.lowest.wrapping_add(1) & 7;
        let in_order = set.rotate_right(highest.into());
        let distance = in_order.trailing_zeros() as u8;
        (in_order != 0).then_some(highest.wrapping_add(distance) & 7)
    }

    /// Position of `level` in the priority order, 0 being the highest.
    fn rank(&self, level: u8) -> u8 {
        level.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The input for which INTR is asserted. `cascade` is the input with a slave, which in
    /// special fully nested mode may interrupt itself.
    pub fn request(&self, cascade: Option<u8>) -> Option<u8> {
        let level = self.first_of(self.requests() & !self.masked)?;
        let ignored = if self.special_mask { self.masked } else { 0 };
        let Some(current) = self.first_of(self.in_service & !ignored) else {
            return Some(level);
        };
        let nests = self.special_fully_nested && level == current && cascade == Some(level);
        (self.rank(level) < self.rank(current) || nests).then_some(level)
    }

    /// The INTA cycle for `level`.
    pub fn acknowledge(&mut self, level: u8) {
        self.edges &= !bit(level);
        if !self.auto_eoi {
            self.in_service |= bit(level);
        } else if self.rotate_on_auto_eoi {
            self.lowest = level & 7;
        }
    }

    pub fn vector(&self, level: u8) -> vmm_core::Vector {
        vmm_core::Vector(self.vector_base & 0xF8 | level & 7)
    }

    pub fn level_triggered(&self) -> u8 {
        self.level_triggered
    }

    pub fn set_level_triggered(&mut self, inputs: u8) {
        // An edge seen in edge mode means nothing to a level-triggered input, nor later on.
        self.edges &= !inputs;
        self.level_triggered = inputs;
    }

    pub fn read_command(&mut self, cascade: Option<u8>) -> u8 {
        if self.poll {
            self.answer_poll(cascade)
        } else if self.reads_in_service {
            self.in_service
        } else {
            self.requests()
        }
    }

    pub fn read_data(&mut self, cascade: Option<u8>) -> u8 {
        if self.poll { self.answer_poll(cascade) } else { self.masked }
    }

    /// The poll word; acknowledges what it reports.
    fn answer_poll(&mut self, cascade: Option<u8>) -> u8 {
        self.poll = false;
        let Some(level) = self.request(cascade) else { return 0 };
        self.acknowledge(level);
        0x80 | level
    }

    pub fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 != 0 {
            self.operation_word_3(value);
        } else {
            self.operation_word_2(value);
        }
    }

    pub fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.icw4_follows { DataPort::Icw4 } else { DataPort::Mask };
        match self.data_port {
            DataPort::Mask => self.masked = value,
            DataPort::Icw2 => {
                self.vector_base = value & 0xF8;
                self.data_port = if self.single { after_icw3 } else { DataPort::Icw3 };
            }
            DataPort::Icw3 => self.data_port = after_icw3,
            DataPort::Icw4 => {
                self.auto_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                self.data_port = DataPort::Mask;
            }
        }
    }

    /// ICW1. The edge detectors are reset: a line that is high has to fall and rise again.
    fn initialize(&mut self, icw1: u8) {
        *self = Self {
            lines: self.lines,
            level_triggered: self.level_triggered,
            masked: 0,
            data_port: DataPort::Icw2,
            icw4_follows: icw1 & 0x01 != 0,
            single: icw1 & 0x02 != 0,
            ..Self::new(self.vector_base)
        };
    }

    /// OCW2: end of interrupt and rotation.
    fn operation_word_2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(ended) = self.end_highest() {
                    self.lowest = ended;
                }
            }
            0b011 => self.in_service &= !bit(level),
            0b111 => {
                self.in_service &= !bit(level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            _ => {}
        }
    }

    /// Non-specific end of interrupt. In special mask mode masked inputs stay in service.
    fn end_highest(&mut self) -> Option<u8> {
        let kept = if self.special_mask { self.masked } else { 0 };
        let level = self.first_of(self.in_service & !kept)?;
        self.in_service &= !bit(level);
        Some(level)
    }

    /// OCW3: special mask mode, poll, and what the command port reads.
    fn operation_word_3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 {
            self.reads_in_service = value & 0x01 != 0;
        }
    }
}
