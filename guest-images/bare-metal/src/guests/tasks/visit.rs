// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tasks execute, and their states.

use core::arch::global_asm;

use crate::rt::mode_switch::LOW_CODE;
use crate::rt::segments::{KERNEL_CODE32, KERNEL_DATA};

/// Distance of the task states.
pub const STATE_SIZE: usize = 128;
/// EBP of the tasks.
pub const EBP: u32 = 0xB0B0_1234;
/// Where the 16-bit task goes on when it has returned.
pub const SMALL_NEXT: u16 = LOW_CODE as u16 + 1;

const NOTES: usize = 8;
const NOTE_SIZE: usize = size_of::<Note>();
const FLAGS: u32 = 2;
const NESTED: u16 = 1 << 14;

/// How the second task was reached.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// Task register.
    pub task: u32,
    /// EFLAGS.
    pub flags: u32,
    /// Bytes on the stack.
    pub pushed: u32,
    /// What is on the stack, if anything is.
    pub error_code: u32,
    /// Link to the previous task.
    pub link: u32,
    /// From where the first task is to go on to where it does.
    pub distance: u32,
    pub cr0: u32,
    pub cr3: u32,
    /// What the second task finds where its page tables differ.
    pub alias: u32,
    pub ebp: u32,
}

/// The fields of a 32-bit TSS that tests choose.
#[derive(Clone, Copy, Default)]
pub struct State {
    pub cr3: u32,
    pub eip: u32,
    pub esp: u32,
    pub code: u16,
}

impl State {
    pub fn new(eip: u32, esp: u32) -> Self {
        Self { cr3: 0, eip, esp, code: KERNEL_CODE32 }
    }
}

unsafe extern "C" {
    static mut tasks_states: [u8; 5 * STATE_SIZE];
    static mut tasks_notes: [Note; NOTES];
    static tasks_other_top: u8;
    static tasks_fault_top: u8;
    fn tasks_main();
    fn tasks_other();
    fn tasks_fault();
}

global_asm!(
    r#"
    # What comes next is to save this address, and to go on so many bytes behind it.
    .macro tasks_expect address, skip
    mov dword ptr [tasks_expected], offset \address
    mov dword ptr [tasks_skip], \skip
    .endm

    .text
    .code32
    .global tasks_main
tasks_main:
    pushad
    mov dword ptr [tasks_next], offset tasks_notes
    mov dword ptr [tasks_jumps], 0
    tasks_expect tasks_called, 0
    .byte 0x9A                      # CALL to the second task
    .long 0
    .word 0x70
tasks_called:
    tasks_expect tasks_interrupted, 0
    int 0x90
tasks_interrupted:
    tasks_expect tasks_undefined, 2
tasks_undefined:
    ud2
    # Behind an exception without an error code: of an interrupt that the CPU delivers by itself,
    # Bochs 2.7 under VT-x tells the VMM what it told of the event before.
    tasks_expect tasks_waiting, 2
    mov dword ptr ds:[0xFEE00300], 0x44040
    sti
tasks_waiting:
    jmp tasks_waiting
    cli
    tasks_expect tasks_absent, 2
    mov eax, 0x40
tasks_absent:
    mov ds, eax                     # not present
    tasks_expect tasks_double, 2
    mov eax, 0x7F8
tasks_double:
    mov ds, eax                     # beyond the table, and #GP has no handler
    mov dword ptr [tasks_jumps], 1
    tasks_expect tasks_jumped, 0
    .byte 0xEA                      # JMP to the second task
    .long 0
    .word 0x70
tasks_jumped:
    .byte 0x9A                      # CALL to the 16-bit task
    .long 0
    .word 0x48
    tasks_expect tasks_failed, 0
    .byte 0xEA                      # JMP to the task without code
    .long 0
    .word 0x50
tasks_failed:
    clts
    popad
    ret

    .macro tasks_note state, top
    mov ebx, [tasks_next]
    str eax
    mov [ebx], eax
    mov ecx, offset \top
    sub ecx, esp
    mov [ebx + 8], ecx
    xor edx, edx
    jecxz 2f
    mov edx, [esp]
2:  mov [ebx + 12], edx
    mov esp, offset \top
    pushfd
    pop eax
    mov [ebx + 4], eax
    movzx eax, word ptr [tasks_states + \state]
    mov [ebx + 16], eax
    mov eax, [tasks_states + 0x20]
    sub eax, [tasks_expected]
    mov [ebx + 20], eax
    mov eax, cr0
    mov [ebx + 24], eax
    mov eax, cr3
    mov [ebx + 28], eax
    mov eax, ds:[0x40007000]
    mov [ebx + 32], eax
    mov [ebx + 36], ebp
    add dword ptr [tasks_next], {note_size}
    .endm

    .global tasks_other
tasks_other:
    tasks_note 128, tasks_other_top
    mov eax, [tasks_skip]
    add [tasks_states + 0x20], eax
    mov dword ptr ds:[0xFEE000B0], 0
    cmp dword ptr [tasks_jumps], 0
    jne 3f
    iretd
    jmp tasks_other
3:  .byte 0xEA
    .long 0
    .word 0x60
    jmp tasks_other

    .global tasks_fault
tasks_fault:
    tasks_note 256, tasks_fault_top
    .byte 0xEA
    .long 0
    .word 0x60
    ud2
    .code64

    .section .bss.tasks, "aw", @nobits
    .balign 128
    .global tasks_states
tasks_states:
    .skip 5 * 128
    .global tasks_notes
tasks_notes:
    .skip {notes} * {note_size}
tasks_next:
    .skip 4
tasks_expected:
    .skip 4
tasks_skip:
    .skip 4
tasks_jumps:
    .skip 4
    .skip 1024
    .global tasks_other_top
tasks_other_top:
    .skip 1024
    .global tasks_fault_top
tasks_fault_top:
    .skip 4
    .text
    "#,
    notes = const NOTES,
    note_size = const NOTE_SIZE,
);

/// Where the first task begins.
pub fn main() -> u32 {
    tasks_main as *const () as u32
}

/// Where the second task begins.
pub fn other() -> u32 {
    tasks_other as *const () as u32
}

/// Where the task for #TS begins.
pub fn fault() -> u32 {
    tasks_fault as *const () as u32
}

/// Top of the second task's stack.
pub fn other_stack() -> u32 {
    (&raw const tasks_other_top) as u32
}

/// Top of the stack of the task for #TS.
pub fn fault_stack() -> u32 {
    (&raw const tasks_fault_top) as u32
}

/// Address of the task states.
pub fn states() -> u64 {
    (&raw const tasks_states) as u64
}

/// What was noted.
pub fn notes() -> [Note; NOTES] {
    // SAFETY: nothing runs meanwhile that changes it, and all bits are valid.
    unsafe { (&raw const tasks_notes).read_volatile() }
}

/// The code selector that the first task saved.
pub fn saved_code() -> u16 {
    read(0, 0x4C)
}

fn state(index: usize) -> *mut u8 {
    (&raw mut tasks_states).cast::<u8>().wrapping_add(index.min(4) * STATE_SIZE)
}

fn read(index: usize, offset: usize) -> u16 {
    // SAFETY: within a task state, whose task does not run.
    unsafe { state(index).add(offset).cast::<u16>().read_volatile() }
}

fn write(index: usize, fields: &[(usize, u32)]) {
    for (offset, value) in fields {
        // SAFETY: within a task state, whose task does not run.
        unsafe { state(index).add(*offset).cast::<u32>().write_unaligned(*value) };
    }
}

/// Fills in the task state number `index`.
pub fn write_state(index: usize, fields: &State) {
    let data = u32::from(KERNEL_DATA);
    write(index, &[(0, 0), (0x1C, fields.cr3), (0x20, fields.eip), (0x24, FLAGS)]);
    write(index, &[(0x38, fields.esp), (0x3C, EBP), (0x60, 0), (0x64, 104 << 16)]);
    write(index, &[(0x48, data), (0x4C, fields.code.into()), (0x50, data), (0x54, data)]);
    write(index, &[(0x58, data), (0x5C, data)]);
}

/// Fills in the 16-bit task state.
pub fn write_small_state(index: usize) {
    let (data, code) = (u32::from(KERNEL_DATA), u32::from(KERNEL_CODE32));
    // Two fields at a time: IP and flags, SP and BP, ES and CS, SS and DS.
    write(index, &[(0, 0), (0x0E, FLAGS << 16 | LOW_CODE as u32), (0x1A, 0x7E00)]);
    write(index, &[(0x22, code << 16 | data), (0x26, data << 16 | data), (0x2A, 0)]);
}

/// Link, IP and the NT flag of the 16-bit task.
pub fn small_state(index: usize) -> (u16, u16, u16) {
    (read(index, 0), read(index, 0x0E), read(index, 0x10) & NESTED)
}

/// Puts the code of the 16-bit task where it reaches: IRET, and a jump to it.
///
/// # Safety
/// Low memory must be free.
pub unsafe fn place_small_task() {
    for (address, byte) in (LOW_CODE..).zip([0xCF_u8, 0xEB, 0xFD]) {
        // SAFETY: as the caller promises.
        unsafe { (address as *mut u8).write_volatile(byte) };
    }
}
