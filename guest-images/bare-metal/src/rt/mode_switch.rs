// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembly for the ways between long mode and the other modes.
//!
//! Every block of assembly that uses the macros begins with `mode_macros!`: it cannot be relied
//! on that one block sees what another one defines.

/// Where guests put code for 16 bits; the macros for real mode reckon with it.
pub const LOW_CODE: u64 = 0x8000;

/// Assembler macros:
///
/// - `save_callee_registers`, `restore_callee_registers`: what a function of the C ABI keeps, and
///   the flags; interrupts are disabled in between.
/// - `load_flat_data`: data segments of protected and long mode.
/// - `leave_long_mode state, idt`: from 64-bit code to 32-bit code, with CR0, CR3 and CR4, 32 bits
///   each, from `state` and the IDT at `idt`.
/// - `enter_real_mode target, start`: from 16-bit protected mode on to `target`, which lies in the
///   code that begins with `start` and was copied to [`LOW_CODE`].
/// - `load_real_idt pointer, start`: in real mode, from there, too.
/// - `leave_real_mode target`: to 32-bit code, with the flat descriptors in the table.
macro_rules! mode_macros {
    () => {
        r#"
    .ifndef mode_macros_are_there
    .set mode_macros_are_there, 1

    .macro save_callee_registers
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    .endm

    .macro restore_callee_registers
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    .endm

    .macro load_flat_data
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    .endm

    .macro leave_long_mode state, idt
    push 0x18
    lea rax, [rip + 9f]
    push rax
    retfq
9:
    .code32
    load_flat_data
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax                    # paging off: long mode is left
    mov ecx, 0xC0000080
    rdmsr
    and eax, 0xFFFFFEFF             # LME off
    wrmsr
    mov eax, [\state + 8]
    mov cr4, eax
    mov eax, [\state + 4]
    mov cr3, eax
    lidt [\idt]
    mov eax, [\state]
    mov cr0, eax
    .endm

    .macro enter_real_mode target, start
    mov eax, cr0
    and eax, 0x7FFFFFFE             # PG, too, wherever it is executed by mistake
    mov cr0, eax
    .byte 0xEA                      # JMP far
    .word 0x8000 + (\target - \start)
    .word 0
    .endm

    .macro load_real_idt pointer, start
    .byte 0x0F, 0x01, 0x1E          # LIDT
    .word 0x8000 + (\pointer - \start)
    .endm

    .macro leave_real_mode target
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA                # JMP far, of 32 bits
    .long \target
    .word 0x18
    .endm

    .endif
    "#
    };
}

pub(crate) use mode_macros;
