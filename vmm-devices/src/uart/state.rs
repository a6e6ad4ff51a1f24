// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a 16550A does on its own, without lines and far end.

use alloc::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::registers::*;

/// Divisor for 9600 baud: what firmware leaves behind.
const DEFAULT_DIVISOR: [u8; 2] = [12, 0];

/// State of a serial port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UartState {
    enables: Enables,
    /// The transmitter became empty, and the guest has not been told by IIR.
    transmitter_event: bool,
    fifo_enabled: bool,
    /// Bytes at which the FIFO requests service.
    trigger: u8,
    received: VecDeque<u8>,
    line_control: u8,
    /// The bits of [`LineStatus::ERRORS`] that have not been read.
    errors: LineStatus,
    modem_control: ModemControl,
    /// The bits of [`ModemStatus::DELTAS`] that have not been read.
    modem_changes: ModemStatus,
    scratch: u8,
    divisor: [u8; 2],
}

impl Default for UartState {
    fn default() -> Self {
        Self {
            enables: Enables::empty(),
            transmitter_event: false,
            fifo_enabled: false,
            trigger: 1,
            received: VecDeque::with_capacity(FIFO_BYTES),
            line_control: 0,
            errors: LineStatus::empty(),
            modem_control: ModemControl::empty(),
            modem_changes: ModemStatus::empty(),
            scratch: 0,
            divisor: DEFAULT_DIVISOR,
        }
    }
}

impl UartState {
    /// Cuts a state that came from outside to what the chip can hold.
    pub(super) fn within_limits(mut self) -> Self {
        self.received.truncate(self.capacity());
        self.enables &= Enables::all();
        self.modem_control &= ModemControl::all();
        self.errors &= LineStatus::ERRORS;
        self.modem_changes &= ModemStatus::DELTAS;
        self
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled { FIFO_BYTES } else { 1 }
    }

    fn loopback(&self) -> bool {
        self.modem_control.contains(ModemControl::LOOPBACK)
    }

    /// Number of bytes to ask the far end for: none while it is not to send.
    pub(super) fn receiver_room(&self) -> usize {
        let open = self.modem_control.contains(ModemControl::RTS) && !self.loopback();
        if open && self.received.is_empty() { self.capacity() } else { 0 }
    }

    /// A byte arrives. Without room it is lost: in FIFO mode the new one, otherwise the old.
    pub(super) fn receive(&mut self, byte: u8) {
        if self.received.len() >= self.capacity() {
            self.errors |= LineStatus::OVERRUN;
            if self.fifo_enabled {
                return;
            }
            self.received.clear();
        }
        self.received.push_back(byte);
    }

    /// The interrupt output as the PC's interrupt line sees it.
    pub(super) fn interrupts(&self) -> bool {
        self.modem_control.contains(ModemControl::OUT2) && self.interrupt() != IIR_NONE
    }

    /// The interrupt of highest priority.
    fn interrupt(&self) -> u8 {
        let enabled = |e| self.enables.contains(e);
        if enabled(Enables::LINE_STATUS) && !self.errors.is_empty() {
            IIR_LINE_STATUS
        } else if enabled(Enables::DATA) && !self.received.is_empty() {
            let reached = self.received.len() >= usize::from(self.trigger);
            if reached || !self.fifo_enabled { IIR_DATA } else { IIR_TIMEOUT }
        } else if enabled(Enables::TRANSMITTER) && self.transmitter_event {
            IIR_TRANSMITTER
        } else if enabled(Enables::MODEM) && !self.modem_changes.is_empty() {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn divisor_latch(&self) -> bool {
        self.line_control & LCR_DLAB != 0
    }

    /// Reads the register at `offset`, with the side effects of reading.
    pub(super) fn read(&mut self, offset: u16) -> Option<u8> {
        Some(match offset {
            DATA if self.divisor_latch() => self.divisor[0],
            INTERRUPT_ENABLE if self.divisor_latch() => self.divisor[1],
            DATA => self.received.pop_front().unwrap_or(0),
            INTERRUPT_ENABLE => self.enables.bits(),
            INTERRUPT_ID => self.identify_interrupt(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control.bits(),
            LINE_STATUS => self.take_line_status(),
            MODEM_STATUS => {
                let changes = core::mem::replace(&mut self.modem_changes, ModemStatus::empty());
                (self.modem_control.lines() | changes).bits()
            }
            SCRATCH => self.scratch,
            _ => return None,
        })
    }

    /// Reading IIR takes the transmitter's interrupt back if that is what it reports.
    fn identify_interrupt(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == IIR_TRANSMITTER {
            self.transmitter_event = false;
        }
        if self.fifo_enabled { interrupt | IIR_FIFOS_ENABLED } else { interrupt }
    }

    fn take_line_status(&mut self) -> u8 {
        let errors = core::mem::replace(&mut self.errors, LineStatus::empty());
        let mut status = LineStatus::HOLDING_EMPTY | LineStatus::TRANSMITTER_EMPTY | errors;
        status.set(LineStatus::DATA_READY, !self.received.is_empty());
        let broken = self.fifo_enabled && errors.contains(LineStatus::BREAK);
        status.set(LineStatus::FIFO_ERROR, broken);
        status.bits()
    }

    /// Writes the register at `offset`; returns the byte that goes out on the line.
    pub(super) fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        match offset {
            DATA if self.divisor_latch() => self.divisor[0] = value,
            INTERRUPT_ENABLE if self.divisor_latch() => self.divisor[1] = value,
            DATA => return self.send(value),
            INTERRUPT_ENABLE => self.write_enables(Enables::from_bits_truncate(value)),
            FIFO_CONTROL => self.write_fifo_control(value),
            LINE_CONTROL => self.write_line_control(value),
            MODEM_CONTROL => self.write_modem_control(ModemControl::from_bits_truncate(value)),
            SCRATCH => self.scratch = value,
            _ => {}
        }
        None
    }

    /// The byte leaves at once, so the transmitter is empty again at once.
    fn send(&mut self, byte: u8) -> Option<u8> {
        self.transmitter_event = true;
        if self.loopback() {
            self.receive(byte);
            return None;
        }
        Some(byte)
    }

    /// Enabling the transmitter's interrupt raises it, the transmitter being empty.
    fn write_enables(&mut self, enables: Enables) {
        let risen = enables.difference(self.enables);
        self.enables = enables;
        if risen.contains(Enables::TRANSMITTER) {
            self.transmitter_event = true;
        }
    }

    /// Switching the FIFO on or off clears it; the other bits count only with it on.
    fn write_fifo_control(&mut self, value: u8) {
        let enabled = value & FCR_ENABLE != 0;
        if enabled != self.fifo_enabled || enabled && value & FCR_CLEAR_RECEIVER != 0 {
            self.received.clear();
        }
        self.fifo_enabled = enabled;
        if enabled {
            self.trigger = match value >> 6 {
                0 => 1,
                1 => 4,
                2 => 8,
                _ => 14,
            };
        }
    }

    /// A break goes nowhere, except to the own receiver in loopback: as a zero byte.
    fn write_line_control(&mut self, value: u8) {
        let begins = value & !self.line_control & LCR_BREAK != 0;
        self.line_control = value;
        if begins && self.loopback() {
            self.receive(0);
            self.errors |= LineStatus::BREAK;
        }
    }

    fn write_modem_control(&mut self, control: ModemControl) {
        let before = self.modem_control.lines();
        self.modem_control = control;
        let after = control.lines();
        let changed = before ^ after;
        let deltas = [
            (changed.contains(ModemStatus::CTS), ModemStatus::DELTA_CTS),
            (changed.contains(ModemStatus::DSR), ModemStatus::DELTA_DSR),
            (before.difference(after).contains(ModemStatus::RI), ModemStatus::TRAILING_RI),
            (changed.contains(ModemStatus::DCD), ModemStatus::DELTA_DCD),
        ];
        deltas.iter().filter(|(seen, _)| *seen).for_each(|&(_, d)| self.modem_changes |= d);
    }
}
