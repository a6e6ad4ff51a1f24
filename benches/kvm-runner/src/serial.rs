// SPDX-License-Identifier: MIT OR Apache-2.0
//! A serial port, a 16550A that sends at once and receives nothing
//! (National Semiconductor, PC16550D data sheet, section 8).

/// Registers by their offsets.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_IDENTITY: u16 = 2;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

/// Interrupt enable: when the transmitter is empty; bits that exist.
const ENABLE_TRANSMITTER: u8 = 1 << 1;
const ENABLE_BITS: u8 = 0xF;
/// Interrupt identity: none, the empty transmitter; FIFOs are on.
const NO_INTERRUPT: u8 = 1;
const TRANSMITTER: u8 = 2;
const FIFOS: u8 = 0xC0;
/// The line control register's divisor latch access bit.
const DIVISOR_LATCH: u8 = 1 << 7;
/// Transmitter holding register and transmitter empty.
const TRANSMITTER_EMPTY: u8 = 0x60;
/// Data carrier, data set and clear to send are there.
const CONNECTED: u8 = 0xB0;

/// Its state.
#[derive(Debug, Default)]
pub struct Serial {
    /// What the guest has sent.
    pub sent: Vec<u8>,
    interrupt_enable: u8,
    fifos: bool,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// The transmitter has something to send.
    busy: bool,
    /// The transmitter became empty, and the guest has not been told.
    emptied: bool,
}

impl Serial {
    /// Reads a register.
    pub fn read(&mut self, register: u16) -> u8 {
        let latch = self.line_control & DIVISOR_LATCH != 0;
        match register {
            DATA | INTERRUPT_ENABLE if latch => self.divisor[usize::from(register)],
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_IDENTITY => self.identify(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => TRANSMITTER_EMPTY,
            MODEM_STATUS => CONNECTED,
            SCRATCH => self.scratch,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, register: u16, value: u8) {
        let latch = self.line_control & DIVISOR_LATCH != 0;
        match register {
            DATA | INTERRUPT_ENABLE if latch => self.divisor[usize::from(register)] = value,
            DATA => {
                self.sent.push(value);
                (self.busy, self.emptied) = (true, false);
            }
            INTERRUPT_ENABLE => {
                // Asking to be told of an empty transmitter is answered, since it is.
                let asked = value & !self.interrupt_enable & ENABLE_TRANSMITTER != 0;
                self.emptied |= asked;
                self.interrupt_enable = value & ENABLE_BITS;
            }
            FIFO_CONTROL => self.fifos = value & 1 != 0,
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.modem_control = value,
            SCRATCH => self.scratch = value,
            _ => {}
        }
    }

    /// Sends what the transmitter was given, if it was.
    pub fn transmit(&mut self) {
        self.emptied |= std::mem::take(&mut self.busy);
    }

    /// Whether it asks for an interrupt.
    pub fn interrupt(&self) -> bool {
        self.emptied && self.interrupt_enable & ENABLE_TRANSMITTER != 0
    }

    /// Says what it asks for, which answers it.
    fn identify(&mut self) -> u8 {
        let fifos = if self.fifos { FIFOS } else { 0 };
        if self.interrupt() {
            self.emptied = false;
            return fifos | TRANSMITTER;
        }
        fifos | NO_INTERRUPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sends_and_remembers() {
        let mut serial = Serial::default();
        serial.write(LINE_CONTROL, DIVISOR_LATCH);
        serial.write(DATA, 12);
        assert_eq!(serial.read(DATA), 12);
        serial.write(LINE_CONTROL, 0x03);
        serial.write(DATA, b'a');
        serial.write(SCRATCH, 0x5A);
        assert_eq!(serial.sent, b"a");
        assert_eq!((serial.read(SCRATCH), serial.read(LINE_STATUS)), (0x5A, TRANSMITTER_EMPTY));
    }

    #[test]
    fn an_empty_transmitter_interrupts_until_it_is_identified() {
        let mut serial = Serial::default();
        serial.write(FIFO_CONTROL, 1);
        assert!(!serial.interrupt());
        serial.write(INTERRUPT_ENABLE, ENABLE_TRANSMITTER);
        assert!(serial.interrupt());
        assert_eq!(serial.read(INTERRUPT_IDENTITY), FIFOS | TRANSMITTER);
        assert!(!serial.interrupt());
        assert_eq!(serial.read(INTERRUPT_IDENTITY), FIFOS | NO_INTERRUPT);
        serial.transmit();
        assert!(!serial.interrupt(), "nothing was sent");
        serial.write(DATA, b'a');
        assert!(!serial.interrupt());
        serial.transmit();
        assert!(serial.interrupt());
        serial.write(INTERRUPT_ENABLE, 0);
        assert!(!serial.interrupt());
    }
}
