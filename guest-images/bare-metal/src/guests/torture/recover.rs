// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into any mode, and back from it by whatever exception or interrupt comes first.
//!
//! The way back trusts nothing but the code and tables here: it loads descriptors, control
//! registers and page tables again before it uses memory. What it cannot mend, such as page
//! tables that do not map it, ends in a triple fault, and so does the VM.

use core::arch::global_asm;

use crate::rt::mode_switch::mode_macros;
use crate::rt::segments::SLOTS;

/// Where general-purpose registers (in POPAD's order) and the frame for IRET are laid out for
/// modes of 32 and 16 bits: at the end of the memory of random instructions, whose stack it is.
pub const BLOCK: u64 = 0xEE00;
/// What has no vector: an exception or interrupt in real mode.
pub const REAL_MODE: u32 = 0x100;

/// The mode to go to from long mode.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mode {
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    /// Whether it is real mode.
    pub real: u32,
    /// Selector for DS and ES; real mode has zero.
    pub data: u32,
}

unsafe extern "C" {
    /// Calls `function(data)`; returns when that does, or is ended by whatever comes.
    pub fn torture_call(function: extern "C" fn(*mut u8), data: *mut u8);
    /// Goes on with `torture_frame` and `torture_registers` in 64-bit or compatibility mode.
    pub fn torture_enter64() -> !;
    /// Goes on in `torture_mode` with what is at [`BLOCK`].
    pub fn torture_enter32() -> !;

    /// RAX, RCX, RDX, RBX, RSP (not used), RBP, RSI, RDI, R8 to R15.
    pub static mut torture_registers: [u64; 16];
    /// RIP, CS, RFLAGS, RSP, SS.
    pub static mut torture_frame: [u64; 5];
    pub static mut torture_mode: Mode;
    /// Vector by which it came back last, or [`REAL_MODE`].
    pub static mut torture_vector: u32;
    pub static mut torture_gdt: [u64; SLOTS];
    /// What `torture_gdt` is to be when nothing has happened.
    pub static mut torture_pristine: [u64; SLOTS];
    pub static mut torture_idt: [[u64; 2]; 256];
    pub static mut torture_idt32: [u64; 256];
    pub static torture_stubs64: [[u8; 8]; 256];
    pub static torture_stubs32: [[u8; 8]; 256];
    pub static torture_stack: u8;
    pub static torture_low_start: u8;
    pub static torture_low_end: u8;
    /// Where interrupts of real mode go to, in the low code.
    pub static torture_low_entry: u8;
    pub fn torture_double_fault();
}

global_asm!(
    mode_macros!(),
    r#"
    .set torture_block, 0xEE00

    # Has the 8254, whose NMI would meet half a way back, wait for another count (mode 0).
    .macro hold_back_nmi
    mov al, 0x30
    out 0x43, al
    .endm

    .text
    .code64
    .global torture_call
torture_call:
    save_callee_registers
    mov [torture_rsp], rsp
    mov rax, rdi
    mov rdi, rsi
    call rax
torture_resume:
    restore_callee_registers
    ret

    .global torture_enter64
torture_enter64:
    mov eax, 0x33
    mov ds, eax
    mov es, eax
    mov rsp, offset torture_frame
    mov rax, [torture_registers]
    mov rcx, [torture_registers + 0x08]
    mov rdx, [torture_registers + 0x10]
    mov rbx, [torture_registers + 0x18]
    mov rbp, [torture_registers + 0x28]
    mov rsi, [torture_registers + 0x30]
    mov rdi, [torture_registers + 0x38]
    mov r8, [torture_registers + 0x40]
    mov r9, [torture_registers + 0x48]
    mov r10, [torture_registers + 0x50]
    mov r11, [torture_registers + 0x58]
    mov r12, [torture_registers + 0x60]
    mov r13, [torture_registers + 0x68]
    mov r14, [torture_registers + 0x70]
    mov r15, [torture_registers + 0x78]
    iretq

    .global torture_enter32
torture_enter32:
    leave_long_mode torture_mode, torture_idt32_pointer
    mov eax, 0x60
    ltr ax
    cmp dword ptr [torture_mode + 12], 0
    jne 3f
    mov eax, [torture_mode + 16]
    mov ds, eax
    mov es, eax
    mov esp, torture_block
    popad
    iretd
3:
    .byte 0xEA
    .long 0x8000 + (torture_low_leave - torture_low_start)
    .word 0x20

    # The way back from modes of 32 bits, by a gate: the return address tells the vector.
torture_entry32:
    pop ebx
    sub ebx, offset torture_stubs32
    shr ebx, 3
torture_leave32:
    hold_back_nmi
    lgdt cs:[torture_pristine_pointer]
    load_flat_data
    mov esp, offset torture_stack
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    xor eax, eax
    mov cr4, eax
    call enter_long_mode_tables
    .byte 0xEA
    .long torture_join64
    .word 0x08

    # By the task gate of double faults, which brings a stack.
    .global torture_double_fault
torture_double_fault:
    mov ebx, 8
    jmp torture_leave32

    # From real mode, with the descriptors at hand.
torture_back32:
    mov ebx, 0x100
    jmp torture_leave32

    .code64
torture_entry64:
    pop rbx
    sub ebx, offset torture_stubs64
    shr ebx, 3
    hold_back_nmi
torture_join64:
    mov eax, 0x620                  # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, rax
    mov eax, 0x80010033             # PG, WP, NE, ET, MP, PE
    mov cr0, rax
    mov eax, offset boot_pml4
    mov cr3, rax
    cld
    mov rsp, offset torture_stack
    mov [torture_vector], ebx
    mov esi, offset torture_pristine
    mov edi, offset torture_gdt
    mov ecx, 16
    rep movsq
    lgdt [torture_gdt_pointer]
    lidt [torture_idt_pointer]
    xor eax, eax
    lldt ax
    mov fs, eax
    mov gs, eax
    mov cr8, rax
    mov dr6, rax
    mov eax, 0x400
    mov dr7, rax
    load_flat_data
    mov eax, 0x50
    ltr ax
    mov ecx, 0xC0000080
    mov eax, 0xD00                  # NXE, LMA, LME
    xor edx, edx
    wrmsr
    # NMIs may come again, as if this were the end of a handler.
    mov ecx, ss
    push rcx
    push [torture_rsp]
    push 2
    push 0x08
    push offset torture_resume
    iretq

    .balign 16
    .global torture_stubs64
torture_stubs64:
    .rept 256
    call torture_entry64
    .balign 8
    .endr

    .code32
    .global torture_stubs32
torture_stubs32:
    .rept 256
    call torture_entry32
    .balign 8
    .endr
    .code64

    .section .rodata.torture, "a", @progbits
    .balign 16
    .global torture_low_start
torture_low_start:
    .code16
torture_low_leave:
    mov eax, 0x68
    mov ds, ax
    mov es, ax
    mov ss, ax
    enter_real_mode torture_low_real, torture_low_start
torture_low_real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    load_real_idt torture_low_vectors, torture_low_start
    mov esp, torture_block
    popad
    iret

    .global torture_low_entry
torture_low_entry:
    cli
    hold_back_nmi
    .byte 0x2E, 0x66, 0x0F, 0x01, 0x16  # LGDT CS:
    .word 0x8000 + (torture_low_descriptors - torture_low_start)
    leave_real_mode torture_back32
torture_low_vectors:
    .word 0x3FF
    .long 0
torture_low_descriptors:
    .word 0x7F
    .long torture_pristine
    .global torture_low_end
torture_low_end:
    .code64

    .balign 8
torture_gdt_pointer:
    .word 0x7F
    .quad torture_gdt
    .balign 8
torture_pristine_pointer:
    .word 0x7F
    .quad torture_pristine
    .balign 8
torture_idt_pointer:
    .word 0xFFF
    .quad torture_idt
    .balign 8
torture_idt32_pointer:
    .word 0x7FF
    .quad torture_idt32

    .section .bss.torture, "aw", @nobits
    .balign 4096
    .global torture_pristine
torture_pristine:
    .skip 0x80
torture_rsp:
    .skip 8
    .global torture_vector
torture_vector:
    .skip 8
    .global torture_mode
torture_mode:
    .skip 32
    .global torture_registers
torture_registers:
    .skip 0x80
    .global torture_frame
torture_frame:
    .skip 40
    .balign 4096
    .skip 4096
    .global torture_stack
torture_stack:
    .balign 4096
    .global torture_gdt
torture_gdt:
    .skip 0x80
    .balign 4096
    .global torture_idt
torture_idt:
    .skip 4096
    .global torture_idt32
torture_idt32:
    .skip 4096
    .text
    "#,
);
