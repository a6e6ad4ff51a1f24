// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports and guest-physical pages that nobody owns.
//!
//! Reads of nothing give all ones and writes are dropped. QEMU departs from that in two places,
//! which are allowed for on bare QEMU only: guest-physical pages of nobody read as zero, and so do
//! ports of nobody when the access is not aligned.

use core::ptr;

use crate::rt::cpu::{self, in8, in16, in32, out8, out16, out32};
use crate::rt::paging::{self, NO_EXECUTE, PRESENT, WRITABLE};
use crate::rt::report::Report;

/// Ports at which even a read may do something: keyboard controller (may reset), system control
/// port A, APM control (may raise an SMI), exit device, reset control, PM1 control (may switch
/// off) and what else the power management block has.
fn has_side_effects(port: u16) -> bool {
    matches!(port, 0x60 | 0x64 | 0x92 | 0xB2..=0xB3 | 0xF4..=0xF7 | 0xCF8..=0xCFF | 0x600..=0x67F)
}

/// Ports that belong to no device of a PC of this kind.
const UNCLAIMED: [u16; 8] = [0x2F0, 0x350, 0x5F0, 0x900, 0x1234, 0x5658 + 0x10, 0xABCC, 0xFFF0];

/// Guest-physical pages of no device: below the IOAPIC, between it and the local APIC.
const UNOWNED: [u64; 3] = [0xFEB0_0000, 0xFEC8_0000, 0xFED8_0000];

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    ports(&mut report);
    misaligned_ports(&mut report);
    pages(&mut report);
    end_of_physical_address_space(&mut report);
    report.finish()
}

/// What a wide, misaligned read of ports that nobody owns gives.
fn misaligned_ports(report: &mut Report) {
    let ones = if cpu::is_bare_tcg() { 0 } else { u32::MAX };
    report.equal("misaligned port word", u32::from(in16(0xABCD)), ones & 0xFFFF);
    report.equal("misaligned port long", in32(0xABCD), ones);
}

/// Bare QEMU aborts on a wide read that begins inside its serial port and ends beyond it.
fn aborts_bare_qemu(port: u16, width: u16) -> bool {
    port <= 0x3FF && port + width > 0x400 && cpu::is_bare_tcg()
}

fn ports(report: &mut Report) {
    for port in UNCLAIMED {
        report.equal(format_args!("port {port:#x} byte"), in8(port), u8::MAX);
        report.equal(format_args!("port {port:#x} word"), in16(port), u16::MAX);
        report.equal(format_args!("port {port:#x} long"), in32(port), u32::MAX);
        out8(port, 0);
        out16(port, 0);
        out32(port, 0);
        report.equal(format_args!("port {port:#x} drops writes"), in32(port), u32::MAX);
    }
    let mut claimed = 0_u64;
    for port in (0..=u16::MAX).filter(|&port| !has_side_effects(port)) {
        let byte = in8(port);
        if port < 0xFFFF && !aborts_bare_qemu(port, 2) {
            in16(port);
        }
        if port < 0xFFFD && !aborts_bare_qemu(port, 4) {
            in32(port);
        }
        claimed += u64::from(byte != u8::MAX);
    }
    // A PC has about a hundred; far more would mean that reads of nothing give something.
    report.within("ports that answer", claimed, 8, 1024);
}

fn pages(report: &mut Report) {
    let ones = paging::nothing();
    for address in UNOWNED {
        for offset in [0, 0x10, 0xFF8] {
            let at = address + offset;
            // SAFETY: no memory and no device is there.
            unsafe {
                report.equal(
                    format_args!("{at:#x} byte"),
                    ptr::read_volatile(at as *const u8),
                    ones as u8,
                );
                let word = ptr::read_volatile(at as *const u16);
                report.equal(format_args!("{at:#x} word"), word, ones as u16);
                let long = ptr::read_volatile(at as *const u32);
                report.equal(format_args!("{at:#x} long"), long, ones as u32);
                let quad = ptr::read_volatile(at as *const u64);
                report.equal(format_args!("{at:#x} quad"), quad, ones);
                ptr::write_volatile(at as *mut u64, 0x1234);
                let quad = ptr::read_volatile(at as *const u64);
                report.equal(format_args!("{at:#x} drops writes"), quad, ones);
            }
        }
    }
}

/// The last page that CPUID says can be addressed.
fn end_of_physical_address_space(report: &mut Report) {
    let bits = cpu::cpuid(0x8000_0008, 0)[0] & 0xFF;
    report.within("physical address bits", bits.into(), 32, 52);
    let last = (1_u64 << bits.clamp(32, 52)) - paging::PAGE;
    for frame in [last, last >> 1 & !0xFFF, 1 << (bits.clamp(32, 52) - 1)] {
        paging::map(0, frame | PRESENT | WRITABLE | NO_EXECUTE);
        let pointer = paging::page(0) as *mut u64;
        // SAFETY: no memory and no device is there.
        let (before, after) = unsafe {
            let before = ptr::read_volatile(pointer);
            ptr::write_volatile(pointer, 0);
            (before, ptr::read_volatile(pointer))
        };
        report.equal(format_args!("{frame:#x} reads as nothing"), before, paging::nothing());
        report.equal(format_args!("{frame:#x} drops writes"), after, paging::nothing());
    }
    paging::map(0, 0);
}
