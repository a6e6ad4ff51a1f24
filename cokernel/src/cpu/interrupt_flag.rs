// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt flag of the executing CPU. On a host, where unit tests run, there is none.

/// Puts the interrupt flag back as it was when dropped.
pub struct Restore {
    was_enabled: bool,
}

/// Disables interrupts until the result is dropped.
pub fn disable() -> Restore {
    let was_enabled = is_enabled();
    clear();
    Restore { was_enabled }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.was_enabled {
            set();
        }
    }
}

/// True if interrupts are enabled.
#[cfg(target_os = "none")]
pub fn is_enabled() -> bool {
    let flags: u64;
    // SAFETY: reads RFLAGS through the stack, which the compiler is told about.
    unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & 1 << 9 != 0
}

/// Disables interrupts.
#[cfg(target_os = "none")]
pub fn clear() {
    // SAFETY: ring 0; delaying interrupts breaks no invariant.
    unsafe { core::arch::asm!("cli", options(nostack)) };
}

/// Enables interrupts.
#[cfg(target_os = "none")]
pub fn set() {
    // SAFETY: ring 0; called only once the IDT is loaded, and handlers are always ready to run.
    unsafe { core::arch::asm!("sti", options(nostack)) };
}

/// Enables interrupts and waits for one, with no moment between the two in which one could be
/// handled before the wait.
#[cfg(target_os = "none")]
pub fn set_and_halt() {
    // SAFETY: as `set`; STI delays interrupts by one instruction, up to HLT.
    unsafe { core::arch::asm!("sti", "hlt", options(nostack)) };
}

#[cfg(not(target_os = "none"))]
fn is_enabled() -> bool {
    false
}

#[cfg(not(target_os = "none"))]
fn clear() {}

#[cfg(not(target_os = "none"))]
fn set() {}
