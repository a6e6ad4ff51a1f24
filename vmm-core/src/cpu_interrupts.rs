// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holding physical interrupts around a guest entry.

use core::arch::asm;

/// Holds maskable interrupts on this CPU.
pub fn disable() {
    // SAFETY: interrupts only come later; callers enable them again within a few instructions.
    unsafe { asm!("cli", options(nomem, nostack)) }
}

/// Lets maskable interrupts through again.
pub fn enable() {
    // SAFETY: callers were entered with interrupts enabled, so the host can take them here.
    unsafe { asm!("sti", options(nomem, nostack)) }
}
