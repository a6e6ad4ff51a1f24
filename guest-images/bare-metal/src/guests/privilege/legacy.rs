// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes outside long mode, which is left and entered again for each instruction.
//!
//! Low memory, besides what `modes::switch` has there: results at 0x7100, flags of the code at
//! 0x7110, 16-bit code at 0x8000, the instruction at 0x9000.

use core::arch::global_asm;
use core::ptr;

use crate::guests::modes::switch::{self, Context, PROTECTED};
use crate::rt::cell::Fixed;
use crate::rt::mode_switch::{LOW_CODE, mode_macros};
use crate::rt::segments::{self, KERNEL_DATA, SCRATCH, TASK32};
use crate::rt::trap::has_error_code;

const RESULTS: *mut u32 = 0x7100 as *mut u32;
const FLAGS: *mut u32 = 0x7110 as *mut u32;
/// Bytes from one stub to the next.
const STUB: usize = 16;
/// Limit of the task state: it ends before any I/O permission bitmap.
const TASK_LIMIT: u32 = 103;
/// 16-bit code for privilege level 3 with base 0.
const USER_CODE16: u64 = 0x008F_FB00_0000_FFFF;

static GATES: Fixed<[u64; 256]> = Fixed::new([0; 256]);
static TASK: Fixed<[u32; 26]> = Fixed::new([0; 26]);
static STACK: Fixed<[u8; 4096]> = Fixed::new([0; 4096]);

unsafe extern "C" {
    static privilege_stubs: u8;
    static privilege_low_start: u8;
    static privilege_low_stubs: u8;
    static privilege_low_end: u8;
    pub fn privilege_kernel32();
    pub fn privilege_user32();
    pub fn privilege_kernel16();
    pub fn privilege_user16();
    pub fn privilege_real();
    pub fn privilege_virtual_8086();
}

/// Fills in the tables of these modes.
pub fn prepare() {
    let low = &raw const privilege_low_start as usize;
    let length = &raw const privilege_low_end as usize - low;
    let real_stubs = &raw const privilege_low_stubs as usize - low + LOW_CODE as usize;
    let stubs = &raw const privilege_stubs as usize;
    // SAFETY: memory below 640 KiB is free, as the start info that the loader may have left there
    // has been copied, and the tables are this module's own.
    unsafe {
        ptr::copy_nonoverlapping(low as *const u8, LOW_CODE as *mut u8, length);
        for vector in 0..32 {
            let vectors = core::hint::black_box(0_usize) as *mut u32;
            vectors.add(vector).write_volatile((real_stubs + vector * STUB) as u32);
            let gate = switch::gate32(stubs + vector * STUB, 0xEE);
            GATES.get().cast::<u64>().add(vector).write(gate);
        }
        switch::set_idt(GATES.address());
        let task = TASK.get().cast::<u32>();
        task.add(1).write(STACK.address() as u32 + 4096);
        task.add(2).write(KERNEL_DATA.into());
        task.add(25).write((TASK_LIMIT + 1) << 16);
    }
}

/// Executes the code in the mode that `entry` goes to; the vector that it met, and where.
pub fn run(entry: unsafe extern "C" fn(), flags: u32) -> (u64, u64) {
    let entry = entry as *const () as u32;
    let context = Context { entry, cr0: PROTECTED, cr3: 0, cr4: 0, task: TASK32.into() };
    let task = segments::task32_descriptor(TASK.address() as u32, TASK_LIMIT);
    segments::set_descriptor(TASK32, task);
    segments::set_descriptor(SCRATCH, USER_CODE16);
    // SAFETY: `prepare` has put everything in place, and without paging memory is where it is. The
    // code ends by an exception, whose handler comes back here.
    let results = unsafe {
        RESULTS.write_volatile(u32::MAX);
        FLAGS.write_volatile(flags);
        switch::mode_call(&raw const context);
        [0, 1, 2].map(|index| RESULTS.add(index).read_volatile())
    };
    // The task state of long mode.
    segments::load(0);
    let [vector, first, second] = results;
    let is_real = entry == privilege_real as *const () as u32;
    let at = if has_error_code(vector.into()) && !is_real { second } else { first };
    (vector.into(), at.into())
}

global_asm!(
    mode_macros!(),
    r#"
    .code32
    .global privilege_kernel32
privilege_kernel32:
    mov ecx, 0x9000
    jmp ecx

    .global privilege_user32
privilege_user32:
    mov ecx, 0x2B
    jmp privilege_user
    .global privilege_user16
privilege_user16:
    mov ecx, 0x4B
privilege_user:
    mov eax, 0x33
    mov ds, eax
    mov es, eax
    push 0x33
    push 0x7E00
    push dword ptr ss:[0x7110]
    push ecx
    push 0x9000
    iretd

    .global privilege_kernel16
privilege_kernel16:
    .byte 0xEA
    .long 0x9000
    .word 0x20

    .global privilege_virtual_8086
privilege_virtual_8086:
    xor eax, eax
    push eax                        # GS, FS, DS, ES, SS
    push eax
    push eax
    push eax
    push eax
    push 0x7E00
    push dword ptr ds:[0x7110]
    push eax
    push 0x9000
    iretd

    .global privilege_real
privilege_real:
    .byte 0xEA
    .long 0x8000 + (privilege_low_leave - privilege_low_start)
    .word 0x20

    # What the code met: the vector, and two doublewords of the frame.
    .balign 16
    .global privilege_stubs
privilege_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .byte 0x68
    .long vector
    jmp privilege_met
    .set vector, vector + 1
    .endr
privilege_met:
    pop eax
    mov dword ptr ss:[0x7100], eax
    pop eax
    mov dword ptr ss:[0x7104], eax
    pop eax
    mov dword ptr ss:[0x7108], eax
    jmp mode_fault32

    .section .rodata.privilege, "a", @progbits
    .balign 16
    .global privilege_low_start
privilege_low_start:
    .code16
privilege_low_leave:
    mov eax, 0x68
    mov ss, ax
    enter_real_mode privilege_low_real, privilege_low_start
privilege_low_real:
    xor ax, ax
    mov ss, ax
    mov sp, 0x7E00
    mov ds, ax
    mov es, ax
    load_real_idt privilege_low_ivt, privilege_low_start
    mov cx, 0x9000
    jmp cx
privilege_low_ivt:
    .word 0x3FF
    .long 0

    .balign 16
    .global privilege_low_stubs
privilege_low_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .byte 0x68
    .word vector
    .byte 0xE9
    .word privilege_low_met - . - 2
    .set vector, vector + 1
    .endr
privilege_low_met:
    xor eax, eax
    pop ax
    mov dword ptr cs:[0x7100], eax
    pop ax
    mov dword ptr cs:[0x7104], eax
    leave_real_mode mode_fault32
    .global privilege_low_end
privilege_low_end:
    .code64
    .text
    "#,
);
