// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single instructions.
//!
//! A guest owns its whole machine and starts no DMA, so port I/O cannot reach memory that Rust
//! knows of and is safe here; what changes how memory is seen (control registers, MSRs) is not.

use core::arch::asm;

macro_rules! port_io {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        pub fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                     options(nomem, nostack, preserves_flags));
            }
            value
        }

        pub fn $write(port: u16, value: $type) {
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                     options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port_io!(in8, out8, u8, "al");
port_io!(in16, out16, u16, "ax");
port_io!(in32, out32, u32, "eax");

/// Reads an MSR that exists; an unknown one raises #GP.
pub fn rdmsr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an MSR changes nothing that Rust relies on.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
/// The value must not change how the running code and its data are seen.
pub unsafe fn wrmsr(index: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack));
    }
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: a read without side effects.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }

        /// # Safety
        /// The value must not change how the running code and its data are seen.
        pub unsafe fn $write(value: u64) {
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

control_register!(read_cr0, write_cr0, "cr0");
control_register!(read_cr3, write_cr3, "cr3");
control_register!(read_cr4, write_cr4, "cr4");
control_register!(read_cr8, write_cr8, "cr8");
control_register!(read_dr6, write_dr6, "dr6");
control_register!(read_dr7, write_dr7, "dr7");

pub fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: a read without side effects.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack)) };
    value
}

/// The time-stamp counter, read in program order.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: a read without side effects.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// One CPUID leaf: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// Stops the CPU until an NMI, SMI, INIT or reset.
pub fn halt_forever() {
    // SAFETY: nothing is touched.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}

/// Waits for a non-maskable interrupt.
pub fn halt_once() {
    // SAFETY: handlers keep all registers.
    unsafe { asm!("hlt") };
}

/// Lets interrupts in and waits for one; they are off again afterwards.
pub fn wait_for_interrupt() {
    // SAFETY: handlers keep all registers; `sti` takes effect after `hlt` has begun.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Lets pending interrupts in for a moment.
pub fn open_interrupt_window() {
    // SAFETY: handlers keep all registers.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

pub fn enable_interrupts() {
    // SAFETY: handlers keep all registers.
    unsafe { asm!("sti") };
}

pub fn disable_interrupts() {
    // SAFETY: only IF changes.
    unsafe { asm!("cli") };
}

/// Whether this is bare QEMU without hardware virtualization (TCG): the reference that says what
/// a machine does. Its few known departures from the manuals are allowed for there only.
pub fn is_bare_tcg() -> bool {
    cpuid(1, 0)[2] >> 31 == 1 && {
        let [_, b, c, d] = cpuid(0x4000_0000, 0);
        [b, c, d]
            == [
                u32::from_le_bytes(*b"TCGT"),
                u32::from_le_bytes(*b"CGTC"),
                u32::from_le_bytes(*b"GTCG"),
            ]
    }
}
