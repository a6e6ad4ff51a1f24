// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts that a CPU sends itself, and their end; interrupts between two CPUs.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bare_metal::rt::apic::{
    self, EOI, ICR_ASSERT, ICR_HIGH, ICR_INIT, ICR_LOW, ICR_SELF, ICR_STARTUP,
};
use bare_metal::rt::trap::{self, Handler};
use bare_metal::rt::{cpu, processors};

use crate::apic::{Mode, SELF_IPI};
use crate::samples::{Bench, ticks};

const VECTOR: u64 = 0x61;

/// Ticks of the last end of interrupt.
static END_TICKS: AtomicU64 = AtomicU64::new(0);

/// The write that ends an interrupt which is in service.
pub fn end(bench: &Bench, name: &str, mode: Mode) {
    let handler: Handler = match mode {
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
    let handler: Handler = match mode {
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

/// APIC identifiers of the two CPUs.
const BOOT: u32 = 0;
const OTHER: u32 = 1;
/// Vector that the other CPU answers with `ANSWER`.
const CALL: u64 = 0x63;
const ANSWER: u64 = 0x64;
/// More than the 10 ms that a CPU is given between INIT and SIPI, on any machine.
const INIT_TICKS: u64 = 50_000_000;

static READY: AtomicBool = AtomicBool::new(false);
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// An interrupt to another CPU, which waits in a loop of PAUSEs, and one back from its handler.
pub fn round_trip(bench: &Bench, name: &str, mode: Mode) {
    let (call, answer): (Handler, Handler) = match mode {
        Mode::Xapic => (|_| answer_call(Mode::Xapic), |_| answered(Mode::Xapic)),
        Mode::X2apic => (|_| answer_call(Mode::X2apic), |_| answered(Mode::X2apic)),
    };
    trap::handle(CALL, Some(call));
    trap::handle(ANSWER, Some(answer));
    start_other(mode);
    cpu::enable_interrupts();
    bench.operation(name, || {
        ANSWERED.store(false, Ordering::SeqCst);
        send(mode, OTHER, CALL);
        while !ANSWERED.load(Ordering::SeqCst) {
            core::hint::spin_loop();
        }
    });
    cpu::disable_interrupts();
    apic::send(OTHER, ICR_INIT | ICR_ASSERT);
}

/// Starts the other CPU and waits until it takes interrupts.
fn start_other(mode: Mode) {
    processors::prepare();
    processors::aim(
        1,
        match mode {
            Mode::Xapic => || wait_for_calls(false),
            Mode::X2apic => || wait_for_calls(true),
        },
    );
    apic::send(OTHER, ICR_INIT | ICR_ASSERT);
    let start = cpu::tsc();
    while cpu::tsc().wrapping_sub(start) < INIT_TICKS {}
    apic::send(OTHER, ICR_STARTUP | ICR_ASSERT | processors::START_PAGE);
    while !READY.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
}

fn wait_for_calls(x2apic: bool) {
    apic::enable(x2apic);
    cpu::enable_interrupts();
    READY.store(true, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

fn answer_call(mode: Mode) {
    mode.write(EOI, 0);
    send(mode, BOOT, ANSWER);
}

fn answered(mode: Mode) {
    mode.write(EOI, 0);
    ANSWERED.store(true, Ordering::SeqCst);
}

fn send(mode: Mode, target: u32, vector: u64) {
    match mode {
        Mode::Xapic => {
            mode.write(ICR_HIGH, target << 24);
            mode.write(ICR_LOW, ICR_ASSERT | vector as u32);
        }
        Mode::X2apic => mode.command(target, ICR_ASSERT | vector as u32),
    }
}
