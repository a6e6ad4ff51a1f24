// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces of assembly that the world switches of both vendors have in common. RDI points to the
//! context of the switch. `{registers}` is the offset there of the guest's registers, 8 bytes
//! each, by their encoding.

/// Saves the registers that the caller of the switch keeps, and the pointer to the context.
macro_rules! save_callers_registers {
    () => {
        "push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        push rdi"
    };
}

/// Loads the guest's registers but RAX and RSP; the pointer is gone then. No flag changes.
macro_rules! load_guest_registers {
    () => {
        "mov rcx, [rdi + {registers} + 8 * 1]
        mov rdx, [rdi + {registers} + 8 * 2]
        mov rbx, [rdi + {registers} + 8 * 3]
        mov rbp, [rdi + {registers} + 8 * 5]
        mov rsi, [rdi + {registers} + 8 * 6]
        mov r8, [rdi + {registers} + 8 * 8]
        mov r9, [rdi + {registers} + 8 * 9]
        mov r10, [rdi + {registers} + 8 * 10]
        mov r11, [rdi + {registers} + 8 * 11]
        mov r12, [rdi + {registers} + 8 * 12]
        mov r13, [rdi + {registers} + 8 * 13]
        mov r14, [rdi + {registers} + 8 * 14]
        mov r15, [rdi + {registers} + 8 * 15]
        mov rdi, [rdi + {registers} + 8 * 7]"
    };
}

/// Takes the pointer off the stack, and stores the guest's registers but RAX and RSP. RAX stays as
/// it is.
macro_rules! store_guest_registers {
    () => {
        "xchg rdi, [rsp]
        mov [rdi + {registers} + 8 * 1], rcx
        mov [rdi + {registers} + 8 * 2], rdx
        mov [rdi + {registers} + 8 * 3], rbx
        mov [rdi + {registers} + 8 * 5], rbp
        mov [rdi + {registers} + 8 * 6], rsi
        mov [rdi + {registers} + 8 * 8], r8
        mov [rdi + {registers} + 8 * 9], r9
        mov [rdi + {registers} + 8 * 10], r10
        mov [rdi + {registers} + 8 * 11], r11
        mov [rdi + {registers} + 8 * 12], r12
        mov [rdi + {registers} + 8 * 13], r13
        mov [rdi + {registers} + 8 * 14], r14
        mov [rdi + {registers} + 8 * 15], r15
        pop rcx
        mov [rdi + {registers} + 8 * 7], rcx"
    };
}

/// Restores the registers of the switch's caller. Nothing of the guest stays in those that the
/// compiler may not overwrite; RAX is left for the result.
macro_rules! restore_callers_registers {
    () => {
        "pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor edi, edi
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d"
    };
}

pub(crate) use {
    load_guest_registers, restore_callers_registers, save_callers_registers, store_guest_registers,
};
