// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting further CPUs by INIT and SIPI (Intel SDM volume 3, 9.4).

use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::apic;
use super::cell::Fixed;
use super::segments::{self, MAX_CPUS};
use super::trap;

/// Number of the page of the start-up code, which a SIPI names.
pub const START_PAGE: u32 = 9;

const STACK: usize = 0x4000;

/// What a CPU executes once it is ready, in 64-bit mode with interrupts disabled. It is not
/// supposed to return.
pub type Entry = fn();

static STACKS: Fixed<[[u8; STACK]; MAX_CPUS]> = Fixed::new([[0; STACK]; MAX_CPUS]);
static ENTRY: AtomicUsize = AtomicUsize::new(0);

global_asm!(
    r#"
    .section .rodata.processors, "a", @progbits
    .balign 16
    .global smp_low_start
smp_low_start:
    .code16
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0F, 0x01, 0x16    # LGDT with a 32-bit base
    .word 0x9000 + (smp_gdt_pointer - smp_low_start)
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA
    .long smp_start32
    .word 0x18
    .balign 8
smp_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00CF9B000000FFFF
smp_gdt_pointer:
    .word 31
    .long 0x9000 + (smp_gdt - smp_low_start)
    .global smp_low_end
smp_low_end:

    .text
    .code32
smp_start32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [smp_stack]
    call enter_long_mode_tables
    .byte 0xEA
    .long smp_start64
    .word 0x08
    .code64
smp_start64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov edi, [smp_index]
    xor ebp, ebp
    call {start}

    .section .bss.processors, "aw", @nobits
    .balign 8
    .global smp_stack
smp_stack:
    .skip 8
    .global smp_index
smp_index:
    .skip 8
    .text
    "#,
    start = sym begin,
);

unsafe extern "C" {
    static smp_low_start: u8;
    static smp_low_end: u8;
    static mut smp_stack: u64;
    static mut smp_index: u64;
}

/// A started CPU in 64-bit mode.
extern "C" fn begin(index: u32) -> ! {
    segments::load(index as usize);
    trap::reload_idt();
    apic::enable(apic::is_x2apic());
    // SAFETY: `aim` stored an `Entry` before the CPU was started.
    let entry = unsafe { core::mem::transmute::<usize, Entry>(ENTRY.load(Ordering::SeqCst)) };
    entry();
    loop {
        super::cpu::halt_forever();
    }
}

/// Puts the start-up code into its page.
pub fn prepare() {
    let first = &raw const smp_low_start;
    let page = u64::from(START_PAGE) << 12;
    // SAFETY: memory below 640 KiB is free; the loader's start info has been copied.
    unsafe {
        let length = (&raw const smp_low_end).offset_from_unsigned(first);
        ptr::copy_nonoverlapping(first, page as *mut u8, length);
    }
}

/// Says what the CPU executes that is started next, and that it is number `index`, from 1 to
/// [`MAX_CPUS`] - 1. None is starting.
pub fn aim(index: usize, entry: Entry) {
    ENTRY.store(entry as usize, Ordering::SeqCst);
    // SAFETY: no other CPU is starting; the stack is this one's own.
    unsafe {
        (&raw mut smp_index).write_volatile(index as u64);
        (&raw mut smp_stack).write_volatile(STACKS.address() + ((index + 1) * STACK) as u64);
    }
}
