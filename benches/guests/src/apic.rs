// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local APIC registers in a mode that the caller knows, so that an access is one access.
//!
//! The runtime's own accessors look first which mode the APIC is in, which may cost an exit.

use core::ptr;

use bare_metal::rt::apic::{ICR_LOW, LAPIC};
use bare_metal::rt::cpu;

const MSR_X2APIC: u32 = 0x800;

/// The register by which a CPU sends itself an interrupt (x2APIC only).
pub const SELF_IPI: u32 = 0x3F0;

/// Which way the registers are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By memory.
    Xapic,
    /// By MSRs.
    X2apic,
}

impl Mode {
    /// Reads the register at `offset`.
    #[inline(always)]
    pub fn read(self, offset: u32) -> u32 {
        match self {
            // SAFETY: the page is the APIC's and identity-mapped.
            Self::Xapic => unsafe { ptr::read_volatile((LAPIC + u64::from(offset)) as *const u32) },
            Self::X2apic => cpu::rdmsr(MSR_X2APIC + (offset >> 4)) as u32,
        }
    }

    /// Writes the register at `offset`.
    #[inline(always)]
    pub fn write(self, offset: u32, value: u32) {
        match self {
            // SAFETY: the page is the APIC's and identity-mapped.
            Self::Xapic => unsafe {
                ptr::write_volatile((LAPIC + u64::from(offset)) as *mut u32, value);
            },
            // SAFETY: APIC registers do not change how memory is seen.
            Self::X2apic => unsafe {
                cpu::wrmsr(MSR_X2APIC + (offset >> 4), u64::from(value));
            },
        }
    }

    /// Sends the interrupt that `low`, the command register's low half, describes (x2APIC only,
    /// where that is one write).
    #[inline(always)]
    pub fn command(self, target: u32, low: u32) {
        let value = u64::from(target) << 32 | u64::from(low);
        // SAFETY: the receivers' handlers keep all registers.
        unsafe { cpu::wrmsr(MSR_X2APIC + (ICR_LOW >> 4), value) };
    }
}
