// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device registers in port and memory space.

use core::ptr;

use bare_metal::rt::apic::{IOAPIC, IOAPIC_VERSION, TPR, VERSION};
use bare_metal::rt::console::SCRATCH;
use bare_metal::rt::cpu::{in8, out8};

use crate::apic::Mode;
use crate::samples::Bench;

/// A port of no device.
const UNCLAIMED: u16 = 0x5F0;
/// The mask of the first 8259A.
const PIC_MASK: u16 = 0x21;
/// Offset of the IOAPIC's data register; its index register is at the start.
const WINDOW: u64 = 0x10;

/// Ports: one of nobody, one that may be answered in a kernel, and the serial port.
pub fn ports(bench: &Bench) {
    bench.operation("port-read-unclaimed", || {
        in8(UNCLAIMED);
    });
    bench.operation("port-write-unclaimed", || out8(UNCLAIMED, 0));
    bench.operation("port-read-pic", || {
        in8(PIC_MASK);
    });
    bench.operation("port-read-uart", || {
        in8(SCRATCH);
    });
    bench.operation("port-write-uart", || out8(SCRATCH, 0x5A));
}

/// The IOAPIC's two registers.
pub fn ioapic(bench: &Bench) {
    // SAFETY: the page is the IOAPIC's and identity-mapped; an index changes nothing else.
    let select = || unsafe { ptr::write_volatile(IOAPIC as *mut u32, IOAPIC_VERSION) };
    bench.operation("ioapic-write", select);
    bench.operation("ioapic-read", || {
        // SAFETY: the page is the IOAPIC's and identity-mapped.
        unsafe { ptr::read_volatile((IOAPIC + WINDOW) as *const u32) };
    });
}

/// The local APIC, reached by memory.
pub fn local_apic(bench: &Bench) {
    bench.operation("xapic-read", || {
        Mode::Xapic.read(VERSION);
    });
    bench.operation("xapic-write", || Mode::Xapic.write(TPR, 0));
}
