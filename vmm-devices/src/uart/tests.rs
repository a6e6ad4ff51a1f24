// SPDX-License-Identifier: MIT OR Apache-2.0
use host_iface::HostConsole;
use host_mock::{MockConsole, MockHost};
use proptest::prelude::*;

use super::{registers::*, *};
use crate::test_support::{LineProbe, through_json};

struct Bench {
    uart: Arc<Uart>,
    line: Arc<LineProbe>,
    console: &'static MockConsole,
}

fn bench() -> Bench {
    let console = MockHost::leak(1).mock_console();
    let line = Arc::new(LineProbe::default());
    let backend: Arc<dyn CharBackend> = Arc::new(console as &'static dyn HostConsole);
    Bench { uart: Uart::new(0x3F8, line.line(), Some(backend)), line, console }
}

impl Bench {
    fn read(&self, offset: u16) -> u8 {
        self.uart.read_byte(0x3F8 + offset).unwrap()
    }

    fn write(&self, offset: u16, value: u8) {
        assert!(self.uart.write_byte(0x3F8 + offset, value));
    }

    /// As a driver opens the port: FIFO with trigger level 8, DTR, RTS, OUT2.
    fn opened(self) -> Self {
        self.write(FIFO_CONTROL, 0x81);
        self.write(MODEM_CONTROL, 0x0B);
        self
    }

    fn type_in(&self, bytes: &[u8]) {
        self.console.type_in(bytes);
        self.uart.host_event();
    }

    fn waiting(&self) -> usize {
        HostConsole::read(self.console, &mut [0; 256])
    }
}

#[test]
fn bytes_go_out_at_once() {
    let b = bench();
    for &byte in b"hello" {
        assert_eq!(b.read(LINE_STATUS), 0x60);
        b.write(DATA, byte);
    }
    assert_eq!(b.console.take_output(), b"hello");
}

#[test]
fn a_port_without_a_far_end_works() {
    let uart = Uart::new(0x2F8, Arc::new(LineProbe::default()).line(), None);
    assert!(uart.write_byte(0x2F8, b'x'));
    uart.host_event();
    assert_eq!(uart.read_byte(0x2FD), Some(0x60));
    assert_eq!(uart.read_byte(0x300), None);
    assert!(!uart.write_byte(0x300, 0));
    assert!(!uart.write_byte(0x2F7, 0));
}

#[test]
fn transmitter_interrupts_come_as_the_linux_driver_expects() {
    let b = bench().opened();
    // Linux tests at start-up that enabling the interrupt raises it, twice.
    for _ in 0..2 {
        b.write(INTERRUPT_ENABLE, 2);
        assert!(b.line.asserted());
        assert_eq!(b.read(INTERRUPT_ID), 0xC2);
        assert_eq!(b.read(INTERRUPT_ID), 0xC1);
        assert!(!b.line.asserted());
        b.write(INTERRUPT_ENABLE, 0);
    }
    b.write(INTERRUPT_ENABLE, 2);
    b.read(INTERRUPT_ID);
    b.line.take_rises();
    b.write(DATA, b'x');
    assert!(b.line.asserted());
    assert_eq!(b.line.take_rises(), 1);
    b.write(INTERRUPT_ENABLE, 0);
    assert!(!b.line.asserted());
}

#[test]
fn out2_connects_the_interrupt() {
    let b = bench();
    b.write(INTERRUPT_ENABLE, 2);
    assert!(!b.line.asserted());
    b.write(MODEM_CONTROL, 0x08);
    assert!(b.line.asserted());
}

#[test]
fn received_bytes_wait_at_the_host_until_the_port_is_open() {
    let b = bench();
    b.type_in(b"early");
    assert_eq!(b.read(LINE_STATUS), 0x60);
    let b = b.opened();
    assert_eq!(b.read(LINE_STATUS), 0x61);
    let bytes: Vec<u8> = (0..5).map(|_| b.read(DATA)).collect();
    assert_eq!(bytes, b"early");
    assert_eq!(b.read(LINE_STATUS), 0x60);
    assert_eq!(b.read(DATA), 0);
}

#[test]
fn no_more_is_taken_than_the_fifo_holds_and_nothing_is_lost() {
    let b = bench().opened();
    let sent: Vec<u8> = (0..40).collect();
    b.console.type_in(&sent);
    b.uart.host_event();
    b.uart.host_event();
    let mut received = Vec::new();
    while b.read(LINE_STATUS) & 1 != 0 {
        received.push(b.read(DATA));
    }
    assert_eq!(received, sent);
    b.type_in(&[7; 20]);
    assert_eq!(b.waiting(), 4);
}

#[test]
fn without_rts_the_far_end_keeps_its_bytes() {
    let b = bench().opened();
    b.write(MODEM_CONTROL, 0x09);
    b.type_in(b"x");
    assert_eq!(b.read(LINE_STATUS), 0x60);
    b.write(MODEM_CONTROL, 0x0B);
    assert_eq!(b.read(DATA), b'x');
}

#[test]
fn data_interrupts_tell_the_trigger_level_from_the_timeout() {
    let b = bench().opened();
    b.write(INTERRUPT_ENABLE, 1);
    b.type_in(&[1; 9]);
    assert!(b.line.asserted());
    assert_eq!(b.read(INTERRUPT_ID), 0xC4);
    b.read(DATA);
    assert_eq!(b.read(INTERRUPT_ID), 0xC4);
    b.read(DATA);
    assert_eq!(b.read(INTERRUPT_ID), 0xCC);
    (0..7).for_each(|_| {
        b.read(DATA);
    });
    assert_eq!(b.read(INTERRUPT_ID), 0xC1);
    assert!(!b.line.asserted());
}

#[test]
fn interrupts_are_reported_by_priority() {
    let b = bench().opened();
    b.write(INTERRUPT_ENABLE, 0x0F);
    b.write(MODEM_CONTROL, 0x13);
    b.write(LINE_CONTROL, 0x43);
    assert_eq!(b.read(INTERRUPT_ID), 0xC6);
    assert_eq!(b.read(LINE_STATUS), 0xF1);
    assert_eq!(b.read(LINE_STATUS), 0x61);
    assert_eq!(b.read(INTERRUPT_ID), 0xCC);
    assert_eq!(b.read(DATA), 0);
    assert_eq!(b.read(INTERRUPT_ID), 0xC2);
    b.write(MODEM_CONTROL, 0x0B);
    assert_eq!(b.read(INTERRUPT_ID), 0xC0);
    assert_eq!(b.read(MODEM_STATUS) & 0xF0, 0xB0);
    assert_eq!(b.read(INTERRUPT_ID), 0xC1);
}

#[test]
fn loopback_passes_autodetection() {
    let b = bench();
    b.write(MODEM_CONTROL, 0x1A);
    assert_eq!(b.read(MODEM_STATUS) & 0xF0, 0x90);
    b.read(MODEM_STATUS);
    b.write(MODEM_CONTROL, 0x15);
    assert_eq!(b.read(MODEM_STATUS), 0x60 | 0x0B);
    b.write(MODEM_CONTROL, 0x10);
    assert_eq!(b.read(MODEM_STATUS), 0x06);
    b.write(DATA, 0xA5);
    assert_eq!(b.read(DATA), 0xA5);
    assert!(b.console.take_output().is_empty());
}

#[test]
fn an_overrun_keeps_the_fifo_and_replaces_the_single_register() {
    let b = bench();
    b.write(MODEM_CONTROL, 0x10);
    b.write(DATA, 1);
    b.write(DATA, 2);
    assert_eq!(b.read(LINE_STATUS), 0x63);
    assert_eq!(b.read(DATA), 2);
    b.write(FIFO_CONTROL, 0x01);
    (0..17).for_each(|n| b.write(DATA, n));
    assert_eq!(b.read(LINE_STATUS), 0x63);
    let bytes: Vec<u8> = (0..16).map(|_| b.read(DATA)).collect();
    assert_eq!(bytes, (0..16).collect::<Vec<u8>>());
    assert_eq!(b.read(LINE_STATUS), 0x60);
}

/// What Linux's 8250 driver tries in order to tell a 16550A from its successors.
#[test]
fn nothing_looks_like_a_successor_chip() {
    let b = bench();
    b.write(INTERRUPT_ENABLE, 0xFF);
    assert_eq!(b.read(INTERRUPT_ENABLE), 0x0F);
    b.write(INTERRUPT_ENABLE, 0);
    b.write(SCRATCH, 0x5A);
    assert_eq!(b.read(SCRATCH), 0x5A);
    b.write(FIFO_CONTROL, 0x01);
    assert_eq!(b.read(INTERRUPT_ID) >> 6, 3);
    for lcr in [0x80, 0xBF] {
        b.write(LINE_CONTROL, lcr);
        assert_ne!(b.read(2), 0, "there is no enhanced feature register");
    }
    b.write(LINE_CONTROL, 0x80);
    b.write(FIFO_CONTROL, 0x21);
    assert_eq!(b.read(INTERRUPT_ID) >> 5, 6, "the FIFO has 16 bytes, not 64");
    b.write(LINE_CONTROL, 0);
    b.write(MODEM_CONTROL, 0xFF);
    assert_eq!(b.read(MODEM_CONTROL), 0x1F);
}

#[test]
fn the_divisor_latch_hides_data_and_enables() {
    let b = bench();
    b.write(LINE_CONTROL, 0x83);
    assert_eq!((b.read(0), b.read(1)), (12, 0));
    b.write(0, 1);
    b.write(1, 2);
    assert_eq!((b.read(0), b.read(1)), (1, 2));
    b.write(LINE_CONTROL, 0x03);
    assert_eq!(b.read(INTERRUPT_ENABLE), 0);
    assert!(b.console.take_output().is_empty());
}

#[test]
fn clearing_the_fifo_makes_room() {
    let b = bench().opened();
    b.type_in(&[1; 20]);
    b.write(FIFO_CONTROL, 0x83);
    let bytes: Vec<u8> = (0..5).map(|_| b.read(DATA)).collect();
    assert_eq!(bytes, [1, 1, 1, 1, 0]);
}

#[test]
fn a_restored_port_goes_on() {
    let b = bench().opened();
    b.write(INTERRUPT_ENABLE, 1);
    b.type_in(b"ab");
    let other = bench();
    other.uart.restore(through_json(&b.uart.save()));
    assert!(other.line.asserted());
    assert_eq!((other.read(DATA), other.read(DATA)), (b'a', b'b'));
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in prop::collection::vec((0u8..4, 0u16..9, any::<u8>()), 0..200)
    ) {
        let b = bench();
        for (what, offset, value) in steps {
            match what {
                0 => drop(b.uart.read_byte(0x3F8 + offset)),
                1 | 2 => drop(b.uart.write_byte(0x3F8 + offset, value)),
                _ => b.type_in(&[value; 21]),
            }
            prop_assert!(b.uart.save().interrupts() == b.line.asserted());
        }
    }
}
