// SPDX-License-Identifier: MIT OR Apache-2.0
//! Non-maskable interrupts among maskable ones. Their nesting among themselves is in the guest
//! `nmi`.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{ONCE, Results, arrivals, drain};
use crate::rt::apic::{self, ICR_ASSERT, ICR_NMI, ICR_SELF, TPR};
use crate::rt::interrupts;
use crate::rt::trap::{self, Frame, NMI};

const VECTOR: u64 = 0x61;

static NMIS: AtomicU32 = AtomicU32::new(0);
/// Maskable interrupts that had come when the handler of the NMI ended.
static DURING: AtomicU32 = AtomicU32::new(0);

fn send_nmi() {
    apic::send(apic::id(), ICR_ASSERT | ICR_NMI);
    for _ in 0..100 {
        core::hint::spin_loop();
    }
}

fn count(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
}

/// Sends a maskable interrupt and looks whether it waits.
fn send_maskable(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
    apic::send(0, ICR_SELF | VECTOR as u32);
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    DURING.store(interrupts::seen(VECTOR), Ordering::SeqCst);
}

/// Sends an NMI, which does not wait for the end of the maskable interrupt.
fn send_another(_: &mut Frame) {
    send_nmi();
    DURING.store(NMIS.load(Ordering::SeqCst), Ordering::SeqCst);
    apic::end_of_interrupt();
}

pub fn run(results: &mut Results<'_>) {
    let taken = || NMIS.swap(0, Ordering::SeqCst);
    trap::handle(NMI, Some(count));
    taken();
    apic::write(TPR, 0xFF);
    send_nmi();
    results.equal(format_args!("NMI whatever the task priority is"), taken(), 1);
    apic::write(TPR, 0);

    trap::handle(VECTOR, Some(send_another));
    apic::send(0, ICR_SELF | VECTOR as u32);
    drain();
    let during = DURING.swap(0, Ordering::SeqCst);
    results.equal(format_args!("NMI in the handler of an interrupt"), (during, taken()), (1, 1));

    trap::handle(NMI, Some(send_maskable));
    interrupts::count(VECTOR);
    send_nmi();
    let during = DURING.swap(0, Ordering::SeqCst);
    results.equal(format_args!("no interrupt in the handler of an NMI"), (during, taken()), (0, 1));
    results.equal(format_args!("it comes afterwards"), arrivals(VECTOR), ONCE);
    trap::handle(NMI, Some(count));
}
