// SPDX-License-Identifier: MIT OR Apache-2.0
//! What single operations cost, in ticks of the time-stamp counter, that may leave the guest.

mod devices;
mod instructions;
mod interrupts;
mod memory;
mod timer;

use bare_metal::rt::{apic, cpu, pic};

use crate::apic::Mode;
use crate::samples::Bench;

/// Measures everything; there is nothing that could fail.
pub fn run() -> u32 {
    pic::init();
    apic::enable(false);
    let bench = Bench::new();
    instructions::run(&bench);
    devices::ports(&bench);
    devices::ioapic(&bench);
    memory::run(&bench);
    devices::local_apic(&bench);
    interrupts::end(&bench, "xapic-eoi", Mode::Xapic);
    interrupts::own(&bench, "xapic-self-ipi", Mode::Xapic);
    if cpu::cpuid(1, 0)[2] >> 21 & 1 == 0 {
        bench.skip("x2apic-*", "the CPU does not have it");
        timer::run(&bench, Mode::Xapic);
        return 0;
    }
    apic::enable(true);
    interrupts::end(&bench, "x2apic-eoi", Mode::X2apic);
    interrupts::own(&bench, "x2apic-self-ipi", Mode::X2apic);
    timer::run(&bench, Mode::X2apic);
    0
}
