// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flat image that is entered in real mode; it ends with triple fault unless segments and stack
//! are as promised.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(loader);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .entry, "ax", @progbits
    .code16
real_start:
    # CS, DS, ES and SS hold the 64 KiB block of the entry point; SP is zero.
    mov ax, cs
    cmp ax, 0x1000
    jne 2f
    mov dx, ds
    cmp ax, dx
    jne 2f
    mov dx, es
    cmp ax, dx
    jne 2f
    mov dx, ss
    cmp ax, dx
    jne 2f
    test sp, sp
    jnz 2f
    mov eax, cr0
    test al, 1
    jnz 2f
    pushf
    pop ax
    test ax, 0x200
    jnz 2f
    .byte 0x66, 0x0F, 0x01, 0x16    # LGDT with a 32-bit base
    .word real_gdt_pointer - real_start
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA                # far jump into 32-bit code
    .long real_start32
    .word 0x08
    # Something is not as promised: no way to say so but to stop everything.
2:  .byte 0x66, 0x0F, 0x01, 0x1E    # LIDT
    .word real_no_table - real_start
    int3
    .balign 8
real_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        # 0x08: 32-bit code
    .quad 0x00CF93000000FFFF        # 0x10: data
real_gdt_pointer:
    .word 23
    .long real_gdt
real_no_table:
    .word 0
    .long 0

    .code32
real_start32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    jmp boot32
    .code64
    "#
);
