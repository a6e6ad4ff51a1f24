// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single acts at privilege level 0 whose effects random instructions then meet.

use core::arch::asm;
use core::ptr;

use super::random::Random;
use super::{recover, tables, undo, values};
use crate::rt::cpu::{self, in8, in16, in32, out8, out16, out32};
use crate::rt::{apic, paging, pit, start_info};

const ACTS: &[fn(&mut Random)] = &[
    page_table,
    page_table,
    descriptor,
    gate,
    msr,
    msr,
    control_register,
    debug_registers,
    ports,
    ports,
    registers_in_memory,
    registers_in_memory,
    registers_in_memory,
    pci,
    interrupts,
    timers,
    segment,
    caches,
    string,
];

/// Commits one.
pub fn commit(random: &mut Random) {
    random.pick(ACTS, ports)(random);
}

fn frame(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.next() & 0x000F_FFFF_FFFF_F000,
        1 => values::address(random) & 0x000F_FFFF_FFFF_F000 & !0x1F_FFFF,
        2 => tables::boot_directory_entry(0) & !0xFFF,
        _ => values::address(random) & 0x000F_FFFF_FFFF_F000,
    }
}

/// Changes a page-table entry, at a level of any kind, and uses it.
fn page_table(random: &mut Random) {
    let flags = random.next() & 0x8000_0000_0000_01FF | u64::from(!random.one_in(4));
    let entry = match random.below(16) {
        0 => random.next(),
        _ => frame(random) | flags,
    };
    let at = match random.below(4) {
        // A page of the window.
        0 | 1 => {
            let index = random.below(4) as usize;
            paging::map(index, entry);
            paging::page(index)
        }
        2 => {
            let index = 1 + random.below(3);
            paging::set_directory_entry(index as usize, entry);
            paging::WINDOW + (index << 21)
        }
        // Of the first 4 GiB; now and then where this program is.
        _ => {
            let index = if random.one_in(32) { 0 } else { 8 + random.below(2040) };
            undo::write(tables::boot_directory_entry(index), entry);
            index << 21
        }
    };
    if random.one_in(2) {
        flush(random, at);
    }
    if random.one_in(2) {
        let offset = random.below(0x1000);
        touch(random, at + offset);
    }
}

fn flush(random: &mut Random, at: u64) {
    match random.below(3) {
        0 => {
            // SAFETY: the same tables again.
            unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _) };
        }
        1 => {
            // SAFETY: a translation that is forgotten is made again.
            unsafe { asm!("invlpg [{}]", in(reg) at) };
        }
        _ => {
            const PGE: u64 = 1 << 7;
            let cr4 = cpu::read_cr4();
            // SAFETY: no page is global.
            unsafe {
                cpu::write_cr4(cr4 ^ PGE);
                cpu::write_cr4(cr4);
            }
        }
    }
}

/// Reads or writes, of any width.
fn touch(random: &mut Random, at: u64) {
    let value = random.next();
    // SAFETY: what this destroys is this guest's own.
    unsafe {
        match random.below(10) {
            0 => drop(ptr::read_volatile(at as *const u8)),
            1 => drop(ptr::read_unaligned(at as *const u16)),
            2 | 3 => drop(ptr::read_unaligned(at as *const u32)),
            4 => drop(ptr::read_unaligned(at as *const u64)),
            5 => ptr::write_volatile(at as *mut u8, value as u8),
            6 => ptr::write_unaligned(at as *mut u16, value as u16),
            7 | 8 => ptr::write_unaligned(at as *mut u32, value as u32),
            _ => ptr::write_unaligned(at as *mut u64, value),
        }
    }
}

/// Changes a descriptor, those in use among them.
fn descriptor(random: &mut Random) {
    let slot = if random.one_in(16) { random.below(16) } else { random.pick(&[8, 9, 13, 15], 9) };
    let mut value = values::descriptor(random);
    // System descriptors of tasks, where there must be no task switch.
    if !tables::has_task_switches() {
        value |= 1 << 44;
    }
    undo::write((&raw const recover::torture_gdt) as u64 + slot * 8, value);
}

/// Changes a gate, seldom one of an exception.
fn gate(random: &mut Random) {
    let vector = if random.one_in(16) { random.below(32) } else { 32 + random.below(224) };
    let mut value = random.next();
    if !random.one_in(4) {
        let (selector, offset) = (u64::from(values::selector(random)), values::CODE);
        let kind = 0x80 | random.next() & 0x7F;
        value = offset & 0xFFFF | selector << 16 | kind << 40;
    }
    if random.one_in(2) {
        undo::write((&raw const recover::torture_idt) as u64 + vector * 16, value);
        return;
    }
    // A task gate.
    if !tables::has_task_switches() && value >> 40 & 0x1F == 5 {
        value ^= 1 << 40;
    }
    undo::write((&raw const recover::torture_idt32) as u64 + vector * 8, value);
}

fn msr(random: &mut Random) {
    let index = values::msr(random);
    let old = cpu::rdmsr(index);
    let value = match random.below(4) {
        0 => random.next(),
        1 => values::register(random),
        2 => old ^ 1 << random.below(64),
        _ => random.magnitude(),
    };
    // SAFETY: what this destroys is this guest's own; what the program needs is loaded again.
    unsafe { cpu::wrmsr(index, value) };
}

/// Flips one bit of a control register, which the random instructions then find like that.
fn control_register(random: &mut Random) {
    let bit = if random.one_in(8) { random.below(64) } else { random.below(32) };
    // PE stays; see `Code::leave_out`.
    let of_cr0 = if start_info::is_bochs_svm() { bit.max(1) } else { bit };
    // SAFETY: the way back loads them again.
    unsafe {
        match random.below(6) {
            0 | 1 => cpu::write_cr0(cpu::read_cr0() ^ 1 << of_cr0),
            2 | 3 => cpu::write_cr4(cpu::read_cr4() ^ 1 << bit),
            4 => cpu::write_cr8(random.magnitude()),
            _ => {
                let (low, high) = (random.magnitude() as u32, random.magnitude() as u32);
                let register = random.below(4) as u32 & 1;
                asm!("xsetbv", in("ecx") register, in("eax") low, in("edx") high & 1);
            }
        }
    }
}

fn debug_registers(random: &mut Random) {
    let at = if random.one_in(2) { values::CODE } else { values::address(random) };
    let (other, control) = (values::address(random), random.next());
    let control = if random.one_in(8) { control } else { control & 0xFFFF_23FF | 0x400 };
    // No breakpoint is on; see `Code::leave_out`.
    let enabled = if start_info::is_tcg_cpu() { 0xFF } else { 0 };
    // SAFETY: the way back switches breakpoints off.
    unsafe {
        asm!("mov dr0, {0}", "mov dr3, {1}", "mov dr7, {2}", in(reg) at, in(reg) other,
             in(reg) control & !enabled);
    }
}

fn ports(random: &mut Random) {
    for _ in 0..=random.below(6) {
        let (port, value) = (values::port(random), random.next());
        match random.below(8) {
            0 => drop(in8(port)),
            1 => drop(in16(port)),
            2 => drop(in32(port)),
            3..=5 => out8(port, value as u8),
            6 => out16(port, value as u16),
            _ => out32(port, value as u32),
        }
    }
}

/// Registers of devices in memory.
fn registers_in_memory(random: &mut Random) {
    const PAGES: [u64; 6] =
        [apic::LAPIC, apic::LAPIC, apic::IOAPIC, 0xFED0_0000, 0xB000_0000, paging::UNOWNED];
    let page = random.pick(&PAGES, apic::LAPIC);
    for _ in 0..=random.below(6) {
        let offset = if random.one_in(4) { random.below(0x1000) } else { random.below(0x40) << 4 };
        touch(random, page + offset);
    }
}

fn pci(random: &mut Random) {
    let address = match random.below(4) {
        0 => random.next() as u32,
        _ => 0x8000_0000 | random.next() as u32 & 0xFFFC,
    };
    out32(0xCF8, address);
    match random.below(4) {
        0 => drop(in32(0xCFC)),
        1 => out32(0xCFC, random.next() as u32),
        2 => out16(0xCFE, random.next() as u16),
        _ => out8(0xCFC + random.below(4) as u16, random.next() as u8),
    }
}

/// Interprocessor interrupts, redirection entries and local vectors of every kind.
fn interrupts(random: &mut Random) {
    match random.below(4) {
        0 => {
            // To itself, or to whoever is meant.
            let command = random.next() as u32 & 0xC_CFFF;
            apic::send(random.magnitude() as u32, command);
        }
        1 => {
            let input = random.below(24) as u32;
            apic::ioapic_write(apic::redirection(input), random.next() as u32 & 0x1_FFFF);
            apic::ioapic_write(apic::redirection(input) + 1, random.next() as u32);
        }
        2 => {
            let entry = random.pick(&[0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370], 0x320);
            apic::write(entry, random.next() as u32 & 0x7_F7FF);
        }
        _ => {
            for _ in 0..8 {
                apic::send(0, apic::ICR_SELF | 0x20 | random.next() as u32 & 0xDF);
            }
        }
    }
}

/// Timers that go off soon, often or never.
fn timers(random: &mut Random) {
    match random.below(5) {
        0 => {
            apic::write(apic::LVT_TIMER, apic::PERIODIC | 0x20 | random.next() as u32 & 0xFF);
            apic::write(apic::INITIAL_COUNT, random.magnitude() as u32);
        }
        1 => {
            apic::write(apic::LVT_TIMER, apic::TSC_DEADLINE | 0x20 | random.next() as u32 & 0xDF);
            let deadline = cpu::tsc().wrapping_add(random.magnitude() >> 32);
            // SAFETY: it only interrupts.
            unsafe { cpu::wrmsr(apic::MSR_TSC_DEADLINE, deadline) };
        }
        2 => pit::start_channel0(random.below(6) as u8, random.magnitude() as u16),
        3 => {
            out8(0x70, 0x0A + random.below(2) as u8);
            out8(0x71, random.next() as u8);
        }
        _ => {
            // HPET: on, and a comparator.
            let value = random.next();
            // SAFETY: registers of a device.
            unsafe {
                ptr::write_volatile(0xFED0_0010 as *mut u64, value & 3);
                ptr::write_volatile(0xFED0_0100 as *mut u64, value >> 8 & 0xFFFF);
                ptr::write_volatile(0xFED0_0108 as *mut u64, random.magnitude());
            }
        }
    }
}

/// Loads a segment register of any kind with any selector.
fn segment(random: &mut Random) {
    let selector = values::selector(random);
    // SAFETY: the way back loads them again.
    unsafe {
        match random.below(6) {
            0 => asm!("mov ds, {:x}", in(reg) selector),
            1 => asm!("mov es, {:x}", in(reg) selector),
            2 => asm!("mov fs, {:x}", in(reg) selector),
            3 => asm!("mov gs, {:x}", in(reg) selector),
            4 => asm!("lldt {:x}", in(reg) selector),
            // See `Code::leave_out`.
            _ if start_info::is_tcg_cpu() => asm!("mov ds, {:x}", in(reg) selector),
            _ => asm!("ltr {:x}", in(reg) selector),
        }
    }
}

fn caches(random: &mut Random) {
    let (at, kind) = (values::address(random), random.below(6));
    let descriptor = [random.magnitude() & 0xFFF, at];
    // SAFETY: these change nothing but what is remembered of memory and translations.
    unsafe {
        match kind {
            0 => asm!("wbinvd"),
            1 => asm!("invd"),
            2 => asm!("clflush [{}]", in(reg) at),
            3 => asm!("invlpg [{}]", in(reg) at),
            _ => asm!("invpcid {}, [{}]", in(reg) kind & 3, in(reg) &raw const descriptor),
        }
    }
}

/// String instructions that run into devices, over ends of memory, or for very long.
fn string(random: &mut Random) {
    let count = if random.one_in(4) { random.magnitude() } else { random.below(0x2000) };
    let (from, to) = (values::address(random), values::address(random));
    let port = values::port(random);
    // SAFETY: what this destroys is this guest's own; it is interrupted if it takes long.
    unsafe {
        match random.below(5) {
            0 => asm!("sti", "rep movsb", "cli", inout("rsi") from => _, inout("rdi") to => _,
                inout("rcx") count => _),
            1 => asm!("sti", "rep movsq", "cli", inout("rsi") from => _, inout("rdi") to => _,
                inout("rcx") count => _),
            2 => asm!("sti", "rep insb", "cli", inout("rdi") to => _, inout("rcx") count => _,
                in("dx") port),
            3 => asm!("sti", "rep outsd", "cli", inout("rsi") from => _, inout("rcx") count => _,
                in("dx") port),
            _ => asm!("sti", "rep stosd", "cli", inout("rdi") values::DATA => _,
                inout("rcx") count & 0x3FF => _, in("eax") port),
        }
    }
}
