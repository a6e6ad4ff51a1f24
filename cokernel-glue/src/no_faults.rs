// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image for work: no call of the host is made to fail.

use host_iface::CpuId;
use vmm_core::backend::Backend;
use wire::{HostCall, Stage};

use crate::{overdue, vm::GuestVm};

/// There is nothing to prepare.
pub fn load(_: &Stage) {}

/// Does `work`, for whichever VM it is.
#[inline]
pub fn working_for<T>(_: usize, work: impl FnOnce() -> T) -> T {
    work()
}

/// No call fails.
#[inline]
pub fn fails(_: HostCall) -> bool {
    false
}

/// There is nothing to tell.
pub fn tell(_: &Stage) {}

/// Waits while `busy` says so.
pub fn wait<B: Backend>(vms: &[GuestVm<B>], cpus: &[CpuId], busy: &dyn Fn() -> bool) {
    overdue::wait(vms, cpus, busy);
}
