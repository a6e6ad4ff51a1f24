// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt dispatch.

mod exceptions;
pub(crate) mod vectors;

use core::{
    arch::global_asm,
    mem::transmute,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{acpi::InterruptOverride, apic, facts, panic, time};

global_asm!(include_str!("entry.s"));

/// A handler: runs on the interrupted CPU with interrupts disabled, and must be short.
pub type Handler = fn();

/// Registers of interrupted code, as the entry code stores them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error_code: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

/// Handlers by vector; zero where there is none.
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static NEXT_VECTOR: AtomicUsize = AtomicUsize::new(vectors::FIRST_DEVICE as usize);
static UNEXPECTED: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);

/// Number of interrupts for which there was no handler.
pub fn unexpected_count() -> u64 {
    UNEXPECTED.load(Ordering::Relaxed)
}

/// Number of NMIs that were ignored.
pub fn nmi_count() -> u64 {
    NMIS.load(Ordering::Relaxed)
}

/// Reserves a vector for a device and sets its handler; `None` if all are taken.
pub fn allocate(handler: Handler) -> Option<u8> {
    let vector = NEXT_VECTOR
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next <= usize::from(vectors::LAST_DEVICE)).then_some(next + 1)
        })
        .ok()?;
    HANDLERS.get(vector)?.store(handler as usize, Ordering::Release);
    u8::try_from(vector).ok()
}

/// Calls `handler` on the boot CPU whenever ISA interrupt `irq` occurs; false if the machine
/// cannot deliver it.
pub fn register_isa(irq: u8, handler: Handler) -> bool {
    let Some(madt) = facts::acpi().map(|acpi| &acpi.madt) else { return false };
    register_line(&madt.isa_line(irq), handler)
}

/// Calls `handler` on the boot CPU whenever the line interrupts; false if the machine cannot
/// deliver it.
pub fn register_line(line: &InterruptOverride, handler: Handler) -> bool {
    allocate(handler).is_some_and(|vector| apic::io::route(line, vector))
}

/// Called by the entry code for every vector.
#[unsafe(no_mangle)]
extern "C" fn cokernel_interrupt(frame: &Frame) {
    match frame.vector as u8 {
        vectors::NMI => {
            panic::halt_if_stopping();
            NMIS.fetch_add(1, Ordering::Relaxed);
        }
        vectors::DEBUG if exceptions::is_stray_step(frame) => {}
        0..32 => exceptions::report(frame),
        vectors::KICK => apic::local::end_of_interrupt(),
        vectors::TIMER => {
            apic::local::end_of_interrupt();
            time::timer::expired();
        }
        vectors::SPURIOUS => {}
        vectors::APIC_ERROR => {
            apic::local::end_of_interrupt();
            log::warn!("local APIC error, status {:#x}", apic::local::clear_errors());
        }
        vector => dispatch(vector),
    }
}

fn dispatch(vector: u8) {
    match HANDLERS[usize::from(vector)].load(Ordering::Acquire) {
        0 => {
            UNEXPECTED.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: `allocate` stores nothing but `Handler`s.
        handler => unsafe { transmute::<usize, Handler>(handler)() },
    }
    if vector >= vectors::FIRST_DEVICE {
        apic::local::end_of_interrupt();
    }
}
