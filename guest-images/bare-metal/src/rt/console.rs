// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output on the first serial port, a 16550A.

use core::fmt::{self, Write};

use super::cpu::{in8, out8};

/// First register of COM1.
pub const COM1: u16 = 0x3F8;
/// Scratch register: holds whatever is written and does nothing.
pub const SCRATCH: u16 = COM1 + 7;
/// Line status register.
pub const LINE_STATUS: u16 = COM1 + 5;

const TRANSMITTER_EMPTY: u8 = 1 << 5;
const FIFO_DEPTH: usize = 16;
/// A transmitter that is never ready is written to anyway after so many looks.
const PATIENCE: u32 = 1_000_000;

/// 8 data bits, no parity, FIFOs on, interrupts off.
pub fn init() {
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 0x03);
    out8(COM1 + 2, 0x07);
    out8(COM1 + 4, 0x0B);
}

/// Sends bytes, a FIFO full at a time.
pub fn write_bytes(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO_DEPTH) {
        let mut looks = 0;
        while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && looks < PATIENCE {
            looks += 1;
        }
        for &byte in chunk {
            out8(COM1, byte);
        }
    }
}

/// Gathers a line, so that the transmitter is polled once for many bytes.
pub struct Line {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    pub const fn new() -> Self {
        Self { bytes: [0; 128], length: 0 }
    }

    pub fn send(&mut self) {
        write_bytes(self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if let Some(slot) = self.bytes.get_mut(self.length) {
                *slot = byte;
                self.length += 1;
            }
            if self.length == self.bytes.len() {
                self.send();
            }
        }
        Ok(())
    }
}

/// Prints a formatted line; for `println!`.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // Writing to a `Line` cannot fail; an error could only come from a broken `Display`.
    let _ = line.write_fmt(arguments);
    let _ = line.write_str("\n");
    line.send();
}

macro_rules! println {
    ($($argument:tt)*) => { $crate::rt::console::print_line(format_args!($($argument)*)) };
}
