// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that does what it should not: the command line names one act.
//!
//! It prints a line and ends with exit value 0 when it survives the act. Not for bare QEMU: some
//! acts abort that.

use core::arch::asm;
use core::ptr;

use crate::rt::cpu::{self, in8, in16, in32, out8, out16, out32};
use crate::rt::paging::{self, PRESENT, SCRATCH, WRITABLE};
use crate::rt::segments::TablePointer;
use crate::rt::trap::{Place, try_rdmsr, try_wrmsr};
use crate::rt::{apic, pit, start_info};

/// The acts by name.
const ACTS: [(&str, fn()); 14] = [
    ("triple", triple_fault),
    ("spin", spin),
    ("svm", svm),
    ("ports", ports),
    ("msrs", msrs),
    ("devices", devices),
    ("pci", pci),
    ("jump", jump),
    ("hlt", halt),
    ("pagetables", page_tables),
    ("interrupts", interrupts),
    ("strings", strings),
    ("registers", control_registers),
    ("caches", cache_control),
];

/// Commits the act that the command line names.
pub fn run() -> u32 {
    if let Some(value) = start_info::words().find_map(|word| word.strip_prefix("exit=")) {
        return value.parse().unwrap_or(u32::MAX);
    }
    let Some((name, act)) = ACTS.iter().find(|(name, _)| start_info::has_word(name)) else {
        println!("hostile: name one act on the command line: exit=N or");
        for (name, _) in ACTS {
            println!("  {name}");
        }
        return 1;
    };
    println!("hostile: {name}");
    act();
    println!("hostile: survived {name}");
    0
}

/// A stream of numbers that look random and are the same on every run (xorshift64).
struct Garbage(u64);

impl Garbage {
    const fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Without an IDT the first exception is the last.
fn triple_fault() {
    let none = TablePointer::default();
    // SAFETY: nothing after it runs.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const none) };
}

fn spin() {
    cpu::disable_interrupts();
    loop {
        core::hint::spin_loop();
    }
}

/// Every instruction of SVM, with and without the permission that should not be given.
fn svm() {
    const EFER: u32 = 0xC000_0080;
    // SAFETY: the bit concerns only the instructions below.
    let enabled = unsafe { try_wrmsr(EFER, cpu::rdmsr(EFER) | 1 << 12) };
    // SAFETY: the register, if there, only names a page for the CPU.
    let host_save = unsafe { try_wrmsr(0xC001_0117, SCRATCH.address()) };
    println!("hostile: EFER.SVME {enabled}, VM_HSAVE_PA {host_save}");
    let rax = SCRATCH.address();
    let traps = [
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xD8"], in("rax") rax),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDA"], in("rax") rax),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDB"], in("rax") rax),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDC"]),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDD"]),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xDF"], in("rax") rax, in("rcx") 0),
        run!(Place::KERNEL, [".byte 0x0F, 0x01, 0xD9"], in("rax") u64::MAX, in("rcx") u64::MAX,
            in("rdx") u64::MAX, in("rdi") u64::MAX, in("rsi") u64::MAX),
    ];
    for trap in traps {
        println!("hostile: vector {:#x}", trap.frame.vector);
    }
}

/// Ports whose writes end or switch off the machine: exit device, reset control, keyboard
/// controller and system control port A, PM1 control, APM control.
fn ends_the_machine(port: u16) -> bool {
    matches!(port, 0x60..=0x64 | 0x92 | 0xB2..=0xB3 | 0xF1..=0xF7 | 0xCF6..=0xCFF | 0x600..=0x67F)
}

/// Garbage of every width to every port.
fn ports() {
    let mut garbage = Garbage::new();
    for port in (0..=0xFFFC).filter(|&port| !ends_the_machine(port)) {
        // The console should stay readable: its registers get theirs at the end.
        if (0x3F5..=0x3FF).contains(&port) {
            continue;
        }
        let value = garbage.next();
        out8(port, value as u8);
        out16(port, value as u16);
        out32(port, value as u32);
        in8(port);
        in16(port);
        in32(port);
    }
    for _ in 0..1000 {
        let value = garbage.next();
        let port = 0x3F9 + (value >> 32) as u16 % 7;
        out8(port, value as u8);
        in8(port);
    }
    crate::rt::console::init();
}

/// Garbage to the MSRs of all ranges that CPUs use.
fn msrs() {
    const RANGES: [(u32, u32); 4] =
        [(0, 0x2000), (0x4000_0000, 0x400), (0xC000_0000, 0x400), (0xC001_0000, 0x400)];
    // EFER, the segment bases and the APIC's base would cost the program its footing.
    const KEPT: [u32; 4] = [0x1B, 0xC000_0080, 0xC000_0100, 0xC000_0101];
    let mut garbage = Garbage::new();
    let (mut read, mut written) = (0, 0);
    for (first, count) in RANGES {
        for index in (first..first + count).filter(|index| !KEPT.contains(index)) {
            let value = garbage.next();
            read += u32::from(try_rdmsr(index).is_some());
            for value in [value, value & 0xFFFF_FFFF, value & 0xFF, 0, u64::MAX] {
                // SAFETY: what remains does not change how memory is seen: interrupts are off.
                written += u32::from(unsafe { try_wrmsr(index, value) });
            }
        }
    }
    println!("hostile: {read} reads and {written} writes were accepted");
}

/// Garbage of every width to the register pages of all devices and around them.
fn devices() {
    const PAGES: [u64; 8] = [
        0xFEC0_0000,
        0xFEE0_0000,
        0xFED0_0000,
        0xFED4_0000,
        0xFED1_C000,
        0xB000_0000,
        0xE000_0000,
        0xFEB0_0000,
    ];
    let mut garbage = Garbage::new();
    for page in PAGES {
        for offset in 0..0x1000 - 8 {
            let value = garbage.next();
            // An interrupt command could start a reset of this very CPU.
            if page == 0xFEE0_0000 && (0x2F8..0x320).contains(&offset) {
                continue;
            }
            let at = page + offset;
            // SAFETY: registers or nothing, no memory of this program. No driver is at work.
            unsafe {
                ptr::write_volatile(at as *mut u8, value as u8);
                ptr::write_unaligned(at as *mut u16, value as u16);
                ptr::write_unaligned(at as *mut u32, value as u32);
                ptr::write_unaligned(at as *mut u64, value);
                ptr::read_volatile(at as *const u8);
                ptr::read_volatile((at & !7) as *const u64);
            }
        }
    }
}

/// Garbage to the configuration space of every function on the first bus.
fn pci() {
    let mut garbage = Garbage::new();
    for function in 0..0x100_u32 {
        for register in (0..0x100).step_by(4) {
            out32(0xCF8, 0x8000_0000 | function << 8 | register);
            in32(0xCFC);
            out32(0xCFC, garbage.next() as u32);
            out8(0xCFD, garbage.next() as u8);
            out16(0xCFE, garbage.next() as u16);
        }
    }
    for _ in 0..1000 {
        out32(0xCF8, garbage.next() as u32);
        in32(0xCFC);
        out32(0xCFC, garbage.next() as u32);
    }
}

/// Executes where no memory is, without anyone to catch what comes of it.
fn jump() {
    // SAFETY: whatever this does ends the guest.
    unsafe { asm!("jmp {}", in(reg) paging::UNOWNED) };
}

fn halt() {
    loop {
        cpu::halt_forever();
    }
}

/// Page tables in memory that is not there.
fn page_tables() {
    // SAFETY: whatever this does ends the guest.
    unsafe { cpu::write_cr3(0x000F_FFFF_F000) };
}

/// Interrupts of every kind to every address, with nothing prepared for them.
fn interrupts() {
    apic::enable(false);
    let mut garbage = Garbage::new();
    for _ in 0..10_000 {
        let value = garbage.next();
        let (target, command) = ((value >> 32) as u32 & 0xFF, value as u32);
        // Neither INIT nor SIPI, nor an interrupt to itself in the shape of an NMI.
        if matches!(command >> 8 & 7, 4..=6) {
            continue;
        }
        apic::send(target, command);
    }
    for input in 0..24 {
        apic::ioapic_write(apic::redirection(input), garbage.next() as u32 & !0x700);
    }
    pit::start_channel0(2, 2);
}

/// String I/O with garbage for addresses and counts.
fn strings() {
    let mut garbage = Garbage::new();
    for _ in 0..2_000 {
        let (address, count) = (garbage.next(), garbage.next());
        run!(Place::KERNEL, ["rep outsb"], in("rsi") address, in("rcx") count, in("rdx") 0x80);
        run!(Place::KERNEL, ["rep insd"], in("rdi") address | 1 << 62, in("rcx") count,
            in("rdx") 0x80);
        run!(Place::KERNEL, ["rep outsw"], in("rsi") paging::UNOWNED + (address & 0xFFFF),
            in("rcx") count & 0xFF, in("rdx") 0x80);
        let frame = 0xFE00_0000 | address & 0x1FF_F000;
        paging::map(3, frame | PRESENT | WRITABLE);
        run!(Place::KERNEL, ["rep movsb"], in("rsi") paging::page(3) + 0xF80,
            in("rdi") SCRATCH.get(), in("rcx") 0x80);
    }
}

/// CR0.NW without CR0.CD, which a CPU refuses by #GP; where it does not, the next entry into the
/// guest cannot be made (AMD APM vol. 2, 15.5.1).
fn cache_control() {
    /// Bit 29 of CR0: caches do not write through.
    const NW: u64 = 1 << 29;
    let cr0 = cpu::read_cr0();
    // The first exit has the VMM prepare the entry behind it, and the second may be made with
    // what was prepared.
    run!(Place::KERNEL, ["mov r12, rbx", "cpuid", "cpuid", "mov cr0, rsi", "cpuid",
            "mov cr0, rdi", "mov rbx, r12"],
        inout("rax") 0_u64 => _, inout("rcx") 0_u64 => _, out("rdx") _, in("rsi") cr0 | NW,
        in("rdi") cr0);
}

/// Garbage to the control and debug registers, one bit at a time.
fn control_registers() {
    let (cr0, cr4) = (cpu::read_cr0(), cpu::read_cr4());
    for bit in (1..31).chain(32..64) {
        run!(Place::KERNEL, ["mov cr0, rax", "mov cr0, rdx"], in("rax") cr0 ^ 1 << bit,
            in("rdx") cr0);
        if bit != 5 && bit != 12 && bit != 20 && bit != 21 {
            run!(Place::KERNEL, ["mov cr4, rax", "mov cr4, rdx"], in("rax") cr4 ^ 1 << bit,
                in("rdx") cr4);
        }
        run!(Place::KERNEL, ["mov cr8, rax"], in("rax") 1_u64 << bit);
        run!(Place::KERNEL, ["xsetbv"], in("rax") 1_u64 << bit & 0xFFFF_FFFF,
            in("rdx") 1_u64 << bit >> 32, in("rcx") 0);
    }
    // SAFETY: as it was.
    unsafe {
        cpu::write_cr8(0);
        cpu::write_cr0(cr0);
        cpu::write_cr4(cr4);
    }
}
