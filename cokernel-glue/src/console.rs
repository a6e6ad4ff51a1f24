// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a guest's first serial port leads.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use host_iface::{Host, HostConsole};
use vmm_devices::{CharBackend, LogConsole};
use wire::{GuestConsole, VmDescription};

use crate::host::COKERNEL;

/// A guest's console, which notes when the guest wrote its first byte.
pub struct TimedConsole {
    sink: Sink,
    first_byte: AtomicU64,
}

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
        Arc::new(Self { sink, first_byte: AtomicU64::new(0) })
    }

    /// The host's stream, if the console leads there.
    pub fn stream(&self) -> Option<&'static dyn HostConsole> {
        match &self.sink {
            Sink::Serial(console) => Some(*console),
            Sink::Log(_) => None,
        }
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
        match &self.sink {
            Sink::Serial(console) => console.read(buffer),
            Sink::Log(log) => log.read(buffer),
        }
    }
}
