// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the entry point to 64-bit Rust.
//!
//! The PVH boot protocol starts the guest in 32-bit protected mode without paging, with the
//! address of the `hvm_start_info` in EBX (Xen, `docs/misc/pvh.pandoc`). The page tables are part
//! of the image, so that a short-lived guest spends no instructions on them: the first 4 GiB are
//! identity-mapped with 2 MiB pages open to every privilege level, and the second top-level slot
//! leads to the test window of [`paging`](super::paging).
//!
//! Guests that are started in another way come to `boot32`, in the same state but for EAX, which
//! says what EBX leads to: the magic number of a boot protocol, or zero for a start info.

use core::arch::global_asm;

use super::{console, exit, handover, segments, start_info, trap};

/// What a guest binary hands to the runtime.
pub struct Guest {
    /// Runs the guest; its result becomes the exit value, 0 for success.
    pub main: fn() -> u32,
}

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4
    .long 4
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

    .section .text.boot, "ax", @progbits
    .code32
    .global pvh_start
pvh_start:
    xor eax, eax
    .global boot32
boot32:
    cli
    cld
    mov esp, offset boot_stack_top
    mov edi, ebx
    mov esi, eax
    lgdt [boot_gdt_pointer]
    call enter_long_mode_tables
    .byte 0xEA                      # far jump into 64-bit code
    .long boot64
    .word 0x08

    # Turns long mode on with the static page tables; execution goes on in compatibility
    # mode. Clobbers EAX, ECX and EDX.
    .global enter_long_mode_tables
enter_long_mode_tables:
    mov eax, cr4
    or eax, 0x620                   # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x900                   # LME, NXE
    wrmsr
    mov eax, cr0
    and eax, 0x9FFFFFFB             # caches on, no FPU emulation
    or eax, 0x80010033              # PG, WP, NE, ET, MP, PE
    mov cr0, eax
    ret

    .code64
boot64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    xor ebp, ebp
    mov edi, edi
    mov esi, esi
    call {start}
1:  hlt
    jmp 1b

    .section .rodata.boot, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF        # 0x08: 64-bit code
    .quad 0x00CF93000000FFFF        # 0x10: data
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

    .section .data.page_tables, "aw", @progbits
    .balign 4096
    .global boot_pml4
boot_pml4:
    .quad boot_pdpt + 7
    .quad window_pdpt + 7
    .fill 510, 8, 0
    .global boot_pdpt
boot_pdpt:
    .quad boot_pd + 0x0007
    .quad boot_pd + 0x1007
    .quad boot_pd + 0x2007
    .quad boot_pd + 0x3007
    .fill 508, 8, 0
    .global boot_pd
boot_pd:
    .set frame, 0
    .rept 2048
    .quad frame + 0x87              # present, writable, user, 2 MiB
    .set frame, frame + 0x200000
    .endr
    .global window_pdpt
window_pdpt:
    .quad window_pd + 7
    .fill 511, 8, 0
    .global window_pd
window_pd:
    .quad window_pt + 7
    .fill 511, 8, 0
    .global window_pt
window_pt:
    .fill 512, 8, 0

    .section .bss.boot_stack, "aw", @nobits
    .balign 4096
    .skip 0x10000
boot_stack_top:
    .text
    "#,
    start = sym start,
);

unsafe extern "Rust" {
    static GUEST: Guest;
}

extern "C" fn start(information: u64, magic: u64) -> ! {
    segments::load(0);
    trap::load_idt();
    console::init();
    handover::keep(information, magic);
    match magic {
        0 => start_info::keep(information),
        _ => start_info::keep_command_line(handover::multiboot_command_line()),
    }
    // SAFETY: every guest binary defines the symbol by `guest!`, which gives it this type.
    let guest = unsafe { &GUEST };
    exit::exit((guest.main)())
}
