// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprocessor interrupts: delivery modes, destinations and shorthands (Intel SDM vol. 3, 11.6
//! and 11.12.9 f.).

use core::sync::atomic::{AtomicU32, Ordering};

use super::{NEVER, ONCE, Results, arrivals};
use crate::rt::apic::{
    self, ICR_ALL_BUT_SELF, ICR_ASSERT, ICR_NMI, ICR_SELF, SPURIOUS, SPURIOUS_VECTOR,
};
use crate::rt::trap::{self, Frame, NMI};
use crate::rt::{cpu, interrupts};

const VECTOR: u64 = 0x51;
const LOWEST_PRIORITY: u32 = 1 << 8;
const SMI: u32 = 2 << 8;
const LOGICAL: u32 = 1 << 11;
const ALL: u32 = 2 << 18;
const SOFTWARE_ENABLE: u32 = 1 << 8;

const LOGICAL_ID: u32 = 0xD0;
const FORMAT: u32 = 0xE0;
const FLAT: u32 = u32::MAX;
const CLUSTER: u32 = 0x0FFF_FFFF;

static NMIS: AtomicU32 = AtomicU32::new(0);

fn nmi(_: &mut Frame) {
    NMIS.fetch_add(1, Ordering::SeqCst);
}

/// Sends a fixed interrupt, or one of another delivery mode in `command`, and says what came.
fn sent(target: u32, command: u32) -> (u32, bool, bool) {
    interrupts::count(VECTOR);
    apic::send(target, ICR_ASSERT | command | VECTOR as u32);
    arrivals(VECTOR)
}

/// An identifier that no CPU has.
fn nobody() -> u32 {
    apic::id() ^ 0x40
}

pub fn run(results: &mut Results<'_>) {
    let own = apic::id();
    results.equal(format_args!("fixed to oneself"), sent(own, 0), ONCE);
    results.equal(format_args!("fixed to nobody"), sent(nobody(), 0), NEVER);
    results.equal(format_args!("shorthand self"), sent(nobody(), ICR_SELF), ONCE);
    results.equal(format_args!("shorthand all"), sent(nobody(), ALL), ONCE);
    results.equal(format_args!("shorthand all but self"), sent(own, ICR_ALL_BUT_SELF), NEVER);
    results.equal(format_args!("lowest priority"), sent(own, LOWEST_PRIORITY), ONCE);
    results.equal(
        format_args!("lowest priority, all"),
        sent(nobody(), ALL | LOWEST_PRIORITY),
        ONCE,
    );
    results.equal(format_args!("SMI does not reach the vector"), sent(nobody(), SMI), NEVER);
    non_maskable(results);
    disabled(results);
}

fn non_maskable(results: &mut Results<'_>) {
    trap::handle(NMI, Some(nmi));
    let sent = |target, command| {
        NMIS.store(0, Ordering::SeqCst);
        apic::send(target, ICR_ASSERT | ICR_NMI | command);
        for _ in 0..100 {
            core::hint::spin_loop();
        }
        NMIS.load(Ordering::SeqCst)
    };
    results.equal(format_args!("NMI to oneself"), sent(apic::id(), 0), 1);
    results.equal(format_args!("NMI to nobody"), sent(nobody(), 0), 0);
    results.equal(format_args!("NMI to all"), sent(nobody(), ALL), 1);
    results.equal(format_args!("NMI to all but self"), sent(apic::id(), ICR_ALL_BUT_SELF), 0);
    // The vector of an NMI does not matter.
    results.equal(format_args!("NMI with a vector"), sent(apic::id(), VECTOR as u32), 1);
}

/// A local APIC that is off by software takes no fixed interrupts, but NMIs.
fn disabled(results: &mut Results<'_>) {
    let own = apic::id();
    apic::write(SPURIOUS, SPURIOUS_VECTOR as u32);
    if cpu::is_bare_tcg() {
        results.skip("off by software", "QEMU accepts interrupts then");
    } else {
        results.equal(format_args!("off by software: fixed"), sent(own, 0), NEVER);
        results.equal(format_args!("off by software: self"), sent(own, ICR_SELF), NEVER);
    }
    NMIS.store(0, Ordering::SeqCst);
    apic::send(own, ICR_ASSERT | ICR_NMI);
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    let nmis = NMIS.load(Ordering::SeqCst);
    results.equal(format_args!("off by software: NMI"), nmis, 1);
    apic::write(SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR as u32);
    interrupts::count(VECTOR);
    results.equal(format_args!("on again, nothing is left"), arrivals(VECTOR), NEVER);
    results.equal(format_args!("on again: fixed"), sent(own, 0), ONCE);
}

/// Logical destinations of xAPIC mode, and the physical broadcast.
pub fn xapic(results: &mut Results<'_>) {
    results.equal(format_args!("physical broadcast"), sent(0xFF, 0), ONCE);
    apic::write(FORMAT, FLAT);
    apic::write(LOGICAL_ID, 0x04 << 24);
    let id = apic::read(LOGICAL_ID) >> 24;
    results.equal(format_args!("logical identifier reads back"), id, 0x04);
    for (target, expected) in [(0x04, ONCE), (0x06, ONCE), (0xFF, ONCE), (0x0B, NEVER), (0, NEVER)]
    {
        let got = sent(target, LOGICAL);
        results.equal(format_args!("flat destination {target:#x}"), got, expected);
    }
    let got = sent(0x04, LOGICAL | LOWEST_PRIORITY);
    results.equal(format_args!("flat, lowest priority"), got, ONCE);
    apic::write(FORMAT, CLUSTER);
    apic::write(LOGICAL_ID, 0x32 << 24);
    let clusters = [(0x32, ONCE), (0x3F, ONCE), (0x3D, NEVER), (0x22, NEVER)];
    for (target, expected) in clusters {
        let got = sent(target, LOGICAL);
        results.equal(format_args!("cluster destination {target:#x}"), got, expected);
    }
    if cpu::is_bare_tcg() {
        results.skip("cluster broadcast", "QEMU takes 0xFF for another cluster");
    } else {
        results.equal(format_args!("cluster broadcast"), sent(0xFF, LOGICAL), ONCE);
    }
    apic::write(FORMAT, FLAT);
    apic::write(LOGICAL_ID, 0x01 << 24);
}

/// Logical destinations of x2APIC mode, whose identifier follows from the APIC's.
pub fn x2apic(results: &mut Results<'_>) {
    let own = apic::id();
    let logical = (own >> 4) << 16 | 1 << (own & 0xF);
    results.equal(format_args!("logical identifier"), apic::read(LOGICAL_ID), logical);
    results.equal(format_args!("physical broadcast"), sent(u32::MAX, 0), ONCE);
    results.equal(format_args!("0xFF is no broadcast"), sent(0xFF, 0), NEVER);
    results.equal(format_args!("logical to oneself"), sent(logical, LOGICAL), ONCE);
    results.equal(format_args!("logical broadcast"), sent(u32::MAX, LOGICAL), ONCE);
    let others = logical & 0xFFFF_0000 | !logical & 0xFFFF;
    results.equal(format_args!("logical to the others"), sent(others, LOGICAL), NEVER);
    let elsewhere = logical ^ 0x0001_0000;
    results.equal(format_args!("logical, another cluster"), sent(elsewhere, LOGICAL), NEVER);
    interrupts::count(VECTOR);
    // SAFETY: the handler keeps all registers.
    unsafe { cpu::wrmsr(0x83F, VECTOR) };
    results.equal(format_args!("self-IPI register"), arrivals(VECTOR), ONCE);
}
