// SPDX-License-Identifier: MIT OR Apache-2.0
//! A 16550 UART (National Semiconductor PC16550D data sheet), polled for output.

use x86::io::{inb, outb};

const FIFO_BYTES: usize = 16;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const LINE_STATUS_DATA_READY: u8 = 1;
const LINE_STATUS_HOLDING_EMPTY: u8 = 1 << 5;
const LINE_STATUS_TRANSMITTER_IDLE: u8 = 1 << 6;
const ENABLE_RECEIVED_DATA: u8 = 1;

/// How often the transmitter is polled before bytes are dropped: a port that never drains
/// must not stop the machine.
const TRANSMIT_POLLS: u32 = 100_000_000;

/// A UART at an I/O port, in 115200 baud, 8N1.
pub(crate) struct Uart {
    port: u16,
}

impl Uart {
    /// Initialises the UART at `port`; `None` if there is none.
    pub(crate) fn probe(port: u16) -> Option<Self> {
        let mut uart = Self { port };
        for pattern in [0x5A, 0xA5] {
            uart.write_register(SCRATCH, pattern);
            if uart.read_register(SCRATCH) != pattern {
                return None;
            }
        }
        uart.write_register(INTERRUPT_ENABLE, 0);
        uart.write_register(LINE_CONTROL, 0x80);
        uart.write_register(DATA, 1);
        uart.write_register(INTERRUPT_ENABLE, 0);
        uart.write_register(LINE_CONTROL, 3);
        // FIFOs on, interrupt at 14 bytes or after a pause. Received bytes are kept.
        uart.write_register(FIFO_CONTROL, 0xC1);
        // DTR, RTS, and OUT2, which connects the interrupt.
        uart.write_register(MODEM_CONTROL, 0x0B);
        Some(uart)
    }

    /// Sends bytes as fast as the line takes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for burst in bytes.chunks(FIFO_BYTES) {
            if !self.wait_for(LINE_STATUS_HOLDING_EMPTY) {
                return;
            }
            for &byte in burst {
                self.write_register(DATA, byte);
            }
        }
    }

    /// Waits until the last byte has left the line.
    pub(crate) fn flush(&mut self) {
        self.wait_for(LINE_STATUS_TRANSMITTER_IDLE);
    }

    /// Waits for a bit of the line status; false if it does not come.
    fn wait_for(&mut self, bit: u8) -> bool {
        (0..TRANSMIT_POLLS).any(|_| {
            core::hint::spin_loop();
            self.read_register(LINE_STATUS) & bit != 0
        })
    }

    /// Takes a received byte.
    pub(crate) fn read_byte(&mut self) -> Option<u8> {
        let ready = self.read_register(LINE_STATUS) & LINE_STATUS_DATA_READY != 0;
        ready.then(|| self.read_register(DATA))
    }

    /// Lets received data interrupt, or not. Data that has arrived already interrupts at once.
    pub(crate) fn set_receive_interrupt(&mut self, enabled: bool) {
        self.write_register(INTERRUPT_ENABLE, if enabled { ENABLE_RECEIVED_DATA } else { 0 });
    }

    fn read_register(&mut self, register: u16) -> u8 {
        // SAFETY: the port is a UART's, or absent hardware while probing, which reads as ones.
        unsafe { inb(self.port + register) }
    }

    fn write_register(&mut self, register: u16, value: u8) {
        // SAFETY: as in `read_register`; a UART reaches no memory.
        unsafe { outb(self.port + register, value) };
    }
}
