// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of the 16550A (PC16550D data sheet, 8.0).

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// Capacity of the receiver FIFO.
pub(super) const FIFO_BYTES: usize = 16;

/// Offsets from the base port.
pub(super) const DATA: u16 = 0;
pub(super) const INTERRUPT_ENABLE: u16 = 1;
pub(super) const INTERRUPT_ID: u16 = 2;
pub(super) const FIFO_CONTROL: u16 = 2;
pub(super) const LINE_CONTROL: u16 = 3;
pub(super) const MODEM_CONTROL: u16 = 4;
pub(super) const LINE_STATUS: u16 = 5;
pub(super) const MODEM_STATUS: u16 = 6;
pub(super) const SCRATCH: u16 = 7;

/// Line control: the break bit and the divisor latch access bit.
pub(super) const LCR_BREAK: u8 = 1 << 6;
pub(super) const LCR_DLAB: u8 = 1 << 7;

/// FIFO control.
pub(super) const FCR_ENABLE: u8 = 1 << 0;
pub(super) const FCR_CLEAR_RECEIVER: u8 = 1 << 1;

/// Interrupt identification, in order of priority.
pub(super) const IIR_LINE_STATUS: u8 = 0x06;
pub(super) const IIR_DATA: u8 = 0x04;
pub(super) const IIR_TIMEOUT: u8 = 0x0C;
pub(super) const IIR_TRANSMITTER: u8 = 0x02;
pub(super) const IIR_MODEM: u8 = 0x00;
pub(super) const IIR_NONE: u8 = 0x01;
pub(super) const IIR_FIFOS_ENABLED: u8 = 0xC0;

bitflags! {
    /// Interrupt enable register; the upper half reads as zero.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Enables: u8 {
        /// Received data available and character timeout.
        const DATA = 1 << 0;
        /// Transmitter holding register empty.
        const TRANSMITTER = 1 << 1;
        /// Receiver errors and break.
        const LINE_STATUS = 1 << 2;
        /// Changes of the modem lines.
        const MODEM = 1 << 3;
    }

    /// Line status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct LineStatus: u8 {
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const BREAK = 1 << 4;
        const HOLDING_EMPTY = 1 << 5;
        const TRANSMITTER_EMPTY = 1 << 6;
        const FIFO_ERROR = 1 << 7;
        /// What raises the line status interrupt, and is cleared by reading.
        const ERRORS = Self::OVERRUN.bits() | Self::BREAK.bits();
    }

    /// Modem control register; the upper bits read as zero.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct ModemControl: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOPBACK = 1 << 4;
    }

    /// Modem status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct ModemStatus: u8 {
        const DELTA_CTS = 1 << 0;
        const DELTA_DSR = 1 << 1;
        const TRAILING_RI = 1 << 2;
        const DELTA_DCD = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        /// The changes since the last read.
        const DELTAS = 0x0F;
    }
}

impl ModemControl {
    /// The modem input lines: in loopback the outputs, otherwise those of a peer that is
    /// there and ready.
    pub(super) fn lines(self) -> ModemStatus {
        if !self.contains(Self::LOOPBACK) {
            return ModemStatus::CTS | ModemStatus::DSR | ModemStatus::DCD;
        }
        let looped = [
            (Self::RTS, ModemStatus::CTS),
            (Self::DTR, ModemStatus::DSR),
            (Self::OUT1, ModemStatus::RI),
            (Self::OUT2, ModemStatus::DCD),
        ];
        looped.into_iter().filter(|&(o, _)| self.contains(o)).map(|(_, i)| i).collect()
    }
}
