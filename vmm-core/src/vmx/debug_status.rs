// SPDX-License-Identifier: MIT OR Apache-2.0
//! DR6 of a vCPU.
//!
//! No VMCS field holds it. The host does not use it, so it stays in the register for as long
//! as the vCPU keeps the CPU.

use core::arch::asm;

use crate::state::dr6;

/// DR6: in the register of the CPU where the vCPU is loaded, or here.
pub struct DebugStatus {
    value: u64,
    is_loaded: bool,
}

impl DebugStatus {
    /// The value after reset.
    pub const fn new() -> Self {
        Self { value: dr6::FIXED, is_loaded: false }
    }

    /// The value.
    pub fn get(&self) -> u64 {
        if self.is_loaded { read() } else { self.value }
    }

    /// Sets the value; reserved bits are as the CPU wants them.
    pub fn set(&mut self, value: u64) {
        self.value = value;
        if self.is_loaded {
            write(value);
        }
    }

    /// Brings the value into the register of the calling CPU.
    pub fn load(&mut self) {
        write(self.value);
        self.is_loaded = true;
    }

    /// Takes the value out of the register of the calling CPU and resets that.
    pub fn put(&mut self) {
        self.value = read();
        write(dr6::FIXED);
        self.is_loaded = false;
    }
}

fn read() -> u64 {
    let value: u64;
    // SAFETY: reading DR6 has no effect while DR7.GD is clear, as it is in the host.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

fn write(value: u64) {
    // The upper half is reserved: writing a one to it faults.
    let value = value & 0xFFFF_FFFF;
    // SAFETY: DR6 is a record of what happened; nothing follows from its value.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}
