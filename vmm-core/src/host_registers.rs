// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers of the host.

use core::arch::asm;

use x86::msr::wrmsr;

use crate::cpuid::host_cpuid;

/// Prediction commands (Intel SDM vol. 4; AMD APM vol. 2, 3.2.9).
const IA32_PRED_CMD: u32 = 0x49;

/// Keeps earlier branches from steering later indirect branches of the calling CPU.
///
/// # Safety
/// The CPU has IA32_PRED_CMD.
pub unsafe fn prediction_barrier() {
    const IBPB: u64 = 1;
    // SAFETY: the caller's promise; the write has no other effect.
    unsafe { wrmsr(IA32_PRED_CMD, IBPB) }
}

/// Status of machine checks (Intel SDM vol. 3, 16.3.1.2; AMD APM vol. 2, 9.3.1).
const IA32_MCG_STATUS: u32 = 0x17A;

/// Says that the calling CPU's machine check was dealt with. Until then MCG_STATUS.MCIP is set, and
/// with that the next one shuts the CPU down. What the banks say of it stays.
pub fn end_machine_check() {
    const MACHINE_CHECK_ARCHITECTURE: u32 = 1 << 14;
    if host_cpuid(1, 0).edx & MACHINE_CHECK_ARCHITECTURE != 0 {
        // SAFETY: CPUID shows that the register is there; zero says that no machine check is being
        // dealt with, which is so.
        unsafe { wrmsr(IA32_MCG_STATUS, 0) }
    }
}

/// CR0 of the calling CPU.
pub fn cr0() -> u64 {
    // SAFETY: reading CR0 has no effect.
    unsafe { x86::controlregs::cr0() }.bits() as u64
}

/// CR4 of the calling CPU.
pub fn cr4() -> u64 {
    // SAFETY: reading CR4 has no effect.
    unsafe { x86::controlregs::cr4() }.bits() as u64
}

/// Loads CR0.
///
/// # Safety
/// The value keeps paging and protection as they are.
pub unsafe fn write_cr0(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Loads CR4.
///
/// # Safety
/// The value keeps paging as it is and sets only bits that the CPU has.
pub unsafe fn write_cr4(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) }
}

/// Loads CR2.
///
/// # Safety
/// No page fault of the host is being handled on the calling CPU.
pub unsafe fn write_cr2(value: u64) {
    // SAFETY: the caller's promise; nothing else reads the register.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}
