# SPDX-License-Identifier: MIT OR Apache-2.0
# Interrupt and exception entry: one stub of 16 bytes per vector, and the common part.
#
# Everything runs in ring 0 with GS valid, so nothing is swapped. No vector register is
# touched, here or in the soft-float Rust code behind. After the pushes RSP points to an
# `interrupts::Frame`; the CPU aligned the stack to 16 bytes before pushing its five words,
# and 22 words in total keep it so.

.section .text
.balign 16
.global __interrupt_stubs
__interrupt_stubs:
.set vector, 0
.rept 256
    .balign 16
    # Vectors for which the CPU pushes an error code: 8, 10-14, 17, 21, 29, 30.
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    push vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

.balign 16
interrupt_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call cokernel_interrupt
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
