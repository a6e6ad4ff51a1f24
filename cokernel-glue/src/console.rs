// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a guest's first serial port leads.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use host_iface::{Host, HostConsole};
use vmm_devices::{CharBackend, LogConsole};
use wire::{GuestConsole, VmDescription};

use crate::host::COKERNEL;

/// A guest's console, which notes when the guest wrote its first byte, and to which the co-kernel
/// itself can say something.
pub struct TimedConsole {
    sink: Sink,
    first_byte: AtomicU64,
    /// A byte from the co-kernel that has not been read, with [`FROM_HOST`]; or 0.
    from_host: AtomicU16,
}

/// Tells a byte that is there, zero too, from none.
const FROM_HOST: u16 = 0x100;

enum Sink {
    Serial(&'static dyn HostConsole),
    Log(LogConsole),
}

impl TimedConsole {
    /// The console that `description` asks for. A machine without a serial port logs instead.
    pub fn new(description: &VmDescription) -> Arc<Self> {
        let serial = COKERNEL.console(0).filter(|_| description.console == GuestConsole::Serial);
        let sink = match serial {
            Some(console) => Sink::Serial(console),
            None => Sink::Log(LogConsole::new(&description.name)),
        };
        Arc::new(Self { sink, first_byte: AtomicU64::new(0), from_host: AtomicU16::new(0) })
    }

    /// The host's stream, if the console leads there.
    pub fn stream(&self) -> Option<&'static dyn HostConsole> {
        match &self.sink {
            Sink::Serial(console) => Some(*console),
            Sink::Log(_) => None,
        }
    }

    /// Has the guest read `byte` next.
    pub fn send(&self, byte: u8) {
        self.from_host.store(FROM_HOST | u16::from(byte), Ordering::Release);
    }

    /// TSC when the first byte was written.
    pub fn first_byte(&self) -> Option<u64> {
        Some(self.first_byte.load(Ordering::Relaxed)).filter(|&tsc| tsc != 0)
    }
}

impl CharBackend for TimedConsole {
    fn write(&self, bytes: &[u8]) {
        if self.first_byte.load(Ordering::Relaxed) == 0 {
            self.first_byte.store(COKERNEL.tsc().0, Ordering::Relaxed);
        }
        match &self.sink {
            Sink::Serial(console) => console.write(bytes),
            Sink::Log(log) => log.write(bytes),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> usize {
        if self.from_host.load(Ordering::Relaxed) != 0
            && let Some(first) = buffer.first_mut()
        {
            *first = self.from_host.swap(0, Ordering::Acquire) as u8;
            return 1;
        }
        match &self.sink {
            Sink::Serial(console) => console.read(buffer),
            Sink::Log(log) => log.read(buffer),
        }
    }
}
