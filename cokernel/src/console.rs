// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console stream on the first serial port.
//!
//! Received bytes stay in the UART until they are read: when its FIFO is full, the peer is
//! held back by the line (or by the emulator), so that none is lost.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use raw_cpuid::CpuId;

use crate::{acpi::Madt, apic::io, interrupts, irq_lock::IrqLock, logger, serial::Uart};

/// COM1.
const CONSOLE_PORT: u16 = 0x3F8;
const CONSOLE_IRQ: u8 = 4;
/// Looks at the lock before the machine ends all the same.
const FLUSH_LOCK_ATTEMPTS: u32 = 1_000_000;

/// Called when bytes have arrived, by the interrupt handler: it neither waits nor allocates, nor
/// uses the console.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

struct State {
    uart: Option<Uart>,
    listener: Option<Listener>,
    /// Arriving bytes interrupt.
    is_connected: bool,
}

/// The stream.
pub struct Console {
    state: IrqLock<State>,
    /// The port is there.
    is_present: AtomicBool,
    /// False while the receive interrupt is awaited, so that there is nothing to look for.
    may_have_input: AtomicBool,
}

static CONSOLE: Console = Console {
    state: IrqLock::new(State { uart: None, listener: None, is_connected: false }),
    is_present: AtomicBool::new(false),
    may_have_input: AtomicBool::new(true),
};

/// The console, if the machine has a first serial port.
pub fn console() -> Option<&'static Console> {
    CONSOLE.is_present.load(Ordering::Acquire).then_some(&CONSOLE)
}

impl Console {
    /// Sends bytes; returns when the hardware has taken them all.
    pub fn write(&self, bytes: &[u8]) {
        // In bursts, so that a long write neither holds up input nor keeps interrupts off.
        for burst in bytes.chunks(64) {
            if let Some(uart) = &mut self.state.lock().uart {
                uart.write(burst);
            }
        }
    }

    /// Takes up to `buffer.len()` bytes that have arrived, without waiting; returns how many.
    /// Fewer than asked for means that nothing is left; the next byte notifies again.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        if !self.may_have_input.load(Ordering::Relaxed) {
            return 0;
        }
        let mut state = self.state.lock();
        let notify = state.listener.is_some() && state.is_connected;
        let Some(uart) = &mut state.uart else { return 0 };
        for (count, slot) in buffer.iter_mut().enumerate() {
            let Some(byte) = uart.read_byte() else {
                // A byte that arrives between the two lines interrupts, too: the condition is
                // a level inside the UART.
                self.may_have_input.store(!notify, Ordering::Relaxed);
                uart.set_receive_interrupt(notify);
                return count;
            };
            *slot = byte;
        }
        buffer.len()
    }

    /// Calls `listener` when bytes arrive; `None` stops that. After a call there is no other
    /// one before [`Console::read`] has found nothing left.
    pub fn notify(&self, listener: Option<Listener>) {
        let mut state = self.state.lock();
        let wanted = listener.is_some();
        let former = core::mem::replace(&mut state.listener, listener);
        self.may_have_input.store(true, Ordering::Relaxed);
        if let Some(uart) = &mut state.uart {
            uart.set_receive_interrupt(wanted);
        }
        drop(state);
        // What it holds goes back with interrupts on.
        drop(former);
    }

    /// Masks the interrupt, which would come again until the FIFO is empty, and tells.
    fn received(&self) {
        let mut state = self.state.lock();
        self.may_have_input.store(true, Ordering::Relaxed);
        if let Some(uart) = &mut state.uart {
            uart.set_receive_interrupt(false);
        }
        if let Some(listener) = &state.listener {
            listener();
        }
    }
}

/// Waits until everything written has left the serial port, unless another CPU is writing.
pub(crate) fn flush() {
    if let Some(mut state) = CONSOLE.state.lock_within(FLUSH_LOCK_ATTEMPTS)
        && let Some(uart) = &mut state.uart
    {
        uart.flush();
    }
}

/// Finds the port and connects its interrupt.
pub(crate) fn init(madt: &Madt) {
    // An emulator holds its input back until the receiver is empty, also before the machine has
    // started; switching the FIFOs would lose such a byte. On a wire there is no holding back,
    // and the FIFO gives 16 characters of time.
    let hypervisor = CpuId::new().get_feature_info().is_some_and(|f| f.has_hypervisor());
    let on_wire = !hypervisor && !logger::has_debug_port();
    let Some(uart) = Uart::probe(CONSOLE_PORT, on_wire) else {
        log::warn!("no serial port at {CONSOLE_PORT:#x}: there is no console");
        return;
    };
    CONSOLE.state.lock().uart = Some(uart);
    CONSOLE.is_present.store(true, Ordering::Release);
    let connected = interrupts::allocate(|| CONSOLE.received())
        .is_some_and(|vector| io::route(&madt.isa_line(CONSOLE_IRQ), vector));
    CONSOLE.state.lock().is_connected = connected;
    if !connected {
        log::warn!("the console's interrupt cannot be delivered: input will not wake CPUs");
    }
}
