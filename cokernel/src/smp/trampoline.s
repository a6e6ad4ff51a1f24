# SPDX-License-Identifier: MIT OR Apache-2.0
# What an application processor runs after its start-up IPI: from real mode to 64-bit Rust.
#
# The code between the two labels is copied to a page below 1 MiB; CS is that page. The
# fields at its end are filled in by `smp::start`. It goes straight from real to long mode
# (AMD64 APM volume 2, section 14.8; all of PE, PG, PAE and LME at once is permitted).

.section .rodata.trampoline, "a"
.balign 16
.global __trampoline_start
__trampoline_start:
.code16
    cli
    cld
    mov ax, cs
    mov ds, ax
    mov eax, 0x20                       # CR4.PAE
    mov cr4, eax
    mov eax, dword ptr [at_trampoline_cr3]
    mov cr3, eax
    mov ecx, 0xC0000080                 # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    lgdt [at_trampoline_gdt_pointer]
    mov eax, 0x80010011                 # PG, WP, ET, PE; caches on
    mov cr0, eax
    .byte 0x66, 0xFF, 0x2E              # ljmpl *far_pointer
    .short trampoline_far_pointer - __trampoline_start

.code64
trampoline_long:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    # Whoever takes the mailbox starts; a CPU that comes too late finds it empty and parks.
    xchg rax, qword ptr [rip + trampoline_mailbox]
    test rax, rax
    jz trampoline_park
    mov rdi, rax
    mov rsp, qword ptr [rip + trampoline_stack]
    mov rax, qword ptr [rip + trampoline_final_cr3]
    mov rdx, qword ptr [rip + trampoline_entry]
    xor ebp, ebp
    # The next instruction fetch is still from this page: the tables of the trampoline stay
    # loaded until the entry, in the upper half, loads the final ones from RSI.
    mov rsi, rax
    call rdx
    ud2
trampoline_park:
    cli
    hlt
    jmp trampoline_park

.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 64-bit code
trampoline_gdt_pointer:
    .short trampoline_gdt_pointer - trampoline_gdt - 1
    .long 0
.balign 8
.global __trampoline_fields
__trampoline_fields:
trampoline_mailbox:     .quad 0
trampoline_stack:       .quad 0
trampoline_final_cr3:   .quad 0
trampoline_entry:       .quad 0
trampoline_cr3:         .quad 0
trampoline_far_pointer: .long 0, 8
trampoline_gdt_base_offset:
    .quad trampoline_gdt - __trampoline_start
    .quad trampoline_gdt_pointer - __trampoline_start + 2
    .quad trampoline_long - __trampoline_start
.global __trampoline_end
__trampoline_end:
.code64

# Offsets from the page.
.set at_trampoline_cr3, trampoline_cr3 - __trampoline_start
.set at_trampoline_gdt_pointer, trampoline_gdt_pointer - __trampoline_start
