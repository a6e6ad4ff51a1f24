// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of the host that are made to fail, as the manifest says, for tests.
//!
//! A fault is one VM's: it hits the calls of the CPU that creates the VM, for as long as it does,
//! and of those that run its vCPUs. All others are served.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use host_iface::{CpuId, Host, Tsc};
use spin::Mutex;
use vmm_core::{EndReason, backend::Backend};
use wire::{HostCall, HostFault, Stage};

use crate::{host::COKERNEL, overdue, vm::GuestVm};

/// VMs of a stage that can have faults.
const VMS: usize = 8;
/// CPUs whose calls can fail.
const CPUS: usize = 64;
/// Owner of a CPU that works for no VM.
const NOBODY: usize = VMS;

/// How long VMs with faults may run.
const PATIENCE_MS: u64 = 1500;
/// How long the operator waits until it tries again to stop them.
const AGAIN_MS: u64 = 50;

struct Plan {
    fault: Mutex<Option<HostFault>>,
    calls: AtomicU64,
    failed: AtomicU64,
}

static PLANS: [Plan; VMS] = [const {
    Plan { fault: Mutex::new(None), calls: AtomicU64::new(0), failed: AtomicU64::new(0) }
}; VMS];

/// By CPU: the VM it works for, by its number in the stage.
static OWNERS: [AtomicUsize; CPUS] = [const { AtomicUsize::new(NOBODY) }; CPUS];

fn owner() -> Option<&'static AtomicUsize> {
    OWNERS.get(COKERNEL.current_cpu().0 as usize)
}

/// Takes the faults of the stage's VMs.
pub fn load(stage: &Stage) {
    for (number, plan) in PLANS.iter().enumerate() {
        *plan.fault.lock() = stage.vms.get(number).and_then(|vm| vm.host_fault.clone());
        plan.calls.store(0, Ordering::Relaxed);
        plan.failed.store(0, Ordering::Relaxed);
    }
}

/// The calling CPU works for VM `number` of the stage while `work` is done.
pub fn working_for<T>(number: usize, work: impl FnOnce() -> T) -> T {
    let Some(owner) = owner() else { return work() };
    let before = owner.swap(number.min(NOBODY), Ordering::Relaxed);
    let result = work();
    owner.store(before, Ordering::Relaxed);
    result
}

/// Counts a call. True if it has to fail.
pub fn fails(call: HostCall) -> bool {
    let number = owner().map_or(NOBODY, |owner| owner.load(Ordering::Relaxed));
    let Some(plan) = PLANS.get(number) else { return false };
    let Some(fault) = plan.fault.lock().clone().filter(|fault| fault.call == call) else {
        return false;
    };
    let count = plan.calls.fetch_add(1, Ordering::Relaxed) + 1;
    let fails = count == fault.at || fault.lasting && count > fault.at;
    plan.failed.fetch_add(fails.into(), Ordering::Relaxed);
    fails
}

/// Says in the log which faults came to pass.
pub fn tell(stage: &Stage) {
    for (vm, plan) in stage.vms.iter().zip(&PLANS) {
        if let Some(fault) = &vm.host_fault {
            let (call, at) = (fault.call.name(), fault.at);
            let failed = plan.failed.load(Ordering::Relaxed);
            log::info!("VM '{}': {call} number {at}: {failed} calls failed", vm.name);
        }
    }
}

/// Waits while `busy` says so. VMs with faults may wait for what never comes, so they are
/// stopped after a while, as an operator would.
pub fn wait<B: Backend>(vms: &[GuestVm<B>], cpus: &[CpuId], busy: &dyn Fn() -> bool) {
    let faulty = || vms.iter().filter(|guest| guest.has_host_fault);
    if faulty().next().is_none() {
        return overdue::wait(vms, cpus, busy);
    }
    let stop = || {
        let stopped = EndReason::Stopped("it waits for what the host has lost");
        faulty().for_each(|guest| guest.vm.control().end(stopped.clone()));
    };
    let deadline = Tsc(COKERNEL.tsc().0 + overdue::ticks(PATIENCE_MS));
    overdue::wait_until(busy, deadline, overdue::ticks(AGAIN_MS), &stop);
}
