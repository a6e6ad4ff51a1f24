// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUs: starting them, sending them work, kicking them.

mod idle;
pub(crate) mod start;
mod tasks;

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use spin::Once;

pub use crate::cpu::percpu::Task;
pub use idle::idle_while;
pub(crate) use tasks::serve;
pub use tasks::{RunError, is_free, run_on};

use crate::{
    apic::local::{self, Ipi},
    cpu::percpu::{self, PerCpu},
    interrupts::vectors,
    time,
};

/// All CPUs that run, by logical number.
static CPUS: Once<Vec<&'static PerCpu>> = Once::new();

/// Number of CPUs that run.
pub fn cpu_count() -> u32 {
    CPUS.get().map_or(1, |cpus| cpus.len() as u32)
}

/// Logical number of the executing CPU: below [`cpu_count`], 0 for the boot CPU.
pub fn current_cpu() -> u32 {
    percpu::this_cpu_index()
}

fn cpu(index: u32) -> Option<&'static PerCpu> {
    CPUS.get()?.get(index as usize).copied()
}

/// Local APIC ID of a CPU.
pub fn apic_id(index: u32) -> Option<u32> {
    Some(cpu(index)?.apic_id.load(Ordering::Relaxed))
}

/// Interrupts a CPU, so that it leaves a guest or [`idle_while`]. An unknown CPU is ignored.
pub fn kick(index: u32) {
    if let Some(apic_id) = apic_id(index) {
        local::send(apic_id, Ipi::Fixed(vectors::KICK));
    }
}

/// Interrupts a CPU that no [`kick`] and no timer brings back, by an NMI; it has no other effect.
/// An unknown CPU is ignored.
pub fn insist(index: u32) {
    if let Some(apic_id) = apic_id(index) {
        local::send(apic_id, Ipi::Nmi);
    }
}

/// Stops all other CPUs for good, by NMIs.
pub(crate) fn stop_others() {
    let this = current_cpu();
    for other in CPUS.get().into_iter().flatten().filter(|cpu| cpu.index() != this) {
        local::send(other.apic_id.load(Ordering::Relaxed), Ipi::Nmi);
    }
    // Time for a line of the log that one of them may be writing.
    time::spin_microseconds(1000);
}
