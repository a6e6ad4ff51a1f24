// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts, exactly: how they are addressed, delivered, ordered, masked and ended, by the local
//! APIC in both modes, the I/O APIC and the pair of 8259As.
//!
//! One CPU sends everything to itself. What takes several CPUs is in the guest `smp`.

mod destination;
mod external;
mod ioapic;
mod mode;
mod nmi;
mod priority;

use core::fmt::{Arguments, Debug};

use crate::rt::apic::{self, IRR, ISR, SPURIOUS_VECTOR, TPR, vector_bit};
use crate::rt::report::Report;
use crate::rt::{cpu, interrupts, pic, pit};

/// Results, named by the mode of the local APIC.
struct Results<'a> {
    report: &'a mut Report,
    mode: &'static str,
}

impl Results<'_> {
    fn equal<T: PartialEq + Debug>(&mut self, name: Arguments<'_>, got: T, expected: T) {
        self.report.equal(format_args!("{}, {name}", self.mode), got, expected);
    }

    fn skip(&self, name: &str, why: &str) {
        self.report.skip(format_args!("{}, {name}", self.mode), why);
    }
}

/// Lets in all that waits, in order.
fn drain() {
    for _ in 0..4 {
        cpu::open_interrupt_window();
    }
}

/// How often `vector` comes when it is let in, and whether anything of it is left.
fn arrivals(vector: u64) -> (u32, bool, bool) {
    drain();
    (interrupts::seen(vector), vector_bit(IRR, vector), vector_bit(ISR, vector))
}

/// What [`arrivals`] gives for one and for no interrupt.
const ONCE: (u32, bool, bool) = (1, false, false);
const NEVER: (u32, bool, bool) = (0, false, false);

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    pit::stop_channel0();
    apic::enable(false);
    interrupts::count_without_end(SPURIOUS_VECTOR);
    let results = &mut Results { report: &mut report, mode: "xAPIC" };
    in_any_mode(results);
    destination::xapic(results);
    ioapic::run(results);
    external::run(results);
    if cpu::cpuid(1, 0)[2] >> 21 & 1 == 1 {
        mode::run(results);
        apic::enable(true);
        let results = &mut Results { report: &mut report, mode: "x2APIC" };
        in_any_mode(results);
        destination::x2apic(results);
        ioapic::run(results);
        external::run(results);
        apic::back_to_xapic();
        let results = &mut Results { report: &mut report, mode: "xAPIC again" };
        destination::run(results);
    } else {
        report.skip("x2APIC", "the CPU does not have it");
    }
    report.equal("spurious interrupts", interrupts::seen(SPURIOUS_VECTOR), 0);
    report.finish()
}

fn in_any_mode(results: &mut Results<'_>) {
    destination::run(results);
    priority::run(results);
    nmi::run(results);
    results.equal(format_args!("task priority in the end"), apic::read(TPR), 0);
}
