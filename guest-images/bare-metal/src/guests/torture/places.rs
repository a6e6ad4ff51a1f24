// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes and privilege levels in which random instructions are executed.

use core::ptr;

use super::code::Code;
use super::random::Random;
use super::recover::{self, BLOCK, Mode};
use super::values::{self, CODE, CODE_END, DATA, DATA_END};
use super::{tables, undo};
use crate::rt::cpu;
use crate::rt::segments::{
    KERNEL_CODE, KERNEL_CODE32, KERNEL_DATA, USER_CODE, USER_CODE32, USER_DATA,
};

const CODE16: u16 = 0x20;

/// CR0: PE, ET, NE; and with paging.
const PROTECTED: u32 = 0x31;
const PAGED: u32 = 0x8000_0031;
const VME: u32 = 1;
const PVI: u32 = 1 << 1;
const PSE: u32 = 1 << 4;
const PAE: u32 = 1 << 5;
/// OSFXSR and OSXMMEXCPT, so that vector instructions are executed.
const VECTORS: u32 = 3 << 9;

/// CPUID leaf 1, EDX: virtual-8086 mode extensions.
const FEATURE_VME: u32 = 1 << 1;

const FLAG_TF: u64 = 1 << 8;
const FLAG_IF: u64 = 1 << 9;
const FLAG_VM: u32 = 1 << 17;

/// Segments of privilege levels 0 and 3.
struct Ring {
    code: u16,
    data: u16,
}

const RING0: Ring = Ring { code: KERNEL_CODE32, data: KERNEL_DATA };
const RING0_16: Ring = Ring { code: CODE16, data: KERNEL_DATA };
const RING3: Ring = Ring { code: USER_CODE32, data: USER_DATA };

/// Executes random instructions somewhere. Returns only by way of an exception or interrupt.
pub fn execute(random: &mut Random) {
    match random.below(14) {
        0..=2 => long(random, KERNEL_CODE, KERNEL_DATA),
        3 | 4 => long(random, USER_CODE, USER_DATA),
        5 => long(random, KERNEL_CODE32, KERNEL_DATA),
        6 => long(random, USER_CODE32, USER_DATA),
        7 => long(random, CODE16, KERNEL_DATA),
        8 => protected(random, &RING0),
        9 => protected(random, &RING3),
        10 => protected(random, &RING0_16),
        11 | 12 => real(random),
        _ => virtual_8086(random),
    }
}

/// Writes random instructions, and numbers for them to find in memory.
fn lay_out(random: &mut Random, narrow: bool) {
    let code = Code::random(random, narrow);
    // SAFETY: memory below 640 KiB that is there for this.
    unsafe {
        ptr::write_bytes(CODE as *mut u8, 0xCC, (CODE_END - CODE) as usize);
        ptr::copy_nonoverlapping(code.bytes().as_ptr(), CODE as *mut u8, code.bytes().len());
        for _ in 0..48 {
            let at = DATA + random.below(DATA_END - DATA - 8);
            let value = match random.below(4) {
                0 => values::descriptor(random),
                1 => u64::from(values::selector(random)) << 32 | CODE,
                _ => values::register(random),
            };
            ptr::write_unaligned(at as *mut u64, value);
        }
    }
}

fn flags(random: &mut Random) -> u64 {
    let mut flags = 2 | random.next() & 0x8D5;
    if !random.one_in(8) {
        flags |= FLAG_IF;
    }
    if random.one_in(8) {
        flags |= FLAG_TF;
    }
    if random.one_in(4) {
        flags |= 3 << 12;
    }
    // NT, RF, AC, ID and the virtual interrupt flags.
    if random.one_in(4) {
        flags |= random.next() & 0x3D_4000;
    }
    flags
}

/// 64-bit mode and compatibility mode.
fn long(random: &mut Random, code: u16, data: u16) {
    lay_out(random, code == CODE16);
    // SAFETY: what is entered is meant to come back by an exception, to tables that stay.
    unsafe {
        for index in 0..16 {
            recover::torture_registers[index] = values::register(random);
        }
        let rsp = if random.one_in(8) { values::address(random) } else { DATA_END - 0x200 };
        let flags = flags(random);
        recover::torture_frame = [CODE, code.into(), flags, rsp, data.into()];
        super::arm();
        recover::torture_enter64()
    }
}

/// Lays out general-purpose registers, and what IRET takes.
fn block(random: &mut Random, frame: &[u32]) {
    // SAFETY: low memory that is there for this.
    unsafe {
        let block = BLOCK as *mut u32;
        (0..8).for_each(|index| block.add(index).write_volatile(values::register(random) as u32));
        for (index, &word) in frame.iter().enumerate() {
            block.add(8 + index).write_volatile(word);
        }
    }
}

/// No paging, or one of the two kinds that protected mode has.
fn paging(random: &mut Random) -> (u32, u32, u32) {
    match random.below(3) {
        0 => (PROTECTED, tables::directory() as u32, VECTORS),
        1 => (PAGED, tables::directory() as u32, PSE | VECTORS),
        _ => (PAGED, tables::pointers() as u32, PAE | VECTORS),
    }
}

fn enter(mode: Mode) -> ! {
    tables::task_states();
    tables::set_fault_tables(mode.cr3);
    tables::low_memory();
    // SAFETY: as in `long`.
    unsafe {
        recover::torture_mode = mode;
        super::arm();
        recover::torture_enter32()
    }
}

fn protected(random: &mut Random, ring: &Ring) {
    lay_out(random, ring.code == CODE16);
    let (cr0, cr3, cr4) = paging(random);
    let flags = flags(random) as u32;
    let stack = DATA_END as u32 - 0x200;
    block(random, &[CODE as u32, ring.code.into(), flags, stack, ring.data.into()]);
    enter(Mode { cr0, cr3, cr4, real: 0, data: ring.data.into() })
}

fn real(random: &mut Random) {
    lay_out(random, true);
    let flags = flags(random) as u32 & 0xFFFF;
    // IP, CS, flags, of 16 bits each.
    block(random, &[CODE as u32, flags]);
    enter(Mode { cr0: PROTECTED, cr3: 0, cr4: VECTORS, real: 1, data: 0 })
}

fn virtual_8086(random: &mut Random) {
    lay_out(random, true);
    let (cr0, cr3, cr4) = paging(random);
    let [.., features] = cpu::cpuid(1, 0);
    let extensions = if features & FEATURE_VME == 0 { 0 } else { VME | PVI };
    let vme = if random.one_in(4) { random.next() as u32 & extensions } else { 0 };
    let flags = flags(random) as u32 | FLAG_VM;
    let segment = |random: &mut Random| random.pick(&[0_u32, 0, 0xA00, 0xF000, 0xFFFF], 0);
    let frame = [
        CODE as u32,
        0,
        flags,
        DATA_END as u32 - 0x200,
        0,
        segment(random),
        segment(random),
        segment(random),
        segment(random),
    ];
    block(random, &frame);
    enter(Mode { cr0, cr3, cr4: cr4 | vme, real: 0, data: KERNEL_DATA.into() })
}

/// Puts back what one attempt has changed of the tables.
pub fn restore() {
    undo::all();
}
