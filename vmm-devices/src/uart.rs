// SPDX-License-Identifier: MIT OR Apache-2.0
//! A 16550A serial port.

mod registers;
mod state;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::ops::RangeInclusive;

use spin::Mutex;
use vmm_core::{HostEventClient, IrqLine};

use crate::{
    CharBackend, PortRange,
    byte_ports::{BytePorts, port_range},
    output_line::OutputLine,
};
use registers::FIFO_BYTES;
pub use state::UartState;

/// A 16550A serial port (National Semiconductor PC16550D data sheet, 1995) whose far end is
/// a [`CharBackend`].
///
/// - What is sent reaches the far end before the write to the port returns; the transmitter
///   is always empty.
/// - What arrives is taken from the far end only as far as the FIFO has room, and only while
///   the guest asserts RTS, as a peer with hardware flow control does. The rest stays there,
///   so nothing is lost, nor while no driver has opened the port yet.
/// - The line has no bit rate, so the four character times of silence after which the data
///   sheet reports bytes below the trigger level have passed as soon as bytes are there. No
///   timer is involved.
/// - As on a PC, the modem control bit OUT2 connects the interrupt output to the line.
///
/// Locks are taken in the order serial port, interrupt controllers, and serial port, far end.
pub struct Uart {
    base: u16,
    inner: Mutex<Inner>,
    backend: Option<Arc<dyn CharBackend>>,
}

struct Inner {
    state: UartState,
    output: OutputLine,
    /// The far end may have bytes that were not taken. It announces new ones by a host event.
    backlog: bool,
}

impl Uart {
    /// Base ports of COM1 to COM4, whose interrupts are IRQ 4, 3, 4 and 3.
    pub const COM_PORTS: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
    /// Number of ports from the base.
    pub const PORT_COUNT: u16 = 8;

    /// A serial port with registers at `base` up to `base + 7`. Without a `backend`, what is
    /// sent is dropped and nothing arrives.
    pub fn new(base: u16, irq: IrqLine, backend: Option<Arc<dyn CharBackend>>) -> Arc<Self> {
        let inner =
            Inner { state: UartState::default(), output: OutputLine::new(irq), backlog: true };
        Arc::new(Self { base, inner: Mutex::new(inner), backend })
    }

    /// The ports to claim.
    pub fn ports(self: &Arc<Self>) -> PortRange {
        let ports: RangeInclusive<u16> = self.base..=self.base.saturating_add(Self::PORT_COUNT - 1);
        port_range(self, &ports)
    }

    /// Takes the state out.
    pub fn save(&self) -> UartState {
        self.inner.lock().state.clone()
    }

    /// Puts a state back.
    pub fn restore(&self, state: UartState) {
        let mut inner = self.inner.lock();
        inner.state = state.within_limits();
        inner.backlog = true;
        self.settle(&mut inner);
    }

    /// Refills the receiver and drives the interrupt line.
    fn settle(&self, inner: &mut Inner) {
        if inner.backlog {
            self.refill(inner);
        }
        inner.output.set(inner.state.interrupts());
    }

    /// Takes waiting bytes from the far end; false if there are none. Only an empty receiver is
    /// refilled, so that the far end is asked once per FIFO rather than once per byte.
    fn refill(&self, inner: &mut Inner) -> bool {
        let Some(backend) = &self.backend else { return false };
        let room = inner.state.receiver_room();
        let mut bytes = [0; FIFO_BYTES];
        let Some(wanted) = bytes.get_mut(..room).filter(|b| !b.is_empty()) else { return false };
        let count = backend.read(wanted).min(room);
        inner.backlog = count == room;
        bytes.iter().take(count).for_each(|&byte| inner.state.receive(byte));
        count > 0
    }
}

impl HostEventClient for Uart {
    fn host_event(&self) {
        let mut inner = self.inner.lock();
        inner.backlog = true;
        // It comes with every interrupt of the host, and mostly for nothing.
        if self.refill(&mut inner) {
            let interrupts = inner.state.interrupts();
            inner.output.set(interrupts);
        }
    }
}

impl BytePorts for Uart {
    fn name(&self) -> &str {
        "uart"
    }

    fn read_byte(&self, port: u16) -> Option<u8> {
        let offset = port.checked_sub(self.base)?;
        let mut inner = self.inner.lock();
        let value = inner.state.read(offset);
        self.settle(&mut inner);
        value
    }

    fn write_byte(&self, port: u16, value: u8) -> bool {
        let Some(offset) = port.checked_sub(self.base).filter(|&o| o < Self::PORT_COUNT) else {
            return false;
        };
        let mut inner = self.inner.lock();
        let sent = inner.state.write(offset, value);
        if let (Some(byte), Some(backend)) = (sent, &self.backend) {
            backend.write(&[byte]);
        }
        self.settle(&mut inner);
        true
    }
}
