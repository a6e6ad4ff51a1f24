// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building a virtual machine, and the machine that was built.

mod apic_window;
mod build_error;
mod builder;
mod core;
mod halt;
#[cfg(test)]
mod tests;

use alloc::{boxed::Box, sync::Arc, vec::Vec};

pub use build_error::{BuildError, VmPart};
pub use builder::{MAX_VCPUS, PagingChoice, VmBuilder, VmConfig};
pub(crate) use core::VmCore;

use crate::{
    VmControl,
    backend::VcpuBackend,
    memory::GuestMemory,
    paging::shadow::{ShadowMmu, ShadowStatistics},
    vcpu::Vcpu,
};

/// A virtual machine that is ready to run: each of its vCPUs on a CPU of its own.
///
/// Dropping it, once all vCPUs are back, returns everything to the host.
pub struct Vm<V: VcpuBackend> {
    core: Arc<VmCore>,
    vcpus: Vec<Box<Vcpu<V>>>,
}

impl<V: VcpuBackend> Vm<V> {
    /// The vCPUs that are not out running; the first is the bootstrap processor.
    pub fn vcpus(&mut self) -> &mut [Box<Vcpu<V>>] {
        &mut self.vcpus
    }

    /// Takes the vCPUs out, to run each on its CPU.
    pub fn take_vcpus(&mut self) -> Vec<Box<Vcpu<V>>> {
        ::core::mem::take(&mut self.vcpus)
    }

    /// The handle that ends the VM.
    pub fn control(&self) -> &VmControl {
        &self.core.control
    }

    /// Guest memory. With shadow paging, what is written here once a vCPU has run must not be the
    /// guest's page tables: what was made from them would stay.
    pub fn memory(&self) -> &GuestMemory {
        &self.core.memory
    }

    /// What the vCPUs share.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn core(&self) -> &Arc<VmCore> {
        &self.core
    }

    /// Size of the nested or shadow page tables in bytes.
    pub fn page_table_bytes(&self) -> u64 {
        self.core.tables.bytes()
    }

    /// What the shadow MMU did; none with nested paging.
    pub fn shadow_statistics(&self) -> Option<ShadowStatistics> {
        self.core.shadow().map(ShadowMmu::statistics)
    }

    /// Size of control blocks and save areas of the vCPUs that are not out running, in bytes.
    pub fn control_bytes(&self) -> u64 {
        self.vcpus.iter().map(|vcpu| vcpu.control_bytes() as u64).sum()
    }
}
