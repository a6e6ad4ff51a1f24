// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leaves long mode for another mode, does the same work there, and comes back.
//!
//! Code for 16 bits and the results lie below 64 KiB, where every mode reaches them: results at
//! 0x7000, a stack below 0x7F00 and code at 0x8000.

use core::arch::global_asm;

use crate::rt::mode_switch::mode_macros;
use crate::rt::segments::KERNEL_CODE32;

/// Where the results are.
pub const RESULTS: u64 = 0x7000;

/// CR0 of protected mode, without and with paging.
pub const PROTECTED: u32 = 0x31;
pub const PAGING: u32 = 0x8000_0031;
/// Bits of CR4.
pub const PSE: u32 = 1 << 4;
pub const PAE: u32 = 1 << 5;

/// The mode to go to: entry point and control registers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Context {
    pub entry: u32,
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    /// Task register to load, or 0.
    pub task: u32,
}

/// A 32-bit interrupt gate; `kind` is 0x8E, or 0xEE for use by every privilege level.
pub fn gate32(target: usize, kind: u64) -> u64 {
    let target = target as u64;
    target & 0xFFFF | u64::from(KERNEL_CODE32) << 16 | kind << 40 | (target >> 16 & 0xFFFF) << 48
}

/// The gate that gives the mode up.
pub fn fault_gate() -> u64 {
    gate32(mode_fault32 as *const () as usize, 0x8E)
}

/// Page-directory pointers that map the first 4 GiB as long mode does.
pub fn identity_pointers() -> [u64; 4] {
    unsafe extern "C" {
        static boot_pd: [u64; 2048];
    }
    let directories = (&raw const boot_pd) as u64;
    [0, 1, 2, 3].map(|index| (directories + index * 0x1000) | 1)
}

/// Chooses the 256 gates that the other modes use.
///
/// # Safety
/// Complete tables must lie at `address`, below 4 GiB, whenever `mode_call` runs.
pub unsafe fn set_idt(address: u64) {
    // SAFETY: the operand of LIDT belongs to this module, and is read by `mode_call` only.
    unsafe {
        let pointer = (&raw mut mode_idt32).cast::<u8>();
        pointer.cast::<u16>().write_unaligned(0x7FF);
        pointer.add(2).cast::<u32>().write_unaligned(address as u32);
    }
}

unsafe extern "C" {
    static mut mode_idt32: [u8; 16];
    /// Runs `context.entry` in the mode that `context` describes; false if it ended by a fault.
    ///
    /// # Safety
    /// The low code must be in place, and the context must map this program where it is.
    pub fn mode_call(context: *const Context) -> u64;
    pub fn mode_work32();
    pub fn mode_work_enabled();
    pub fn mode_work16();
    pub fn mode_work_real();
    pub fn mode_work_v86();
    pub fn mode_timer32();
    pub fn mode_v86_done();
    pub fn mode_fault32();
    pub static mode_low_start: u8;
    pub static mode_low_end: u8;
    pub static mode_timer16: u8;
}

global_asm!(
    mode_macros!(),
    r#"
    # The work in every mode. EDI: results, ES:ESI: IOAPIC, ES:EBP: local APIC.
    .macro mode_work ioapic, lapic
    mov edi, 0x7000
    mov esi, \ioapic
    mov ebp, \lapic
    xor eax, eax
    cpuid
    mov [edi], eax
    mov [edi + 4], ebx
    mov dword ptr es:[esi], 1
    mov eax, es:[esi + 0x10]
    mov [edi + 12], eax
    mov dword ptr es:[ebp + 0x80], 0x20
    or dword ptr es:[ebp + 0x80], 0x40
    mov eax, es:[ebp + 0x80]
    mov [edi + 16], eax
    mov dword ptr es:[ebp + 0x80], 0
    .endm

    .macro mode_port
    mov dx, 0x3FF
    mov al, 0xA5
    out dx, al
    xor eax, eax
    in al, dx
    mov [edi + 8], eax
    .endm

    # What only privilege level 0 may do: RDMSR, and HLT until the timer.
    .macro mode_privileged
    mov ecx, 0x1B
    rdmsr
    mov [edi + 20], eax
    mov eax, [edi + 28]
    mov es:[ebp + 0x380], eax
    sti
    hlt
    cli
    .endm

    .text
    .code64
    .global mode_call
mode_call:
    save_callee_registers
    mov rax, cr4
    push rax
    sidt [mode_idt64]
    mov [mode_rsp], rsp
    mov ebx, edi
    leave_long_mode ebx + 4, mode_idt32
    mov eax, [ebx + 16]
    test eax, eax
    jz 3f
    ltr ax
3:
    mov dword ptr [mode_faulted], 0
    push ebp
    mov [mode_esp], esp
    call dword ptr [ebx]
mode_over:
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov eax, cr4
    and eax, 0xFFCFFFFF             # SMAP and SMEP off: long mode's tables are open to users
    mov cr4, eax
    call enter_long_mode_tables
    .byte 0xEA
    .long mode_back64
    .word 0x08

    # Any exception: gives the mode up.
    .global mode_fault32
mode_fault32:
    load_flat_data
    mov dword ptr [mode_faulted], 1
    mov esp, [mode_esp]
    jmp mode_over

    .global mode_timer32
mode_timer32:
    inc dword ptr ds:[0x7018]
    mov dword ptr ds:[0xFEE000B0], 0
    iretd

    .global mode_work32
mode_work32:
    push ebx
    push ebp
    mode_work 0xFEC00000, 0xFEE00000
    mode_port
    mode_privileged
    pop ebp
    pop ebx
    ret

    # With long mode enabled, but without paging and PAE not active.
    .global mode_work_enabled
mode_work_enabled:
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100
    wrmsr
    call mode_work32
    mov ecx, 0xC0000080
    rdmsr
    test eax, 0x100
    jnz 4f
    mov dword ptr [0x7000], 0       # the bit is gone: no result then
4:
    and eax, 0xFFFFFEFF
    wrmsr
    ret

    # 16-bit protected mode, by a far call.
    .global mode_work16
mode_work16:
    push ebx
    .byte 0x9A
    .long 0x8000 + (mode_low16 - mode_low_start)
    .word 0x20
    pop ebx
    ret

    # Real mode, by way of a 16-bit segment.
    .global mode_work_real
mode_work_real:
    push ebx
    mov [mode_real_esp], esp
    .byte 0xEA
    .long 0x8000 + (mode_low_leave - mode_low_start)
    .word 0x20
mode_real_back:
    load_flat_data
    mov esp, [mode_real_esp]
    lidt [mode_idt32]
    pop ebx
    ret

    # Virtual-8086 mode, by IRET; the code there ends with INT 0x80.
    .global mode_work_v86
mode_work_v86:
    push ebx
    mov [mode_real_esp], esp
    push 0
    push 0
    push 0
    push 0x9000                     # ES: the devices are mapped at its end
    push 0
    push 0x7E00
    push 0x00023002                 # VM, IOPL 3
    push 0
    .byte 0x68                      # PUSH imm32
    .long 0x8000 + (mode_low_v86 - mode_low_start)
    iretd
    .global mode_v86_done
mode_v86_done:
    load_flat_data
    mov esp, [mode_real_esp]
    pop ebx
    ret

    .code64
mode_back64:
    load_flat_data
    lidt [mode_idt64]
    mov rsp, [mode_rsp]
    pop rax
    mov cr4, rax
    restore_callee_registers
    mov eax, 1
    sub eax, [mode_faulted]
    ret

    .section .rodata.modes, "a", @progbits
    .balign 16
    .global mode_low_start
mode_low_start:
    .code16
mode_low16:
    mode_work 0xFEC00000, 0xFEE00000
    mode_port
    mode_privileged
    .byte 0x66, 0xCB                # far return of 32 bits

mode_low_leave:
    mov eax, 0x68
    mov ss, ax
    enter_real_mode mode_low_real, mode_low_start
mode_low_real:
    # DS and ES keep the limit of 4 GiB from protected mode.
    xor ax, ax
    mov ss, ax
    mov sp, 0x7E00
    mov ds, ax
    mov es, ax
    load_real_idt mode_low_ivt, mode_low_start
    mode_work 0xFEC00000, 0xFEE00000
    mode_port
    mode_privileged
    leave_real_mode mode_real_back
mode_low_ivt:
    .word 0x3FF
    .long 0
    .global mode_timer16
mode_timer16:
    mov dword ptr es:[ebp + 0xB0], 0
    inc dword ptr [edi + 24]
    iret

mode_low_v86:
    mode_work 0xF000, 0xE000
    cmp dword ptr [edi + 32], 0
    je 5f
    mode_port
5:
    int 0x80
    .global mode_low_end
mode_low_end:
    .code64

    .section .bss.modes, "aw", @nobits
    .balign 8
mode_rsp:
    .skip 8
mode_esp:
    .skip 8
mode_real_esp:
    .skip 8
mode_faulted:
    .skip 8
mode_idt64:
    .skip 16
    .global mode_idt32
mode_idt32:
    .skip 16
    .text
    "#,
);
