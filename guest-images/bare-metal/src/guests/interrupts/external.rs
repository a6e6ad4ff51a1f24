// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pair of 8259As at LINT0 (Intel SDM vol. 3, 11.5.1): as an external interrupt, whose vector
//! the pair supplies, as a fixed interrupt, and as an NMI.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{NEVER, ONCE, Results, arrivals, drain};
use crate::rt::apic::{self, ISR, LVT_LINT0, MASKED, TPR, vector_bit};
use crate::rt::trap::{self, Frame, NMI};
use crate::rt::{cpu, interrupts, pic, pit};

const EXTERNAL: u32 = 7 << 8;
const DELIVER_NMI: u32 = 4 << 8;
const FIXED_VECTOR: u64 = 0x57;
/// Vector of the 8254's input of the pair.
const PIC_VECTOR: u64 = pic::BASE;
/// By the interrupt source override.
const IOAPIC_INPUT: u32 = 2;

static NMIS: AtomicU32 = AtomicU32::new(0);

fn nmi(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
}

/// An edge at the pair's input 0, and time for it to come through.
fn edge() {
    pit::start_channel0(0, u16::MAX);
    pit::start_channel0(0, 100);
    pit::wait_10_ms();
}

/// What came by the pair's vector, and whether the local APIC has it in service.
fn taken() -> (u32, bool) {
    drain();
    (interrupts::seen(PIC_VECTOR), vector_bit(ISR, PIC_VECTOR))
}

fn requested() -> bool {
    pic::requests() & 1 == 1
}

pub fn run(results: &mut Results<'_>) {
    pit::start_channel0(0, u16::MAX);
    pic::init();
    pic::set_mask(0xFFFE);
    external(results);
    masked(results);
    fixed(results);
    non_maskable(results);
    by_ioapic(results);
    apic::write(LVT_LINT0, MASKED);
    pic::init();
    pit::stop_channel0();
}

fn external(results: &mut Results<'_>) {
    interrupts::count_without_end(PIC_VECTOR);
    apic::write(LVT_LINT0, EXTERNAL);
    edge();
    results.equal(format_args!("ExtINT waits in the 8259A"), requested(), true);
    results.equal(format_args!("ExtINT is not in service"), taken(), (1, false));
    edge();
    results.equal(format_args!("ExtINT: the next waits for the 8259A"), taken(), (1, false));
    pic::end_of_interrupt(0);
    results.equal(format_args!("ExtINT: comes after its end"), taken(), (2, false));
    pic::end_of_interrupt(0);
    apic::write(TPR, 0xFF);
    edge();
    results.equal(format_args!("ExtINT whatever the task priority is"), taken(), (3, false));
    pic::end_of_interrupt(0);
    apic::write(TPR, 0);
}

fn masked(results: &mut Results<'_>) {
    interrupts::count_without_end(PIC_VECTOR);
    apic::write(LVT_LINT0, MASKED | EXTERNAL);
    edge();
    results.equal(format_args!("LINT0 masked"), (taken(), requested()), ((0, false), true));
    apic::write(LVT_LINT0, EXTERNAL);
    results.equal(format_args!("LINT0 unmasked"), (taken(), requested()), ((1, false), false));
    pic::end_of_interrupt(0);
}

/// The pair's output raises a vector of the local APIC's; nobody acknowledges the pair.
fn fixed(results: &mut Results<'_>) {
    interrupts::count(FIXED_VECTOR);
    interrupts::count_without_end(PIC_VECTOR);
    apic::write(LVT_LINT0, FIXED_VECTOR as u32);
    edge();
    results.equal(format_args!("LINT0 as a fixed interrupt"), arrivals(FIXED_VECTOR), ONCE);
    if cpu::is_bare_tcg() {
        results.skip("the 8259A still asks", "QEMU acknowledges it whatever LINT0 says");
    } else {
        let left = (interrupts::seen(PIC_VECTOR), requested());
        results.equal(format_args!("the 8259A still asks"), left, (0, true));
    }
    acknowledge();
    interrupts::count(FIXED_VECTOR);
    apic::write(LVT_LINT0, MASKED | FIXED_VECTOR as u32);
    edge();
    results.equal(format_args!("LINT0 as a fixed one, masked"), arrivals(FIXED_VECTOR), NEVER);
    acknowledge();
}

fn non_maskable(results: &mut Results<'_>) {
    trap::handle(NMI, Some(nmi));
    NMIS.store(0, Ordering::SeqCst);
    apic::write(LVT_LINT0, DELIVER_NMI);
    edge();
    let nmis = NMIS.load(Ordering::SeqCst);
    results.equal(format_args!("LINT0 as an NMI"), (nmis, requested()), (1, true));
    acknowledge();
}

/// Takes the request off the pair by polling it (8259A data sheet, "poll command").
fn acknowledge() {
    apic::write(LVT_LINT0, MASKED);
    pic::poll();
    pic::end_of_interrupt(0);
}

/// The I/O APIC says that the pair has a vector to give.
fn by_ioapic(results: &mut Results<'_>) {
    if cpu::is_bare_tcg() {
        results.skip("ExtINT by the I/O APIC", "QEMU's local APIC ignores it");
        return;
    }
    interrupts::count_without_end(PIC_VECTOR);
    apic::write(LVT_LINT0, MASKED);
    apic::route(IOAPIC_INPUT, EXTERNAL);
    edge();
    results.equal(format_args!("ExtINT by the I/O APIC"), taken(), (1, false));
    pic::end_of_interrupt(0);
    apic::route(IOAPIC_INPUT, MASKED);
}
