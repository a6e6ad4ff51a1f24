// SPDX-License-Identifier: MIT OR Apache-2.0
//! The TSC_AUX register of a vCPU.
//!
//! No vendor's control block holds what RDTSCP and RDPID read. It stays in the register for as
//! long as the vCPU keeps the CPU, so the guest reads it without exits.

use x86::msr::{IA32_TSC_AUX, rdmsr, wrmsr};

/// TSC_AUX (AMD APM vol. 2, 3.2.6; Intel SDM vol. 3, 18.17.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscAux {
    /// The guest may execute RDTSCP, so the register exists.
    exists: bool,
    guest: u32,
    /// The host's value, while the guest's is in the register.
    host: Option<u64>,
}

impl TscAux {
    /// As after reset. Without RDTSCP, which `exists` tells, the register is never touched.
    pub const fn new(exists: bool) -> Self {
        Self { exists, guest: 0, host: None }
    }

    /// Brings the guest's value into the register of the calling CPU.
    pub fn load(&mut self) {
        if self.exists {
            // SAFETY: the register exists. The host gets its own value back in `put`, before
            // it runs anything but this vCPU.
            unsafe {
                self.host = Some(rdmsr(IA32_TSC_AUX));
                wrmsr(IA32_TSC_AUX, self.guest.into());
            }
        }
    }

    /// Brings the host's value back.
    pub fn put(&mut self) {
        if let Some(host) = self.host.take() {
            // SAFETY: the value was in the register when the vCPU came.
            unsafe { wrmsr(IA32_TSC_AUX, host) }
        }
    }

    /// The guest's value.
    pub const fn get(&self) -> u32 {
        self.guest
    }

    /// Sets the guest's value.
    pub fn set(&mut self, value: u32) {
        self.guest = value;
        if self.host.is_some() {
            // SAFETY: the register exists, or `load` would not have read the host's value.
            unsafe { wrmsr(IA32_TSC_AUX, value.into()) }
        }
    }
}
