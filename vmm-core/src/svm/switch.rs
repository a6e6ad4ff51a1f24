// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world switch.

use core::{arch::naked_asm, mem::offset_of};

use crate::switch_registers::{
    load_guest_registers, restore_callers_registers, save_callers_registers, store_guest_registers,
};

/// General-purpose registers that the control block does not hold, by encoding. The slots of
/// RAX and RSP, which it does hold, are unused.
#[repr(C)]
#[derive(Default)]
pub struct GuestRegisters {
    pub by_encoding: [u64; 16],
}

/// What the switch needs of the host: physical addresses of the guest's control block and of
/// the one that keeps the host's own VMLOAD state.
#[repr(C)]
pub struct SwitchContext {
    pub guest_vmcb: u64,
    pub host_vmcb: u64,
    pub registers: GuestRegisters,
}

const REGISTERS: usize = offset_of!(SwitchContext, registers);

const _: () = assert!(offset_of!(SwitchContext, host_vmcb) == 8);

/// Holds physical interrupts, until the guest was entered and left or they are
/// [let through](let_interrupts_through).
///
/// By GIF, and not by RFLAGS.IF: one that is pending or arrives then ends the entry at once,
/// because VMRUN finds RFLAGS.IF set (AMD APM vol. 2, 15.17 and 15.21.1).
///
/// # Safety
/// SVM is enabled on this CPU.
#[inline(always)]
pub unsafe fn hold_interrupts() {
    // SAFETY: the caller's promise; interrupts only come later.
    unsafe { core::arch::asm!("clgi", options(nostack, preserves_flags)) }
}

/// Lets physical interrupts through again.
///
/// # Safety
/// SVM is enabled on this CPU.
#[inline(always)]
pub unsafe fn let_interrupts_through() {
    // SAFETY: the caller's promise; the host could take interrupts before they were held.
    unsafe { core::arch::asm!("stgi", options(nostack, preserves_flags)) }
}

/// Runs the guest until it exits. Called while interrupts are [held](hold_interrupts), but RFLAGS.IF
/// is set; lets them through when the host's state is whole again.
///
/// # Safety
/// - Interrupts are held so.
/// - The calling CPU has SVM enabled with a host save area that no other CPU uses.
/// - Both addresses in `context` are those of valid control blocks that nobody else uses, and
///   `host_vmcb` was filled by VMSAVE on this CPU.
/// - The guest control block intercepts everything by which a guest could harm the host, and
///   its nested tables map only memory that belongs to the guest.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter_guest(context: *mut SwitchContext) {
    naked_asm!(
        save_callers_registers!(),
        "mov rax, [rdi]",
        load_guest_registers!(),
        "vmload rax",
        "vmrun rax",
        "vmsave rax",
        // RAX and RSP are the host's again; the context is on the stack.
        store_guest_registers!(),
        "mov rax, [rdi + 8]",
        "vmload rax",
        restore_callers_registers!(),
        "xor eax, eax",
        "stgi",
        "ret",
        registers = const REGISTERS,
    )
}

/// Saves the host state that VMLOAD restores into the control block at `vmcb`.
///
/// # Safety
/// SVM is enabled on this CPU, and `vmcb` is the physical address of a control block that
/// nobody else uses.
pub unsafe fn save_host_state(vmcb: u64) {
    // SAFETY: the caller's promises; VMSAVE writes to that block only.
    unsafe { core::arch::asm!("vmsave rax", in("rax") vmcb, options(nostack, preserves_flags)) }
}
