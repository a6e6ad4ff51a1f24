// SPDX-License-Identifier: MIT OR Apache-2.0
//! Breakpoint addresses of a vCPU.
//!
//! No vendor's control block holds DR0 to DR3. The host does not use them, so they stay in
//! the registers for as long as the vCPU keeps the CPU.

use core::arch::asm;

/// Breakpoint address `number`, 0 to 3, of the vCPU that is loaded on the calling CPU.
pub fn loaded_address(number: u8) -> u64 {
    let address: u64;
    // SAFETY: reading debug registers has no effect while DR7.GD is clear, as it is in the
    // host.
    unsafe {
        match number & 3 {
            0 => asm!("mov {}, dr0", out(reg) address, options(nomem, nostack, preserves_flags)),
            1 => asm!("mov {}, dr1", out(reg) address, options(nomem, nostack, preserves_flags)),
            2 => asm!("mov {}, dr2", out(reg) address, options(nomem, nostack, preserves_flags)),
            _ => asm!("mov {}, dr3", out(reg) address, options(nomem, nostack, preserves_flags)),
        }
    }
    address
}

/// Sets breakpoint address `number`, 0 to 3, of the vCPU that is loaded on the calling CPU.
pub fn set_loaded_address(number: u8, address: u64) {
    // SAFETY: breakpoint addresses have no effect while DR7 is clear, as it is in the host;
    // the guest's own DR7 comes and goes with it.
    unsafe {
        match number & 3 {
            0 => asm!("mov dr0, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            1 => asm!("mov dr1, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            2 => asm!("mov dr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            _ => asm!("mov dr3, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
        }
    }
}

/// DR0 to DR3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BreakpointAddresses([u64; 4]);

impl BreakpointAddresses {
    /// Brings the addresses into the registers of the calling CPU.
    pub fn load(&self) {
        let [dr0, dr1, dr2, dr3] = self.0;
        // SAFETY: breakpoint addresses have no effect while DR7 is clear, as it is in the
        // host; the guest's own DR7 comes and goes with it.
        unsafe {
            asm!("mov dr0, {}", in(reg) dr0, options(nomem, nostack, preserves_flags));
            asm!("mov dr1, {}", in(reg) dr1, options(nomem, nostack, preserves_flags));
            asm!("mov dr2, {}", in(reg) dr2, options(nomem, nostack, preserves_flags));
            asm!("mov dr3, {}", in(reg) dr3, options(nomem, nostack, preserves_flags));
        }
    }

    /// Takes the addresses out of the registers of the calling CPU and clears those.
    pub fn put(&mut self) {
        let [dr0, dr1, dr2, dr3] = &mut self.0;
        // SAFETY: reading debug registers has no effect while DR7.GD is clear, as it is in
        // the host.
        unsafe {
            asm!("mov {}, dr0", out(reg) * dr0, options(nomem, nostack, preserves_flags));
            asm!("mov {}, dr1", out(reg) * dr1, options(nomem, nostack, preserves_flags));
            asm!("mov {}, dr2", out(reg) * dr2, options(nomem, nostack, preserves_flags));
            asm!("mov {}, dr3", out(reg) * dr3, options(nomem, nostack, preserves_flags));
        }
        Self::default().load();
    }
}
