// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices that user space has: a serial port that is always ready, and the exit port.

/// First register of the serial port, a 16550A, and the number of its registers.
const COM1: u16 = 0x3F8;
const REGISTERS: u16 = 8;
/// Offsets of registers.
const INTERRUPT_IDENTITY: u16 = 2;
const LINE_CONTROL: u16 = 3;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;
/// No interrupt waits.
const NO_INTERRUPT: u8 = 1;
/// The line control register's divisor latch access bit.
const DIVISOR_LATCH: u8 = 1 << 7;
/// Transmitter holding register and transmitter empty.
const TRANSMITTER_EMPTY: u8 = 0x60;

/// A 32-bit write of a value ends the guest.
const EXIT: u16 = 0xF4;

/// The devices.
#[derive(Debug, Default)]
pub struct Ports {
    /// What the guest has sent.
    pub console: Vec<u8>,
    line_control: u8,
    scratch: u8,
}

impl Ports {
    /// Answers a read; ports of nobody give all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(u8::MAX);
        if let Some(first) = data.first_mut()
            && let Some(register) = register(port)
        {
            *first = match register {
                INTERRUPT_IDENTITY => NO_INTERRUPT,
                LINE_CONTROL => self.line_control,
                LINE_STATUS => TRANSMITTER_EMPTY,
                SCRATCH => self.scratch,
                _ => 0,
            };
        }
    }

    /// Takes a write. Gives the exit value if it ends the guest.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Option<u32> {
        if port == EXIT {
            return Some(u32::from_le_bytes(data.try_into().ok()?));
        }
        let (register, &value) = (register(port)?, data.first()?);
        match register {
            0 if self.line_control & DIVISOR_LATCH == 0 => self.console.push(value),
            LINE_CONTROL => self.line_control = value,
            SCRATCH => self.scratch = value,
            _ => {}
        }
        None
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
    fn the_serial_port_sends_and_remembers() {
        let mut ports = Ports::default();
        assert_eq!(ports.write(COM1 + LINE_CONTROL, &[0x80]), None);
        ports.write(COM1, &[12]);
        ports.write(COM1 + LINE_CONTROL, &[0x03]);
        ports.write(COM1, b"a");
        ports.write(COM1 + SCRATCH, &[0x5A]);
        assert_eq!(ports.console, b"a");
        let mut byte = [0];
        ports.read(COM1 + SCRATCH, &mut byte);
        assert_eq!(byte, [0x5A]);
    }

    #[test]
    fn nobody_answers_with_ones_and_the_exit_port_ends() {
        let mut ports = Ports::default();
        let mut word = [0; 2];
        ports.read(0x5F0, &mut word);
        assert_eq!(word, [0xFF; 2]);
        assert_eq!(ports.write(0x5F0, &[0]), None);
        assert_eq!(ports.write(EXIT, &[7, 0, 0, 0]), Some(7));
        assert_eq!(ports.write(EXIT, &[7]), None);
    }
}
