// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world switch.

use core::{arch::naked_asm, mem::offset_of};

use x86::vmx::vmcs::host;

use crate::switch_registers::{
    load_guest_registers, restore_callers_registers, save_callers_registers, store_guest_registers,
};

/// What the switch exchanges with the rest: general-purpose registers by encoding, without
/// RSP, whose slot is unused, and CR2, which the VMCS does not hold either.
#[repr(C)]
#[derive(Default)]
pub struct SwitchContext {
    pub registers: [u64; 16],
    pub cr2: u64,
    /// What the host-RSP field holds; zero if that is not known.
    pub host_rsp: u64,
    /// VMWRITEs of that field.
    pub accesses: u64,
}

const REGISTERS: usize = offset_of!(SwitchContext, registers);
const CR2: usize = offset_of!(SwitchContext, cr2);
const HOST_RSP: usize = offset_of!(SwitchContext, host_rsp);
const ACCESSES: usize = offset_of!(SwitchContext, accesses);

/// How an attempt to enter the guest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There was an exit, if only from loading the guest's state.
    Exited,
    /// The instruction failed, and the VMCS says why.
    Refused,
    /// The instruction failed for lack of a current VMCS.
    NoVmcs,
}

/// Runs the guest until it exits.
///
/// # Safety
/// - Interrupts are disabled, and stay so.
/// - The calling CPU is in VMX operation, and the current VMCS has all fields that its
///   controls ask for: the host's are those of this CPU, with [`guest_exited`] as host RIP,
///   and the guest's keep it from everything by which it could harm the host.
/// - `resume` is true if the VMCS was launched since it became current.
pub unsafe fn enter(context: &mut SwitchContext, resume: bool) -> Outcome {
    // SAFETY: the caller's promises.
    match unsafe { enter_guest(context, resume.into()) } {
        0 => Outcome::Exited,
        1 => Outcome::Refused,
        _ => Outcome::NoVmcs,
    }
}

/// Returns 0 after an exit, 1 for VMfailValid, 2 for VMfailInvalid.
///
/// # Safety
/// As for [`enter`].
#[unsafe(naked)]
unsafe extern "sysv64" fn enter_guest(context: *mut SwitchContext, resume: u64) -> u64 {
    naked_asm!(
        save_callers_registers!(),
        "cmp rsp, [rdi + {host_rsp}]",
        "je 2f",
        "mov [rdi + {host_rsp}], rsp",
        "mov eax, {host_rsp_field}",
        "vmwrite rax, rsp",
        "inc qword ptr [rdi + {accesses}]",
        "2:",
        "mov rax, [rdi + {cr2}]",
        "mov rcx, cr2",
        "cmp rax, rcx",
        "je 3f",
        "mov cr2, rax",
        "3:",
        // No instruction between this and its jump changes the flags.
        "test rsi, rsi",
        "mov rax, [rdi + {registers}]",
        load_guest_registers!(),
        "jnz 4f",
        "vmlaunch",
        "jmp 5f",
        "4:",
        "vmresume",
        "5:",
        // Still here: the guest's registers are unchanged in the context. VMfailValid sets
        // ZF, VMfailInvalid sets CF.
        "mov eax, 1",
        "mov ecx, 2",
        "cmovc eax, ecx",
        "pop rdi",
        "jmp {leave}",
        host_rsp = const HOST_RSP,
        host_rsp_field = const host::RSP,
        accesses = const ACCESSES,
        registers = const REGISTERS,
        cr2 = const CR2,
        leave = sym leave,
    )
}

/// Where the CPU goes on in the host after an exit, on the stack that [`enter_guest`] left.
///
/// # Safety
/// Reached by an exit only.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn guest_exited() {
    naked_asm!(
        store_guest_registers!(),
        "mov [rdi + {registers}], rax",
        "mov rax, cr2",
        "mov [rdi + {cr2}], rax",
        "xor eax, eax",
        "jmp {leave}",
        registers = const REGISTERS,
        cr2 = const CR2,
        leave = sym leave,
    )
}

/// The common end: the registers of [`enter_guest`]'s caller, its result in RAX.
///
/// # Safety
/// Reached from the two functions above only.
#[unsafe(naked)]
unsafe extern "sysv64" fn leave() {
    naked_asm!(restore_callers_registers!(), "ret")
}

/// What the host-RIP field has to hold.
pub fn host_rip() -> u64 {
    guest_exited as *const () as u64
}
