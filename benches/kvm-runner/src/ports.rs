// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices that user space has: a serial port, a clock that stands still, and what ends a
//! guest.

use crate::serial::Serial;

/// First register of the serial port, the number of its registers, and its interrupt line.
const COM1: u16 = 0x3F8;
const REGISTERS: u16 = 8;
pub const COM1_LINE: u32 = 4;

/// Registers of the clock and CMOS memory, which are all zero: no update is in progress, for
/// whose end Linux would wait.
const CMOS_DATA: u16 = 0x71;

/// A 32-bit write of a value ends the guest.
const EXIT: u16 = 0xF4;
/// The keyboard controller's command register, and the command that resets the machine.
const KEYBOARD: u16 = 0x64;
const RESET: u8 = 0xFE;

/// The devices.
#[derive(Debug, Default)]
pub struct Ports {
    /// The serial port.
    pub serial: Serial,
    /// Level of its interrupt line.
    line: bool,
}

impl Ports {
    /// Answers a read; ports of nobody give all ones.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(u8::MAX);
        let Some(first) = data.first_mut() else { return };
        if let Some(register) = register(port) {
            *first = self.serial.read(register);
        } else if port == CMOS_DATA {
            *first = 0;
        }
    }

    /// Takes a write. Gives the exit value if it ends the guest; a reset is a good end.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Option<u32> {
        match port {
            EXIT => return Some(u32::from_le_bytes(data.try_into().ok()?)),
            KEYBOARD if data == [RESET] => return Some(0),
            _ => {}
        }
        if let (Some(register), Some(&value)) = (register(port), data.first()) {
            self.serial.write(register, value);
        }
        None
    }

    /// The new level of the serial port's interrupt line, if it has changed since the last call.
    pub fn line_change(&mut self) -> Option<bool> {
        let level = self.serial.interrupt();
        (level != std::mem::replace(&mut self.line, level)).then_some(level)
    }
}

/// The serial port's register at this port.
fn register(port: u16) -> Option<u16> {
    port.checked_sub(COM1).filter(|&register| register < REGISTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_answers_with_ones() {
        let mut ports = Ports::default();
        let mut word = [0; 2];
        ports.read(0x5F0, &mut word);
        assert_eq!(word, [0xFF; 2]);
        assert_eq!(ports.write(0x5F0, &[0]), None);
        let mut byte = [1];
        ports.read(CMOS_DATA, &mut byte);
        assert_eq!(byte, [0]);
    }

    #[test]
    fn exit_port_and_reset_end_the_guest() {
        let mut ports = Ports::default();
        assert_eq!(ports.write(EXIT, &[7, 0, 0, 0]), Some(7));
        assert_eq!(ports.write(EXIT, &[7]), None);
        assert_eq!(ports.write(KEYBOARD, &[0xD1]), None);
        assert_eq!(ports.write(KEYBOARD, &[RESET]), Some(0));
    }

    #[test]
    fn changes_of_the_interrupt_line_are_told_once() {
        let mut ports = Ports::default();
        assert_eq!(ports.line_change(), None);
        ports.write(COM1 + 1, &[2]);
        assert_eq!((ports.line_change(), ports.line_change()), (Some(true), None));
        ports.write(COM1, b"a");
        assert_eq!(ports.line_change(), Some(false));
        ports.serial.transmit();
        assert_eq!(ports.line_change(), Some(true));
    }
}
