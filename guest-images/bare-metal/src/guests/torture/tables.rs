// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors, gates, task states and page tables, in all formats.

use core::ptr;

use super::recover;
use crate::rt::cell::Fixed;
use crate::rt::mode_switch::LOW_CODE;
use crate::rt::segments::{KERNEL_CODE, KERNEL_CODE32, KERNEL_DATA, TASK, TASK32, TaskState};
use crate::rt::{segments, start_info};

// The assembly of `recover` loads it, and has this many slots.
const _: () = assert!(TASK32 == 0x60 && segments::SLOTS == 16);

/// The task that a double fault switches to.
const FAULT_TASK: u16 = 0x70;
const DOUBLE_FAULT: usize = 8;
/// Vectors that every privilege level may raise.
const FOR_ALL: [usize; 4] = [3, 4, 0x80, 0x81];
const TASK32_BYTES: usize = 104;

static TASK_STATE: Fixed<[u8; size_of::<TaskState>()]> = Fixed::new([0; size_of::<TaskState>()]);
static TASK_STATE32: Fixed<[u32; TASK32_BYTES / 4]> = Fixed::new([0; TASK32_BYTES / 4]);
static FAULT_TASK_STATE: Fixed<[u32; TASK32_BYTES / 4]> = Fixed::new([0; TASK32_BYTES / 4]);
static DIRECTORY: Fixed<[u32; 1024]> = Fixed::new([0; 1024]);
static POINTERS: Fixed<[u64; 4]> = Fixed::new([0; 4]);
/// Stack of the task that a double fault switches to.
static FAULT_STACK: Fixed<[u8; 4096]> = Fixed::new([0; 4096]);

unsafe extern "C" {
    static mut boot_pd: [u64; 2048];
}

/// Page directory for 32-bit paging.
pub fn directory() -> u64 {
    DIRECTORY.address()
}

/// Page-directory pointers for PAE paging, which lead to long mode's page directories.
pub fn pointers() -> u64 {
    POINTERS.address()
}

/// Where an entry of the page directories of the first 4 GiB is.
pub fn boot_directory_entry(index: u64) -> u64 {
    (&raw const boot_pd) as u64 + index % 2048 * 8
}

/// The stack for whatever comes back.
fn stack() -> u64 {
    (&raw const recover::torture_stack) as u64
}

/// Fills in all that stays.
pub fn prepare() {
    let task = segments::task_descriptor(TASK_STATE.address(), 103);
    let mut descriptors = segments::table(task);
    descriptors[usize::from(TASK32 >> 3)] =
        segments::task32_descriptor(TASK_STATE32.address() as u32, TASK32_BYTES as u32 - 1);
    // The fault's task is only there where the VMM or the CPU switches tasks rightly.
    if has_task_switches() {
        descriptors[usize::from(FAULT_TASK >> 3)] =
            segments::task32_descriptor(FAULT_TASK_STATE.address() as u32, TASK32_BYTES as u32 - 1);
    }
    // SAFETY: the tables are the torture's own, and nothing uses them yet.
    unsafe {
        recover::torture_pristine = descriptors;
        recover::torture_gdt = descriptors;
        for index in 0..4 {
            let entry = boot_directory_entry(index * 512) | 1;
            POINTERS.get().cast::<u64>().add(index as usize).write_volatile(entry);
        }
        for index in 0..1024_u32 {
            let entry = index << 22 | 0x87;
            DIRECTORY.get().cast::<u32>().add(index as usize).write_volatile(entry);
        }
    }
    gates();
    task_states();
}

/// QEMU's TCG switches tasks by itself and loads the guest's CR3 as it is, which under shadow
/// paging is an address of the host's memory: no VMM can keep that guest from anything there.
pub fn has_task_switches() -> bool {
    !start_info::is_tcg_shadow()
}

fn gates() {
    let stubs64 = (&raw const recover::torture_stubs64) as u64;
    let stubs32 = (&raw const recover::torture_stubs32) as u64;
    for vector in 0..256 {
        let privilege = if FOR_ALL.contains(&vector) { 0x60 } else { 0 };
        let (at64, at32) = (stubs64 + vector as u64 * 8, stubs32 + vector as u64 * 8);
        let offset = |at: u64| at & 0xFFFF | (at >> 16 & 0xFFFF) << 48;
        // A stack of its own, for RSP may be anything.
        let long = offset(at64) | u64::from(KERNEL_CODE) << 16 | 1 << 32 | (0x8E | privilege) << 40;
        let short = match vector {
            DOUBLE_FAULT if has_task_switches() => u64::from(FAULT_TASK) << 16 | 0x85 << 40,
            _ => offset(at32) | u64::from(KERNEL_CODE32) << 16 | (0x8E | privilege) << 40,
        };
        // SAFETY: as in `prepare`.
        unsafe {
            recover::torture_idt[vector] = [long, at64 >> 32];
            recover::torture_idt32[vector] = short;
        }
    }
}

/// Fills in the task states, which task switches change.
pub fn task_states() {
    let main = TASK_STATE.get().cast::<TaskState>();
    let (task, fault) = (TASK_STATE32.get().cast::<u32>(), FAULT_TASK_STATE.get().cast::<u32>());
    // SAFETY: the states are the torture's own; the CPU reads them when it takes an event.
    unsafe {
        (*main).rsp = [stack(); 3];
        (*main).ist = [stack(); 7];
        (*main).io_bitmap_base = u16::MAX;
        for state in [task, fault] {
            ptr::write_bytes(state, 0, TASK32_BYTES / 4);
            // ESP0 and SS0, and no I/O permission bitmap (Intel SDM volume 3, figure 7-2).
            state.add(1).write(stack() as u32);
            state.add(2).write(KERNEL_DATA.into());
            state.add(25).write(0xFFFF_0000);
        }
        let data = u32::from(KERNEL_DATA);
        for (index, value) in [
            (7, DIRECTORY.address() as u32),
            (8, recover::torture_double_fault as *const () as usize as u32),
            (9, 2),
            (14, FAULT_STACK.address() as u32 + 4096),
            (18, data),
            (19, KERNEL_CODE32.into()),
            (20, data),
            (21, data),
        ] {
            fault.add(index).write(value);
        }
    }
}

/// Has double faults switch to a task with these page tables.
pub fn set_fault_tables(cr3: u32) {
    // SAFETY: as in `task_states`.
    unsafe { FAULT_TASK_STATE.get().cast::<u32>().add(7).write_volatile(cr3) };
}

/// Puts the code for 16 bits and the vectors of real mode in place.
pub fn low_memory() {
    let start = (&raw const recover::torture_low_start) as u64;
    let length = (&raw const recover::torture_low_end) as u64 - start;
    let entry = (&raw const recover::torture_low_entry) as u64 - start + LOW_CODE;
    // SAFETY: memory below 640 KiB is free: the start info, which the loader may have left there,
    // has been copied.
    unsafe {
        ptr::copy_nonoverlapping(start as *const u8, LOW_CODE as *mut u8, length as usize);
        for vector in 0..256_u64 {
            ((vector * 4) as *mut u32).write_volatile(entry as u32);
        }
    }
}

/// Loads the descriptors and gates for the first time.
pub fn load() {
    let gdt =
        segments::TablePointer { limit: 0x7F, base: (&raw const recover::torture_gdt) as u64 };
    let idt =
        segments::TablePointer { limit: 0xFFF, base: (&raw const recover::torture_idt) as u64 };
    // SAFETY: the tables have the same segments as those in use, and gates for all vectors.
    unsafe {
        core::arch::asm!("lgdt [{}]", "lidt [{}]", "ltr {:x}", in(reg) &raw const gdt,
            in(reg) &raw const idt, in(reg) TASK);
    }
}
