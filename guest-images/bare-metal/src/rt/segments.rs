// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment descriptors and task states, one set per CPU.

use core::arch::asm;

use super::cell::Fixed;

// Assembly also uses 0x20, 16-bit code for privilege level 0 with base 0, and 0x68, 16-bit data
// with base 0 and limit 0xFFFF.

/// CPUs that have descriptors and stacks.
pub const MAX_CPUS: usize = 8;

pub const KERNEL_CODE: u16 = 0x08;
pub const KERNEL_DATA: u16 = 0x10;
/// 32-bit flat code for privilege level 0.
pub const KERNEL_CODE32: u16 = 0x18;
/// 32-bit flat code for privilege level 3; SYSRET wants data and 64-bit code to follow it.
pub const USER_CODE32: u16 = 0x28 | 3;
pub const USER_DATA: u16 = 0x30 | 3;
pub const USER_CODE: u16 = 0x38 | 3;
/// A data segment that is not present.
pub const ABSENT_DATA: u16 = 0x40;
/// A slot for the tests' own descriptors.
pub const SCRATCH: u16 = 0x48;
pub const TASK: u16 = 0x50;
/// 32-bit task state, for virtual-8086 mode.
pub const TASK32: u16 = 0x60;
/// Number of descriptor slots.
pub const SLOTS: usize = 16;

const STACK_SIZE: usize = 0x2000;

/// The 64-bit task state segment (AMD APM volume 2, 12.2.5) with a whole I/O permission bitmap.
#[repr(C, packed(4))]
pub struct TaskState {
    reserved0: u32,
    /// Stacks for privilege levels 0 to 2.
    pub rsp: [u64; 3],
    reserved1: u64,
    /// Interrupt stack table, entries 1 to 7.
    pub ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Offset of the bitmap from the start of the segment.
    pub io_bitmap_base: u16,
    /// A set bit denies the port; one byte beyond the last must be all ones.
    pub io_bitmap: [u8; 8193],
}

/// Offset of the bitmap, to enable it.
pub const IO_BITMAP_OFFSET: u16 = 104;
/// Limit of the task state segment.
const TASK_LIMIT: u64 = 104 + 8193 - 1;

struct PerCpu {
    gdt: [u64; SLOTS],
    task: TaskState,
    ring0_stack: [u8; STACK_SIZE],
    ist_stacks: [[u8; STACK_SIZE]; 3],
}

const EMPTY: PerCpu = PerCpu {
    gdt: [0; SLOTS],
    task: TaskState {
        reserved0: 0,
        rsp: [0; 3],
        reserved1: 0,
        ist: [0; 7],
        reserved2: 0,
        reserved3: 0,
        io_bitmap_base: 0,
        io_bitmap: [0; 8193],
    },
    ring0_stack: [0; STACK_SIZE],
    ist_stacks: [[0; STACK_SIZE]; 3],
};

static CPUS: Fixed<[PerCpu; MAX_CPUS]> = Fixed::new([EMPTY; MAX_CPUS]);

/// Operand of LGDT, LIDT, SGDT and SIDT.
#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
pub struct TablePointer {
    pub limit: u16,
    pub base: u64,
}

fn stack_top(stack: *const [u8; STACK_SIZE]) -> u64 {
    (stack as u64 + STACK_SIZE as u64) & !0xF
}

/// The table whose selectors are named above, with the `task` that is loaded; those of other tasks
/// are empty.
pub const fn table(task: (u64, u64)) -> [u64; SLOTS] {
    [
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x00CF_9B00_0000_FFFF,
        0x008F_9B00_0000_FFFF,
        0x00CF_FB00_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        0x00CF_1300_0000_FFFF,
        0,
        task.0,
        task.1,
        0,
        0x0000_9300_0000_FFFF,
        0,
        0,
    ]
}

/// Fills in and loads the descriptors of CPU number `index`, on that CPU.
pub fn load(index: usize) {
    let index = index.min(MAX_CPUS - 1);
    // SAFETY: each CPU calls this once with an index of its own, and its selectors are loaded
    // with what the tables just written say.
    unsafe {
        let cpu = CPUS.get().cast::<PerCpu>().add(index);
        let task = &raw const (*cpu).task as u64;
        (*cpu).gdt = table(task_descriptor(task, TASK_LIMIT));
        (*cpu).task.io_bitmap_base = u16::MAX;
        (*cpu).task.io_bitmap[8192] = 0xFF;
        (*cpu).task.rsp[0] = stack_top(&raw const (*cpu).ring0_stack);
        for entry in 0..3 {
            let stack = (&raw const (*cpu).ist_stacks).cast::<[u8; STACK_SIZE]>().add(entry);
            (*cpu).task.ist[entry] = stack_top(stack);
        }
        let pointer =
            TablePointer { limit: (SLOTS * 8 - 1) as u16, base: &raw const (*cpu).gdt as u64 };
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            // An IRET to user mode clears data segments that user mode may not have.
            "mov ds, {user:e}",
            "mov es, {user:e}",
            "mov ss, {data:e}",
            "ltr {task:x}",
            pointer = in(reg) &raw const pointer,
            code = in(reg) u64::from(KERNEL_CODE),
            data = in(reg) u32::from(KERNEL_DATA),
            user = in(reg) u32::from(USER_DATA),
            task = in(reg) TASK,
            scratch = out(reg) _,
        );
    }
}

/// An available 64-bit task state descriptor.
pub fn task_descriptor(base: u64, limit: u64) -> (u64, u64) {
    let low = limit & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | 0x89 << 40
        | (limit >> 16 & 0xF) << 48
        | (base >> 24 & 0xFF) << 56;
    (low, base >> 32)
}

/// An available 32-bit task state descriptor.
pub fn task32_descriptor(base: u32, limit: u32) -> u64 {
    task_descriptor(u64::from(base), u64::from(limit)).0
}

/// Changes a descriptor of the boot CPU.
pub fn set_descriptor(selector: u16, descriptor: u64) {
    let slot = usize::from(selector >> 3);
    if slot < SLOTS {
        // SAFETY: within the table; the boot CPU alone changes its own, and the CPU reads it
        // only when a selector is loaded.
        unsafe {
            (&raw mut (*CPUS.get())[0].gdt).cast::<u64>().add(slot).write_volatile(descriptor)
        };
    }
}

/// Reads a descriptor of the boot CPU.
pub fn descriptor(selector: u16) -> u64 {
    let slot = usize::from(selector >> 3).min(SLOTS - 1);
    // SAFETY: within the table.
    unsafe { (&raw const (*CPUS.get())[0].gdt).cast::<u64>().add(slot).read_volatile() }
}

/// Task state of the boot CPU, for the tests that change it.
pub fn task_state() -> *mut TaskState {
    // SAFETY: only the address is taken.
    unsafe { &raw mut (*CPUS.get())[0].task }
}
