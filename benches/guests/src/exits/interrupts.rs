// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts that a CPU sends itself, and their end.

use core::sync::atomic::{AtomicU64, Ordering};

use bare_metal::rt::apic::{self, EOI, ICR_ASSERT, ICR_LOW, ICR_SELF};
use bare_metal::rt::cpu;
use bare_metal::rt::trap;

use crate::apic::{Mode, SELF_IPI};
use crate::samples::{Bench, ticks};

const VECTOR: u64 = 0x61;

/// Ticks of the last end of interrupt.
static END_TICKS: AtomicU64 = AtomicU64::new(0);

/// The write that ends an interrupt which is in service.
pub fn end(bench: &Bench, name: &str, mode: Mode) {
    let handler: trap::Handler = match mode {
        Mode::Xapic => |_| END_TICKS.store(ticks(|| Mode::Xapic.write(EOI, 0)), Ordering::Relaxed),
        Mode::X2apic => {
            |_| END_TICKS.store(ticks(|| Mode::X2apic.write(EOI, 0)), Ordering::Relaxed)
        }
    };
    trap::handle(VECTOR, Some(handler));
    bench.sample(name, |_| {
        apic::send(0, ICR_SELF | ICR_ASSERT | VECTOR as u32);
        cpu::open_interrupt_window();
        END_TICKS.load(Ordering::Relaxed)
    });
    trap::handle(VECTOR, None);
}

/// A self-IPI from the write that sends it to the instruction after it: sent, taken and ended.
pub fn own(bench: &Bench, name: &str, mode: Mode) {
    let handler: trap::Handler = match mode {
        Mode::Xapic => |_| Mode::Xapic.write(EOI, 0),
        Mode::X2apic => |_| Mode::X2apic.write(EOI, 0),
    };
    trap::handle(VECTOR, Some(handler));
    cpu::enable_interrupts();
    bench.operation(name, || match mode {
        Mode::Xapic => mode.write(ICR_LOW, ICR_SELF | ICR_ASSERT | VECTOR as u32),
        Mode::X2apic => mode.write(SELF_IPI, VECTOR as u32),
    });
    cpu::disable_interrupts();
    trap::handle(VECTOR, None);
}
