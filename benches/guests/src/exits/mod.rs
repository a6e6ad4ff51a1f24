// SPDX-License-Identifier: MIT OR Apache-2.0
//! What single operations cost, in ticks of the time-stamp counter, that may leave the guest.

mod devices;
mod instructions;
mod interrupts;
mod memory;
mod timer;

use bare_metal::rt::start_info::words;
use bare_metal::rt::{apic, cpu, pic};

use crate::apic::Mode;
use crate::samples::Bench;

/// The word on the command line that asks for what takes two CPUs, and for nothing else. Their
/// APIC identifiers are 0 and 1.
const TWO_CPUS: &str = "two-cpus";

/// Measures everything; there is nothing that could fail.
pub fn run() -> u32 {
    pic::init();
    apic::enable(false);
    let bench = Bench::new();
    if words().any(|word| word == TWO_CPUS) {
        between_cpus(&bench);
        return 0;
    }
    instructions::run(&bench);
    devices::ports(&bench);
    devices::ioapic(&bench);
    memory::run(&bench);
    devices::local_apic(&bench);
    interrupts::end(&bench, "xapic-eoi", Mode::Xapic);
    interrupts::own(&bench, "xapic-self-ipi", Mode::Xapic);
    if !has_x2apic() {
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

/// What takes two CPUs.
fn between_cpus(bench: &Bench) {
    let mode = if has_x2apic() { Mode::X2apic } else { Mode::Xapic };
    apic::enable(mode == Mode::X2apic);
    interrupts::round_trip(bench, "ipi-round-trip", mode);
}

fn has_x2apic() -> bool {
    cpu::cpuid(1, 0)[2] >> 21 & 1 == 1
}
