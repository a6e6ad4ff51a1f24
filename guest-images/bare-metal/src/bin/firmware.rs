// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware: from the reset vector to code in memory.
#![cfg_attr(target_os = "none", no_std, no_main)]

bare_metal::guest!(firmware);

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    # The last 4 KiB below 4 GiB, all of it in the 64 KiB that CS reaches after reset.
    .section .reset, "ax", @progbits
    .code16
reset_start:
    # DS is zero; what is there after reset goes to 0x600.
    mov [0x600], eax
    mov [0x604], edx
    mov eax, cr0
    mov [0x608], eax
    mov sp, 0x7000
    pushfd
    pop dword ptr [0x60C]
    xor eax, eax
    mov ax, cs
    mov [0x610], eax
    mov ax, ds
    mov bx, es
    or ax, bx
    mov bx, ss
    or ax, bx
    mov [0x614], eax
    # A line on COM1.
    .byte 0xBE                      # MOV SI
    .word 0xF000 + (reset_line - reset_start)
    mov dx, 0x3F8
1:  mov al, cs:[si]
    inc si
    test al, al
    jz 2f
    out dx, al
    jmp 1b
    # On in the copy below 1 MiB, where CS has the base that its selector says.
2:  .byte 0xEA
    .word 0xF000 + (reset_in_copy - reset_start)
    .word 0xF000
reset_in_copy:
    mov ax, cs
    movzx eax, ax
    mov [0x618], eax
    .byte 0x2E, 0x66, 0x0F, 0x01, 0x16    # LGDT CS:… with a 32-bit base
    .word 0xF000 + (reset_gdt_pointer - reset_start)
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA                # far jump into 32-bit code
    .long 0xFFFFF000 + (reset32 - reset_start)
    .word 0x08

    .balign 8
reset_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        # 0x08: 32-bit code, accessed: the ROM cannot be marked
    .quad 0x00CF93000000FFFF        # 0x10: data, likewise
reset_gdt_pointer:
    .word 23
    .long 0xFF000 + (reset_gdt - reset_start)
reset_line:
    .asciz "reset vector\n"

    .code32
reset32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    cld
    mov esi, offset rom_start
    mov edi, offset image_start
    mov ecx, offset rom_bytes
    rep movsb
    mov edi, offset image_load_end
    mov ecx, offset image_zero_bytes
    xor eax, eax
    rep stosb
    mov eax, 0x4D574346
    mov ebx, 0x600
    mov ecx, offset boot32
    jmp ecx
    .code64

    .section .reset_vector, "ax", @progbits
    .code16
    .byte 0xE9                      # near jump, by the distance within the segment
    .word 0xF000 - (0xFFF0 + 3)
    .skip 13, 0
    .code64
    "#
);
