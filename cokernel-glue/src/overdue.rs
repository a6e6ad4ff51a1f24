// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that stay on their CPUs when their time is over.
//!
//! The CPU's own timer ends a VM that has a time limit. VMRUN of Bochs 2.7 holds it back: the guest's
//! RFLAGS.IF masks physical interrupts there, although V_INTR_MASKING makes it the host's (AMD APM
//! vol. 2, 15.21.1), until the guest sets it or exits. It does not mask NMIs.

use host_iface::{CpuId, Host, Tsc};
use vmm_core::backend::Backend;

use crate::{host::COKERNEL, vm::GuestVm};

/// Time after its limit in which every VM should be over, in milliseconds, and between attempts.
const GRACE_MS: u64 = 1000;

/// Waits while `busy` says so. If all `vms` have a time limit, their `cpus` get an NMI when they are
/// still busy a while after the last.
pub fn wait<B: Backend>(vms: &[GuestVm<B>], cpus: &[CpuId], busy: &dyn Fn() -> bool) {
    let limits: Option<Tsc> = vms
        .iter()
        .try_fold(Tsc(0), |last, guest| guest.time_limit.map(|limit| Tsc(last.0.max(limit.0))));
    let Some(limit) = limits else {
        return COKERNEL.idle_while(&mut || busy());
    };
    let grace = ticks(GRACE_MS);
    let insist = || cpus.iter().for_each(|cpu| cokernel::smp::insist(cpu.0));
    wait_until(busy, Tsc(limit.0.saturating_add(grace)), grace, &insist);
}

/// Waits while `busy` says so. If that lasts until `deadline`, does what is `due` then, and again
/// whenever `period` more ticks have passed.
pub fn wait_until(busy: &dyn Fn() -> bool, deadline: Tsc, period: u64, due: &dyn Fn()) {
    let mut deadline = deadline;
    while busy() {
        COKERNEL.arm_timer(deadline);
        COKERNEL.idle_while(&mut || busy() && COKERNEL.tsc() < deadline);
        COKERNEL.cancel_timer();
        if busy() {
            due();
            deadline = Tsc(COKERNEL.tsc().0.saturating_add(period));
        }
    }
}

/// Ticks of the time-stamp counter in so many milliseconds.
pub fn ticks(milliseconds: u64) -> u64 {
    milliseconds * (COKERNEL.tsc_frequency().0 / 1000)
}
