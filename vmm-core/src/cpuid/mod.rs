// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest sees in CPUID: a chosen model, never the host's leaves.
//!
//! A [`CpuidModel`] and the host's features make a [`CpuidTable`] once per VM. Every feature
//! bit is in an allow-list of features that the VMM knows how to handle, and is shown only if
//! the host CPU has it too; what a later CPU invents stays hidden.

mod amd;
mod common;
mod features;
mod hypervisor;
mod intel;
mod model;
mod table;
mod topology;
mod xsave;

pub use hypervisor::{
    HYPERVISOR_BASE, KVM_BASE, KVM_FEATURE_CLOCKSOURCE_STABLE, KVM_FEATURE_CLOCKSOURCE2,
    KVM_FEATURE_NOP_IO_DELAY,
};
pub use model::{CpuidModel, Vendor};
pub use table::{CpuidResult, CpuidTable, DynamicCpuid, XSAVE_LEAF};
pub use xsave::{XSTATE_AVX, XSTATE_AVX512, XSTATE_SSE, XSTATE_X87};

/// The CPU that executes the call, as its own CPUID instruction answers.
#[cfg(target_arch = "x86_64")]
pub fn host_cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    CpuidResult { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}
