// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMX on the machine and on each of its CPUs.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use host_iface::{Host, HostError, PageRequest};
use spin::Mutex;
use x86::{
    msr::{IA32_FEATURE_CONTROL, rdmsr, wrmsr},
    vmx::vmcs::control::SecondaryControls,
};

#[cfg(any(test, feature = "mock-backend"))]
use super::capability::samples::SampleModel;
use super::{
    capability::{Capabilities, CapabilityMsrs, feature_control},
    ept::EptEntries,
    instruction,
    permission::PermissionMaps,
    unpaged::IdentityMap,
    vcpu::VmxVcpu,
    vmcs::write_revision,
    vpid::VpidPool,
};
use crate::{
    backend::{Backend, HardwarePage, Unsupported, VcpuSetup},
    cpuid::Vendor,
    fpu::FpuSupport,
    host_registers,
    memory::OwnedPages,
    state::{cr0, cr4},
};

/// What a CPU had before it was prepared.
#[derive(Clone, Copy)]
struct Before {
    cr0: u64,
    cr4: u64,
}

/// What the backend keeps for one CPU.
pub(super) struct PerCpu {
    /// Where the CPU keeps what it needs for VMX operation.
    vmxon_region: OwnedPages,
    before: Mutex<Option<Before>>,
}

/// What all vCPUs of the machine share.
pub(super) struct Shared {
    pub host: &'static dyn Host,
    pub capabilities: Capabilities,
    pub fpu: FpuSupport,
    pub maps: PermissionMaps,
    pub vpids: Arc<VpidPool>,
    /// For guests without paging, where the CPU needs one.
    pub identity_map: Option<IdentityMap>,
    pub cpus: Box<[PerCpu]>,
}

impl Shared {
    fn this_cpu(&self) -> Option<&PerCpu> {
        self.cpus.get(self.host.current_cpu().0 as usize)
    }

    /// True if the calling CPU is in VMX operation on behalf of the backend.
    pub fn is_prepared(&self) -> bool {
        self.this_cpu().is_some_and(|cpu| cpu.before.lock().is_some())
    }

    /// For tests: a machine whose CPUs offer `msrs`, and none of which is prepared.
    #[cfg(test)]
    pub fn sample(msrs: CapabilityMsrs) -> Arc<Self> {
        let host = host_mock::MockHost::leak(1);
        let maps = PermissionMaps::new(host);
        Arc::new(Self {
            host,
            capabilities: Capabilities::new(msrs).expect("a VMM can use the CPU"),
            fpu: FpuSupport::Fxsave,
            maps: maps.expect("the host of tests has memory"),
            vpids: Arc::new(VpidPool::new()),
            identity_map: None,
            cpus: [].into(),
        })
    }
}

/// Intel VT-x on one machine.
pub struct Vmx {
    shared: Arc<Shared>,
}

impl Vmx {
    /// VT-x on a machine whose CPUs offer `capabilities`, none of which is prepared.
    ///
    /// # Errors
    /// What the host lacks; everything goes back then.
    fn new(host: &'static dyn Host, capabilities: Capabilities) -> Result<Self, HostError> {
        let per_cpu = |_| {
            let vmxon_region = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
            write_revision(&vmxon_region, capabilities.msrs.basic.revision());
            Ok(PerCpu { vmxon_region, before: Mutex::new(None) })
        };
        let cpus: Result<Vec<_>, HostError> = (0..host.cpu_count()).map(per_cpu).collect();
        let identity_map = match capabilities.needs_identity_map() {
            true => Some(IdentityMap::new(host)?),
            false => None,
        };
        let shared = Shared {
            host,
            capabilities,
            fpu: FpuSupport::probe(),
            maps: PermissionMaps::new(host)?,
            vpids: Arc::new(VpidPool::new()),
            identity_map,
            cpus: cpus?.into_boxed_slice(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// For tests: VMs can be built, but no CPU be prepared.
    ///
    /// # Errors
    /// What the host lacks; everything goes back then.
    #[cfg(any(test, feature = "mock-backend"))]
    pub fn sample(host: &'static dyn Host, model: SampleModel) -> Result<Self, HostError> {
        Self::new(host, model.capabilities())
    }
}

impl Backend for Vmx {
    type Vcpu = VmxVcpu;
    type Entries = EptEntries;

    const NAME: &'static str = "vmx";
    const VENDOR: Vendor = Vendor::Intel;

    fn probe(host: &'static dyn Host) -> Result<Self, Unsupported> {
        let capabilities = Capabilities::new(CapabilityMsrs::read())?;
        Ok(Self::new(host, capabilities)?)
    }

    fn capabilities(&self) -> Vec<String> {
        self.shared.capabilities.names()
    }

    fn has_nested_paging(&self) -> bool {
        self.shared.capabilities.has_ept()
    }

    fn has_huge_pages(&self) -> bool {
        self.shared.capabilities.msrs.ept.huge_pages()
    }

    fn wants_apic_window(&self) -> bool {
        let xapic = SecondaryControls::VIRTUALIZE_APIC;
        self.shared.capabilities.controls.apic.contains(xapic)
    }

    fn hardware_page(&self) -> Option<HardwarePage> {
        self.shared.identity_map.as_ref().map(IdentityMap::page)
    }

    fn create_vcpu(&self, setup: VcpuSetup) -> Result<VmxVcpu, HostError> {
        VmxVcpu::new(self.shared.clone(), setup)
    }

    fn enter_cpu(&self) -> Result<(), Unsupported> {
        let number = self.shared.host.current_cpu();
        let cpu = self.shared.this_cpu().ok_or(Unsupported::Host(HostError::NoSuchCpu(number)))?;
        let here = Capabilities::new(CapabilityMsrs::read())?;
        let probed = &self.shared.capabilities;
        if here.controls != probed.controls || here.msrs.basic != probed.msrs.basic {
            return Err(Unsupported::MissingFeature("what VT-x of the first CPU offers"));
        }
        let mut before = cpu.before.lock();
        if before.is_some() {
            return Err(Unsupported::Host(HostError::CpuBusy(number)));
        }
        *before = Some(Before::enable(&self.shared, cpu, here.msrs.feature_control)?);
        Ok(())
    }

    fn leave_cpu(&self) {
        let before = self.shared.this_cpu().and_then(|cpu| cpu.before.lock().take());
        if let Some(before) = before {
            // SAFETY: the CPU has been in VMX operation since the matching `enable`, and no
            // vCPU is loaded on it any more.
            unsafe { instruction::vmxoff() };
            before.restore();
        }
    }
}

impl Before {
    fn enable(shared: &Shared, cpu: &PerCpu, permission: u64) -> Result<Self, Unsupported> {
        let before = Self { cr0: host_registers::cr0(), cr4: host_registers::cr4() };
        let msrs = &shared.capabilities.msrs;
        let cr0 = (before.cr0 & !(cr0::TS | cr0::EM) | msrs.cr0_fixed0) & msrs.cr0_fixed1;
        let wanted = shared.fpu.required_cr4() | cr4::VMXE;
        let cr4 = (before.cr4 | wanted | msrs.cr4_fixed0) & msrs.cr4_fixed1;
        // SAFETY: VT-x is there and not locked off. Where firmware left the choice open, it is
        // made for as long as the machine stays on: VMXON demands the lock. The bits set in
        // CR0 and CR4 are those that VMX operation demands or that make floating-point state
        // accessible, and paging and protection stay on, as the fixed bits include them.
        let entered = unsafe {
            if permission & feature_control::LOCKED == 0 {
                let open = feature_control::LOCKED | feature_control::VMX_OUTSIDE_SMX;
                wrmsr(IA32_FEATURE_CONTROL, rdmsr(IA32_FEATURE_CONTROL) | open);
            }
            host_registers::write_cr0(cr0);
            host_registers::write_cr4(cr4);
            instruction::vmxon(cpu.vmxon_region.address().as_u64())
        };
        if !entered {
            before.restore();
            return Err(Unsupported::Refused("VMXON: something else uses VT-x on it already"));
        }
        Ok(before)
    }

    fn restore(self) {
        // SAFETY: these are the values that this CPU had when it was prepared, and it is not
        // in VMX operation.
        unsafe {
            host_registers::write_cr4(self.cr4);
            host_registers::write_cr0(self.cr0);
        }
    }
}
