// SPDX-License-Identifier: MIT OR Apache-2.0
//! Non-maskable interrupts, sent by the local APIC to its own CPU.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::rt::apic::{self, ICR_ASSERT, ICR_NMI, LAPIC};
use crate::rt::report::Report;
use crate::rt::trap::{self, DONE, Frame, NMI, Place};
use crate::rt::{cpu, pic, pit};

static COUNT: AtomicU32 = AtomicU32::new(0);
static NESTED: AtomicU32 = AtomicU32::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);
/// NMIs that the handler sends to itself.
static RESEND: AtomicU32 = AtomicU32::new(0);
/// Makes the handler run into an exception whose IRET ends the blocking.
static FAULT: AtomicU32 = AtomicU32::new(0);

fn send() {
    apic::send(apic::id(), ICR_NMI | ICR_ASSERT);
}

/// Gives a pending NMI the time to arrive.
fn settle() {
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
}

fn handler(frame: &mut Frame) {
    RIP.store(frame.rip, Ordering::SeqCst);
    let before = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    let mut resend = RESEND.swap(0, Ordering::SeqCst);
    while resend > 0 {
        send();
        resend -= 1;
    }
    settle();
    if COUNT.load(Ordering::SeqCst) != before {
        NESTED.fetch_add(1, Ordering::SeqCst);
    }
    if FAULT.swap(0, Ordering::SeqCst) != 0 {
        // SAFETY: the handler of the breakpoint does nothing.
        unsafe { asm!("int3") };
        settle();
        NESTED.fetch_add(COUNT.load(Ordering::SeqCst) - before, Ordering::SeqCst);
    }
}

fn nothing(_: &mut Frame) {}

fn reset() {
    COUNT.store(0, Ordering::SeqCst);
    NESTED.store(0, Ordering::SeqCst);
}

fn seen() -> (u32, u32) {
    settle();
    (COUNT.load(Ordering::SeqCst), NESTED.load(Ordering::SeqCst))
}

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    pic::init();
    apic::enable(false);
    trap::handle(NMI, Some(handler));
    once(&mut report);
    blocked(&mut report);
    shadows(&mut report);
    halted(&mut report);
    user(&mut report);
    many(&mut report);
    report.finish()
}

fn once(report: &mut Report) {
    reset();
    send();
    report.equal("delivered once with interrupts off", seen(), (1, 0));
    cpu::enable_interrupts();
    send();
    cpu::disable_interrupts();
    report.equal("delivered once with interrupts on", seen(), (2, 0));
    // SAFETY: `INT 2` only calls the handler.
    unsafe { asm!("int 2") };
    report.equal("INT 2 calls the handler", seen(), (3, 0));
    send();
    report.equal("INT 2 left no blocking", seen(), (4, 0));
}

/// Until IRET further ones wait, and several become one.
fn blocked(report: &mut Report) {
    reset();
    RESEND.store(1, Ordering::SeqCst);
    send();
    report.equal("a second one waits for IRET", seen(), (2, 0));
    reset();
    RESEND.store(3, Ordering::SeqCst);
    send();
    report.equal("several that wait become one", seen(), (2, 0));
    reset();
    send();
    send();
    report.equal("two after each other are two", seen(), (2, 0));

    // A handler of its own for the breakpoint: its IRET ends the blocking early.
    trap::handle(trap::BP, Some(nothing));
    trap::set_gate(NMI, trap::gate(NMI as usize, 0x8E00));
    reset();
    RESEND.store(1, Ordering::SeqCst);
    FAULT.store(1, Ordering::SeqCst);
    send();
    report.equal("IRET of a nested exception ends the blocking", seen(), (2, 1));
    trap::reset_gate(NMI);
    trap::handle(trap::BP, None);
    reset();
    send();
    report.equal("blocking is over in the end", seen(), (1, 0));
}

/// The instruction after STI and after MOV SS is not interrupted; the NMI comes behind it.
fn shadows(report: &mut Report) {
    reset();
    let command = ICR_NMI | ICR_ASSERT;
    let (after, got): (u64, u64);
    // SAFETY: writes the interrupt command register in a shadow. The handler keeps all registers.
    unsafe {
        asm!(
            "mov {ss:e}, ss",
            "lea {after}, [rip + 2f]",
            "mov ss, {ss:e}",
            "mov dword ptr [{icr}], {command:e}",
            "2:",
            "nop",
            "nop",
            ss = out(reg) _,
            after = out(reg) after,
            icr = in(reg) LAPIC + u64::from(apic::ICR_LOW),
            command = in(reg) command,
        );
    }
    report.equal("MOV SS shadow: delivered once", seen(), (1, 0));
    got = RIP.load(Ordering::SeqCst);
    report.within("MOV SS shadow: not before its end", got.wrapping_sub(after), 0, 64);
    reset();
    // SAFETY: as above.
    unsafe {
        asm!(
            "sti",
            "mov dword ptr [{icr}], {command:e}",
            "nop",
            "cli",
            icr = in(reg) LAPIC + u64::from(apic::ICR_LOW),
            command = in(reg) command,
        );
    }
    report.equal("STI shadow: delivered once", seen(), (1, 0));
}

/// An NMI ends HLT even with interrupts off. It is made by the timer interrupt of the PIT, which
/// the IOAPIC delivers as an NMI, again and again: the first may come before the HLT.
fn halted(report: &mut Report) {
    const PIT_INPUT: u32 = 2;
    const DELIVERY_NMI: u32 = 4 << 8;
    reset();
    apic::route(PIT_INPUT, DELIVERY_NMI);
    pit::start_channel0(2, 5000);
    cpu::halt_once();
    apic::route(PIT_INPUT, apic::MASKED);
    pit::stop_channel0();
    let count = seen().0;
    report.holds("HLT with interrupts off is left", count > 0, count);
}

fn user(report: &mut Report) {
    reset();
    let icr = LAPIC + u64::from(apic::ICR_LOW);
    let trap = run!(Place::USER, ["mov [rdi], eax", ".rept 64", "nop", ".endr"],
        in("rdi") icr, in("rax") u64::from(ICR_NMI | ICR_ASSERT));
    report.equal("user mode goes on behind it", trap.cause(), (DONE, 0));
    report.equal("delivered once in user mode", seen(), (1, 0));
}

fn many(report: &mut Report) {
    reset();
    for _ in 0..1000 {
        send();
        settle_short();
    }
    report.equal("a thousand are a thousand", seen(), (1000, 0));
}

fn settle_short() {
    for _ in 0..10 {
        core::hint::spin_loop();
    }
}
