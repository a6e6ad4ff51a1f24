// SPDX-License-Identifier: MIT OR Apache-2.0
//! One one-shot timer for each CPU, on the local APIC.

use core::sync::atomic::{AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86::msr::{IA32_TSC_DEADLINE, wrmsr};

use super::{
    calibrate,
    clock::{tsc, tsc_hz},
    scale::CountRate,
};
use crate::{
    apic::local,
    cpu::{
        interrupt_flag,
        percpu::{PerCpu, this_cpu},
    },
};

/// [`CountRate`] of the local APIC's timer; zero if the TSC deadline is used instead.
static APIC_TIMER_RATE: AtomicU64 = AtomicU64::new(0);

/// Chooses between TSC deadline and one-shot mode, on the boot CPU with interrupts disabled.
/// Returns the frequency of the timer in one-shot mode.
pub(crate) fn choose_mode() -> Option<u64> {
    if CpuId::new().get_feature_info().is_some_and(|f| f.has_tsc_deadline()) {
        return None;
    }
    // At least 1, so that the mode is unmistakable even with a timer that seems to stand still.
    let hz = calibrate::apic_timer_frequency(tsc_hz()).max(1);
    APIC_TIMER_RATE.store(CountRate::new(hz, tsc_hz()).to_bits(), Ordering::Relaxed);
    Some(hz)
}

/// Prepares the timer of the executing CPU.
pub(crate) fn init_cpu() {
    local::unmask_timer(APIC_TIMER_RATE.load(Ordering::Relaxed) == 0);
}

/// Arms the timer of the executing CPU, replacing an earlier deadline: when [`super::tsc`]
/// reaches `deadline`, or at once if it has, the CPU is interrupted. A deadline of
/// `u64::MAX` never comes.
pub fn arm(deadline: u64) {
    let _no_interrupts = interrupt_flag::disable();
    this_cpu().deadline.store(deadline, Ordering::Relaxed);
    program(deadline);
}

/// Disarms the timer of the executing CPU.
pub fn cancel() {
    let _no_interrupts = interrupt_flag::disable();
    this_cpu().deadline.store(PerCpu::NO_DEADLINE, Ordering::Relaxed);
    program(PerCpu::NO_DEADLINE);
}

/// Handles the timer's interrupt: the deadline is reached, was too far away for the counter,
/// or was cancelled or moved when the interrupt was already on its way.
pub(crate) fn expired() {
    let cpu = this_cpu();
    let deadline = cpu.deadline.load(Ordering::Relaxed);
    if deadline == PerCpu::NO_DEADLINE {
        return;
    }
    if tsc() < deadline {
        program(deadline);
    } else {
        cpu.deadline.store(PerCpu::NO_DEADLINE, Ordering::Relaxed);
    }
}

fn program(deadline: u64) {
    let rate = CountRate::from_bits(APIC_TIMER_RATE.load(Ordering::Relaxed));
    match (rate, deadline) {
        // SAFETY: disarms; the MSR exists in this mode.
        (None, PerCpu::NO_DEADLINE) => unsafe { wrmsr(IA32_TSC_DEADLINE, 0) },
        // SAFETY: as above; zero, which would disarm, becomes 1, which is long past.
        (None, _) => unsafe { wrmsr(IA32_TSC_DEADLINE, deadline.max(1)) },
        (Some(_), PerCpu::NO_DEADLINE) => local::stop_timer(),
        (Some(rate), _) => local::start_timer(rate.count(deadline.saturating_sub(tsc()))),
    }
}
