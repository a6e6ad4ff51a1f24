// SPDX-License-Identifier: MIT OR Apache-2.0
//! When things happened.

use anyhow::{Context, Result};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

const MSR_TSC: u32 = 0x10;

/// A moment by two clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The time-stamp counter of the machine that runs this program.
    pub host: u64,
    /// That of a vCPU.
    pub guest: u64,
}

impl Moment {
    /// Now.
    ///
    /// # Errors
    /// When KVM does not say.
    pub fn now(vcpu: &VcpuFd) -> Result<Self> {
        let mut msrs =
            Msrs::from_entries(&[kvm_msr_entry { index: MSR_TSC, ..Default::default() }])?;
        vcpu.get_msrs(&mut msrs)?;
        let guest = msrs.as_slice().first().context("KVM does not say the vCPU's time")?.data;
        Ok(Self { host: tsc(), guest })
    }
}

/// The time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets programs use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}
