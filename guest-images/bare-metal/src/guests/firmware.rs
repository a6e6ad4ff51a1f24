// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware: started at the reset vector, its own image a ROM below 4 GiB and below 1 MiB.
//!
//! The code before this, in `bin/firmware.rs`, noted the state after reset and copied the image
//! to memory.

use core::arch::{asm, global_asm};

use crate::rt::cpu;
use crate::rt::handover::{self, FIRMWARE, read as number};
use crate::rt::report::Report;

unsafe extern "C" {
    /// First byte of the image in memory.
    static image_start: u8;
    /// A topmost page table, as it is copied to memory.
    static rom_pml4: u8;
}

// Its entry is marked as accessed, as firmware has to do it: a ROM takes no mark.
global_asm!(
    r#"
    .section .rodata.rom_pml4, "a", @progbits
    .balign 4096
    .global rom_pml4
rom_pml4:
    .quad boot_pdpt + 0x27
    .fill 511, 8, 0
    .text
    "#
);

/// Length of the image.
const ROM_BYTES: u64 = 0x2_0000;
/// Where it lies.
const ROM: u64 = (1 << 32) - ROM_BYTES;
/// Where it lies once more.
const ALIAS: u64 = 0x10_0000 - ROM_BYTES;
/// Memory below both.
const BESIDE: u64 = 0x7_0000;

/// Checks what there is after reset, and that the ROM is one.
pub fn run() -> u32 {
    let mut report = Report::default();
    let handover = handover::get();
    report.equal("started by the code of the ROM", handover.magic, FIRMWARE);
    reset_state(&mut report, handover.address);
    let differs =
        (0..ROM_BYTES).step_by(8).find(|at| number::<u64>(ROM + at) != number::<u64>(ALIAS + at));
    report.equal("the ROM is there once more below 1 MiB", differs, None);
    report.equal("the reset vector is a jump", number::<u8>((1 << 32) - 16), 0xE9);
    for (name, base) in [("below 4 GiB", ROM), ("below 1 MiB", ALIAS)] {
        for offset in [0x40, 0x1003, ROM_BYTES - 16] {
            read_only(&mut report, name, base + offset);
        }
    }
    // SAFETY: memory that nothing else uses.
    unsafe { (BESIDE as *mut u64).write_volatile(ROM) };
    report.equal("what is no ROM can be written", number::<u64>(BESIDE), ROM);
    tables_in_rom(&mut report);
    report.finish()
}

/// Pages through a table in the ROM.
fn tables_in_rom(report: &mut Report) {
    let table = ROM + (&raw const rom_pml4 as u64 - &raw const image_start as u64);
    let found: u64;
    // SAFETY: the table translates the first 512 GiB as the one in use does, which is loaded again.
    unsafe {
        asm!(
            "mov {kept}, cr3",
            "mov cr3, {table}",
            "mov {found}, [{at}]",
            "mov cr3, {kept}",
            kept = out(reg) _,
            table = in(reg) table,
            at = in(reg) BESIDE,
            found = out(reg) found,
        );
    }
    report.equal("the topmost page table may lie in the ROM", found, ROM);
}

/// What the first instructions saved (AMD APM vol. 2, table 14-1).
fn reset_state(report: &mut Report, at: u64) {
    let saved = |index: u64| number::<u32>(at + 4 * index);
    report.equal("EDX is the processor's signature", saved(1), cpu::cpuid(1, 0)[0]);
    report.equal("CR0 after reset, but for the caches", saved(2) & 0x9FFF_FFFF, 0x10);
    report.equal("EFLAGS after reset", saved(3), 2);
    report.equal("CS selector", saved(4), 0xF000);
    report.equal("other selectors", saved(5), 0);
    report.equal("the copy below 1 MiB was executed in real mode", saved(6), 0xF000);
}

/// Tries to change the eight bytes at `at` by every kind of write.
fn read_only(report: &mut Report, place: &str, at: u64) {
    let before: u64 = number(at);
    let pointer = at as *mut u64;
    let mut check = |what: &str| {
        let name = format_args!("{what} does not change the ROM {place} at {at:#x}");
        report.equal(name, number::<u64>(at), before);
    };
    // SAFETY: the memory is a ROM, which nothing of Rust's lies in and nothing changes; if it is
    // no ROM after all, what is overwritten is the copy of code that has already run.
    unsafe {
        asm!("mov byte ptr [{0}], {1}", in(reg) pointer, in(reg_byte) !before as u8);
        check("a byte");
        asm!("mov word ptr [{0}], {1:x}", in(reg) pointer, in(reg) !before);
        check("a word");
        asm!("mov dword ptr [{0}], {1:e}", in(reg) pointer, in(reg) !before);
        check("a doubleword");
        asm!("mov qword ptr [{0}], {1}", in(reg) pointer, in(reg) !before);
        check("a quadword");
        asm!("not qword ptr [{0}]", in(reg) pointer);
        check("NOT");
        asm!("rep stosb", inout("rdi") pointer => _, inout("rcx") 8_u64 => _, in("al") !before as u8);
        check("REP STOSB");
        if at.is_multiple_of(8) {
            let mut found = !before;
            asm!("xchg qword ptr [{0}], {1}", in(reg) pointer, inout(reg) found);
            check("XCHG");
            let mut sum = 1_u64;
            asm!("lock xadd qword ptr [{0}], {1}", in(reg) pointer, inout(reg) sum);
            check("LOCK XADD");
            let name = format_args!("locked instructions read the ROM {place} at {at:#x}");
            report.equal(name, (found, sum), (before, before));
        }
    }
}
