// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC in xAPIC and x2APIC mode, and the IOAPIC.

use core::ptr;

use super::cpu;

/// Register page of the local APIC.
pub const LAPIC: u64 = 0xFEE0_0000;
/// Register page of the IOAPIC.
pub const IOAPIC: u64 = 0xFEC0_0000;

pub const MSR_APIC_BASE: u32 = 0x1B;
pub const MSR_TSC_DEADLINE: u32 = 0x6E0;
const MSR_X2APIC: u32 = 0x800;

pub const ENABLE: u64 = 1 << 11;
pub const X2APIC: u64 = 1 << 10;

/// Offsets of registers in the page.
pub const ID: u32 = 0x20;
pub const VERSION: u32 = 0x30;
pub const TPR: u32 = 0x80;
pub const PPR: u32 = 0xA0;
pub const EOI: u32 = 0xB0;
pub const SPURIOUS: u32 = 0xF0;
pub const ISR: u32 = 0x100;
pub const IRR: u32 = 0x200;
pub const ESR: u32 = 0x280;
pub const ICR_LOW: u32 = 0x300;
pub const ICR_HIGH: u32 = 0x310;
pub const LVT_TIMER: u32 = 0x320;
pub const LVT_LINT0: u32 = 0x350;
pub const INITIAL_COUNT: u32 = 0x380;
pub const CURRENT_COUNT: u32 = 0x390;
pub const DIVIDE: u32 = 0x3E0;

/// Bits of a local vector table entry.
pub const MASKED: u32 = 1 << 16;
pub const PERIODIC: u32 = 1 << 17;
pub const TSC_DEADLINE: u32 = 2 << 17;

/// Delivery modes and shorthands of the interrupt command register.
pub const ICR_NMI: u32 = 4 << 8;
pub const ICR_INIT: u32 = 5 << 8;
pub const ICR_STARTUP: u32 = 6 << 8;
pub const ICR_ASSERT: u32 = 1 << 14;
pub const ICR_SELF: u32 = 1 << 18;
pub const ICR_ALL_BUT_SELF: u32 = 3 << 18;
const ICR_PENDING: u32 = 1 << 12;

/// Vector for spurious interrupts.
pub const SPURIOUS_VECTOR: u64 = 0xFF;

/// Whether x2APIC mode is on.
pub fn is_x2apic() -> bool {
    cpu::rdmsr(MSR_APIC_BASE) & X2APIC != 0
}

/// Reads a register, in whichever mode the APIC is.
pub fn read(register: u32) -> u32 {
    if is_x2apic() {
        return cpu::rdmsr(MSR_X2APIC + (register >> 4)) as u32;
    }
    // SAFETY: the page is the APIC's and identity-mapped.
    unsafe { ptr::read_volatile((LAPIC + u64::from(register)) as *const u32) }
}

/// Writes a register, in whichever mode the APIC is.
pub fn write(register: u32, value: u32) {
    if is_x2apic() {
        // SAFETY: APIC registers do not change how memory is seen.
        unsafe { cpu::wrmsr(MSR_X2APIC + (register >> 4), u64::from(value)) };
        return;
    }
    // SAFETY: the page is the APIC's and identity-mapped.
    unsafe { ptr::write_volatile((LAPIC + u64::from(register)) as *mut u32, value) };
}

/// Switches the APIC on; `x2apic` must not go from true to false.
pub fn enable(x2apic: bool) {
    let mode = if x2apic { ENABLE | X2APIC } else { ENABLE };
    let base = cpu::rdmsr(MSR_APIC_BASE);
    // SAFETY: the register page stays where it is.
    unsafe { cpu::wrmsr(MSR_APIC_BASE, base & !(ENABLE | X2APIC) | mode) };
    write(TPR, 0);
    write(LVT_TIMER, MASKED);
    write(LVT_LINT0, MASKED);
    write(SPURIOUS, 0x100 | SPURIOUS_VECTOR as u32);
}

/// Goes back from x2APIC to xAPIC mode by way of switched off.
pub fn back_to_xapic() {
    let base = cpu::rdmsr(MSR_APIC_BASE) & !(ENABLE | X2APIC);
    // SAFETY: the register page stays where it is.
    unsafe { cpu::wrmsr(MSR_APIC_BASE, base) };
    enable(false);
}

/// Ends the interrupt in service.
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends an interprocessor interrupt to the APIC with this identifier; shorthands ignore it.
pub fn send(target: u32, command: u32) {
    if is_x2apic() {
        let value = u64::from(target) << 32 | u64::from(command);
        // SAFETY: the receivers' handlers keep all registers.
        unsafe { cpu::wrmsr(MSR_X2APIC + (ICR_LOW >> 4), value) };
        return;
    }
    write(ICR_HIGH, target << 24);
    write(ICR_LOW, command);
    let mut looks = 0;
    while read(ICR_LOW) & ICR_PENDING != 0 && looks < 1_000_000 {
        looks += 1;
    }
}

/// This CPU's identifier.
pub fn id() -> u32 {
    if is_x2apic() { read(ID) } else { read(ID) >> 24 }
}

/// Whether a vector's bit is set in one of the 256-bit registers [`ISR`] and [`IRR`].
pub fn vector_bit(register: u32, vector: u64) -> bool {
    let word = read(register + (vector as u32 >> 5) * 0x10);
    word >> (vector & 31) & 1 == 1
}

/// Index of the IOAPIC's version register.
pub const IOAPIC_VERSION: u32 = 1;
/// Index of the low half of the redirection entry of an input; the high half follows.
pub const fn redirection(input: u32) -> u32 {
    0x10 + 2 * input
}

/// Bits of a redirection entry's low half.
pub const REMOTE_IRR: u32 = 1 << 14;
pub const LEVEL: u32 = 1 << 15;

/// Reads an IOAPIC register.
pub fn ioapic_read(index: u32) -> u32 {
    // SAFETY: the page is the IOAPIC's and identity-mapped.
    unsafe {
        ptr::write_volatile(IOAPIC as *mut u32, index);
        ptr::read_volatile((IOAPIC + 0x10) as *const u32)
    }
}

/// Writes an IOAPIC register.
pub fn ioapic_write(index: u32, value: u32) {
    // SAFETY: the page is the IOAPIC's and identity-mapped.
    unsafe {
        ptr::write_volatile(IOAPIC as *mut u32, index);
        ptr::write_volatile((IOAPIC + 0x10) as *mut u32, value);
    }
}

/// Routes an input to a vector of the CPU with APIC identifier 0.
pub fn route(input: u32, low: u32) {
    ioapic_write(redirection(input) + 1, 0);
    ioapic_write(redirection(input), low);
}

/// Ends a level-triggered interrupt at the IOAPIC itself; versions before 0x20 cannot.
pub fn ioapic_end(vector: u32) {
    const EOI: u64 = 0x40;
    // SAFETY: the page is the IOAPIC's and identity-mapped.
    unsafe { ptr::write_volatile((IOAPIC + EOI) as *mut u32, vector) };
}
