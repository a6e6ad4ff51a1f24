// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O APIC's entries (82093AA data sheet, 3.2.4), with the 8254's output at one of its
//! inputs: in mode 0 it stays high once the count has run out, and falls when a new one is written.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{NEVER, ONCE, Results, arrivals, drain};
use crate::rt::apic::{
    self, IRR, ISR, LEVEL, MASKED, REMOTE_IRR, SPURIOUS, SPURIOUS_VECTOR, VERSION, redirection,
    vector_bit,
};
use crate::rt::trap::{self, Frame, NMI};
use crate::rt::{cpu, interrupts, pit};

/// By the interrupt source override.
const INPUT: u32 = 2;
const VECTOR: u64 = 0x75;

const LOWEST_PRIORITY: u32 = 1 << 8;
const DELIVER_NMI: u32 = 4 << 8;
const LOGICAL: u32 = 1 << 11;
const SEND_PENDING: u32 = 1 << 12;

/// Trigger mode register of the local APIC.
const TMR: u32 = 0x180;
/// A local APIC that offers to keep ends of interrupts to itself, and the bit that asks for it.
const OFFERS_DIRECTED_EOI: u32 = 1 << 24;
const SUPPRESS_BROADCAST: u32 = 1 << 12;
const SOFTWARE_ENABLE: u32 = 1 << 8;

static NMIS: AtomicU32 = AtomicU32::new(0);

fn nmi(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
}

/// The 8254's output goes low, and will for 50 ms.
fn lower() {
    pit::start_channel0(0, u16::MAX);
}

/// The 8254's output goes high, and stays there.
fn raise() {
    lower();
    pit::start_channel0(0, 100);
    pit::wait_10_ms();
}

/// Sets the entry of the input.
fn route(destination: u32, low: u32) {
    apic::ioapic_write(redirection(INPUT), MASKED);
    apic::ioapic_write(redirection(INPUT) + 1, destination << 24);
    apic::ioapic_write(redirection(INPUT), low);
}

fn remote_irr() -> bool {
    apic::ioapic_read(redirection(INPUT)) & REMOTE_IRR != 0
}

/// What an edge brings with this entry.
fn edge(destination: u32, low: u32) -> (u32, bool, bool) {
    lower();
    interrupts::count(VECTOR);
    route(destination, low | VECTOR as u32);
    raise();
    let arrived = arrivals(VECTOR);
    route(0, MASKED);
    arrived
}

pub fn run(results: &mut Results<'_>) {
    destinations(results);
    edges(results);
    read_only(results);
    level(results);
    level_masked(results);
    end_register(results);
    directed_end(results);
    lower();
    pit::stop_channel0();
}

fn destinations(results: &mut Results<'_>) {
    let own = apic::id();
    results.equal(format_args!("I/O APIC to this CPU"), edge(own, 0), ONCE);
    results.equal(format_args!("I/O APIC to nobody"), edge(own ^ 0x40, 0), NEVER);
    results.equal(format_args!("I/O APIC to all"), edge(0xFF, 0), ONCE);
    results.equal(format_args!("I/O APIC, lowest priority"), edge(own, LOWEST_PRIORITY), ONCE);
    if !apic::is_x2apic() {
        // In x2APIC mode the identifier follows from the APIC's.
        apic::write(0xD0, 1 << 24);
    }
    results.equal(format_args!("I/O APIC, logical"), edge(1, LOGICAL), ONCE);
    results.equal(format_args!("I/O APIC, logical to another"), edge(2, LOGICAL), NEVER);
    trap::handle(NMI, Some(nmi));
    NMIS.store(0, Ordering::SeqCst);
    let vector = edge(own, DELIVER_NMI);
    let nmis = NMIS.load(Ordering::SeqCst);
    results.equal(format_args!("I/O APIC, NMI"), (vector, nmis), (NEVER, 1));
}

fn edges(results: &mut Results<'_>) {
    interrupts::count(VECTOR);
    lower();
    route(apic::id(), VECTOR as u32);
    raise();
    raise();
    let pending = (vector_bit(IRR, VECTOR), vector_bit(TMR, VECTOR), remote_irr());
    results.equal(
        format_args!("edge: neither level nor remote IRR"),
        pending,
        (true, false, false),
    );
    results.equal(format_args!("two edges while it waits are one"), arrivals(VECTOR), ONCE);
    if cpu::is_bare_tcg() {
        results.skip("an edge while masked is lost", "QEMU remembers it");
        return;
    }
    route(apic::id(), MASKED | VECTOR as u32);
    interrupts::count(VECTOR);
    raise();
    route(apic::id(), VECTOR as u32);
    results.equal(format_args!("an edge while masked is lost"), arrivals(VECTOR), NEVER);
    route(0, MASKED);
}

/// Delivery status and remote IRR are the I/O APIC's own.
fn read_only(results: &mut Results<'_>) {
    lower();
    let low = MASKED | LEVEL | VECTOR as u32;
    apic::ioapic_write(redirection(INPUT), low | REMOTE_IRR | SEND_PENDING);
    let read = apic::ioapic_read(redirection(INPUT));
    results.equal(format_args!("read-only bits of an entry"), read, low);
    let version = apic::ioapic_read(apic::IOAPIC_VERSION);
    apic::ioapic_write(apic::IOAPIC_VERSION, !version);
    let (after, inputs) = (apic::ioapic_read(apic::IOAPIC_VERSION), (version >> 16 & 0xFF) + 1);
    results.equal(format_args!("version is read-only"), (after, inputs), (version, 24));
}

/// Lets the interrupt in and gives: how often it came, whether it is in service, remote IRR.
fn taken() -> (u32, bool, bool) {
    drain();
    (interrupts::seen(VECTOR), vector_bit(ISR, VECTOR), remote_irr())
}

fn level(results: &mut Results<'_>) {
    lower();
    interrupts::count_without_end(VECTOR);
    route(apic::id(), LEVEL | VECTOR as u32);
    results.equal(format_args!("level: nothing while low"), taken(), (0, false, false));
    raise();
    let waits = (vector_bit(IRR, VECTOR), vector_bit(TMR, VECTOR), remote_irr());
    results.equal(format_args!("level: as such in the local APIC"), waits, (true, true, true));
    results.equal(format_args!("level: once"), taken(), (1, true, true));
    lower();
    results.equal(format_args!("level: low does not end it"), taken(), (1, true, true));
    raise();
    results.equal(format_args!("level: high again waits"), taken(), (1, true, true));
    apic::end_of_interrupt();
    results.equal(format_args!("level: end while high repeats it"), taken(), (2, true, true));
    lower();
    apic::end_of_interrupt();
    results.equal(format_args!("level: end while low is the end"), taken(), (2, false, false));
    made_an_edge(results);
    lower();
    route(0, MASKED);
}

/// An entry that is made edge-triggered waits for no end: guests rely on that to clear the remote
/// IRR where there is no other way.
fn made_an_edge(results: &mut Results<'_>) {
    if cpu::is_bare_tcg() {
        results.skip("an entry made edge-triggered", "QEMU takes the level for an edge");
        return;
    }
    interrupts::count_without_end(VECTOR);
    raise();
    drain();
    apic::ioapic_write(redirection(INPUT), VECTOR as u32);
    let state = (interrupts::seen(VECTOR), remote_irr());
    results.equal(format_args!("made an edge, remote IRR is clear"), state, (1, false));
    apic::end_of_interrupt();
    results.equal(format_args!("and its end repeats nothing"), taken(), (1, false, false));
}

fn level_masked(results: &mut Results<'_>) {
    lower();
    interrupts::count_without_end(VECTOR);
    route(apic::id(), LEVEL | MASKED | VECTOR as u32);
    raise();
    results.equal(format_args!("level: masked"), taken(), (0, false, false));
    apic::ioapic_write(redirection(INPUT), LEVEL | VECTOR as u32);
    results.equal(format_args!("level: comes when unmasked"), taken(), (1, true, true));
    apic::ioapic_write(redirection(INPUT), LEVEL | MASKED | VECTOR as u32);
    results.equal(format_args!("level: masking keeps remote IRR"), taken(), (1, true, true));
    apic::end_of_interrupt();
    results.equal(format_args!("level: ended while masked"), taken(), (1, false, false));
    lower();
    route(0, MASKED);
}

/// The I/O APIC's own register for ends of interrupts.
fn end_register(results: &mut Results<'_>) {
    if apic::ioapic_read(apic::IOAPIC_VERSION) & 0xFF < 0x20 {
        results.skip("I/O APIC, EOI register", "its version has none");
        return;
    }
    lower();
    interrupts::count_without_end(VECTOR);
    route(apic::id(), LEVEL | VECTOR as u32);
    raise();
    drain();
    lower();
    apic::ioapic_end(VECTOR as u32 ^ 1);
    results.equal(format_args!("I/O APIC: end of another vector"), taken(), (1, true, true));
    apic::ioapic_end(VECTOR as u32);
    results.equal(format_args!("I/O APIC: end of this vector"), taken(), (1, true, false));
    apic::end_of_interrupt();
    results.equal(format_args!("I/O APIC: then of the local APIC"), taken(), (1, false, false));
    route(0, MASKED);
}

/// Ends that stay in the local APIC (Intel SDM vol. 3, 11.8.5).
fn directed_end(results: &mut Results<'_>) {
    let ours = SOFTWARE_ENABLE | SPURIOUS_VECTOR as u32;
    apic::write(SPURIOUS, ours);
    if apic::read(VERSION) & OFFERS_DIRECTED_EOI == 0 {
        results.skip("directed EOI", "the local APIC does not offer it");
        return;
    }
    apic::write(SPURIOUS, ours | SUPPRESS_BROADCAST);
    lower();
    interrupts::count_without_end(VECTOR);
    route(apic::id(), LEVEL | VECTOR as u32);
    raise();
    drain();
    apic::end_of_interrupt();
    results.equal(format_args!("directed EOI: the local end alone"), taken(), (1, false, true));
    apic::ioapic_end(VECTOR as u32);
    results.equal(format_args!("directed EOI: repeated while high"), taken(), (2, true, true));
    lower();
    apic::end_of_interrupt();
    apic::ioapic_end(VECTOR as u32);
    results.equal(format_args!("directed EOI: over"), taken(), (2, false, false));
    apic::write(SPURIOUS, ours);
    route(0, MASKED);
}
