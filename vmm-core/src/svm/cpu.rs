// SPDX-License-Identifier: MIT OR Apache-2.0
//! SVM on the machine and on each of its CPUs.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use host_iface::{CpuId, Host, HostError, PageRequest};
use spin::Mutex;
use x86::msr::{IA32_APIC_BASE, IA32_EFER, rdmsr, wrmsr};

use super::{
    asid::AsidPool,
    capability::{Capabilities, CpuidLeaves, SvmFeatures},
    permission::PermissionMaps,
    vcpu::SvmVcpu,
};
use crate::{
    backend::{Backend, Unsupported, VcpuSetup},
    cpuid::Vendor,
    fpu::FpuSupport,
    host_registers,
    memory::OwnedPages,
    paging::LongModeEntries,
    state::{cr0, efer},
};

/// VM_CR and its bits (AMD APM vol. 2, 15.30.1).
const VM_CR: u32 = 0xC001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
/// Physical address of the host save area (AMD APM vol. 2, 15.30.4).
const VM_HSAVE_PA: u32 = 0xC001_0117;

/// Bit of APIC_BASE that marks the boot CPU (AMD APM vol. 2, 16.3.1).
const APIC_BASE_BSC: u64 = 1 << 8;

/// What a CPU had before it was prepared.
#[derive(Clone, Copy)]
struct Before {
    efer: u64,
    hsave: u64,
    cr0: u64,
    cr4: u64,
}

/// What the backend keeps for one CPU.
pub(super) struct PerCpu {
    /// Where VMRUN saves the host.
    host_save: OwnedPages,
    /// Control block that keeps the host state which VMLOAD restores.
    pub(super) host_vmcb: OwnedPages,
    pub(super) asids: Mutex<AsidPool>,
    before: Mutex<Option<Before>>,
}

impl PerCpu {
    /// True between `enter_cpu` and `leave_cpu`.
    pub(super) fn is_prepared(&self) -> bool {
        self.before.lock().is_some()
    }

    /// Has `enable` prepare the CPU. False, and nothing is done, if it is prepared already.
    fn prepare(&self, enable: impl FnOnce() -> Before) -> bool {
        let mut before = self.before.lock();
        if before.is_some() {
            return false;
        }
        // Whoever had the CPU meanwhile may have used the same identifiers.
        self.asids.lock().forget();
        *before = Some(enable());
        true
    }
}

/// AMD SVM on one machine.
pub struct Svm {
    host: &'static dyn Host,
    capabilities: Capabilities,
    fpu: FpuSupport,
    cpus: Arc<Box<[PerCpu]>>,
    maps: Arc<PermissionMaps>,
}

impl Svm {
    /// SVM on a machine whose CPUs offer `capabilities`, none of which is prepared.
    ///
    /// # Errors
    /// What the host lacks; everything goes back then.
    fn new(host: &'static dyn Host, capabilities: Capabilities) -> Result<Self, HostError> {
        let page = || OwnedPages::zeroed(host, PageRequest::contiguous(1));
        let per_cpu = |_| {
            Ok(PerCpu {
                host_save: page()?,
                host_vmcb: page()?,
                asids: Mutex::new(AsidPool::new(capabilities.asids)),
                before: Mutex::new(None),
            })
        };
        let cpus: Result<Vec<_>, HostError> = (0..host.cpu_count()).map(per_cpu).collect();
        Ok(Self {
            host,
            capabilities,
            fpu: FpuSupport::probe(),
            cpus: Arc::new(cpus?.into_boxed_slice()),
            maps: Arc::new(PermissionMaps::new(host)?),
        })
    }

    /// For tests: VMs can be built, but no CPU be prepared. The CPUs have nested paging.
    ///
    /// # Errors
    /// What the host lacks; everything goes back then.
    #[cfg(any(test, feature = "mock-backend"))]
    pub fn sample(host: &'static dyn Host) -> Result<Self, HostError> {
        Self::new(host, Capabilities::sample())
    }

    /// The same on CPUs that offer `capabilities`.
    #[cfg(test)]
    pub(super) fn with(host: &'static dyn Host, capabilities: Capabilities) -> Self {
        Self::new(host, capabilities).expect("the host of tests has memory")
    }

    fn this_cpu(&self) -> Option<&PerCpu> {
        self.cpus.get(self.host.current_cpu().0 as usize)
    }
}

fn check_firmware_lock() -> Result<(), Unsupported> {
    // SAFETY: VM_CR exists wherever CPUID shows SVM, which the callers made sure of.
    if unsafe { rdmsr(VM_CR) } & VM_CR_SVMDIS != 0 {
        return Err(Unsupported::LockedByFirmware("VM_CR.SVMDIS, MSR C001_0114 bit 4, is set"));
    }
    Ok(())
}

/// Is the calling CPU the machine's first, from which the others were started?
fn is_first() -> bool {
    // SAFETY: every CPU with SVM has a local APIC; reading where it is changes nothing.
    unsafe { rdmsr(IA32_APIC_BASE) & APIC_BASE_BSC != 0 }
}

impl Backend for Svm {
    type Vcpu = SvmVcpu;
    type Entries = LongModeEntries;

    const NAME: &'static str = "svm";
    const VENDOR: Vendor = Vendor::Amd;

    fn probe(host: &'static dyn Host) -> Result<Self, Unsupported> {
        let capabilities = Capabilities::from_cpuid(&CpuidLeaves::read())?;
        check_firmware_lock()?;
        Ok(Self::new(host, capabilities)?)
    }

    fn capabilities(&self) -> Vec<String> {
        self.capabilities.names()
    }

    fn has_nested_paging(&self) -> bool {
        self.capabilities.has(SvmFeatures::NP)
    }

    fn has_huge_pages(&self) -> bool {
        self.capabilities.huge_pages
    }

    fn create_vcpu(&self, setup: VcpuSetup) -> Result<SvmVcpu, HostError> {
        SvmVcpu::new(
            self.host,
            self.capabilities,
            self.fpu,
            self.cpus.clone(),
            self.maps.clone(),
            setup,
        )
    }

    fn enter_cpu(&self) -> Result<(), Unsupported> {
        let no_cpu = Unsupported::Host(HostError::NoSuchCpu(self.host.current_cpu()));
        let cpu = self.this_cpu().ok_or(no_cpu)?;
        Capabilities::from_cpuid(&CpuidLeaves::read())?
            .check_cpu(self.host.cpu_count(), is_first())?;
        check_firmware_lock()?;
        match cpu.prepare(|| Before::enable(self.fpu, cpu)) {
            true => Ok(()),
            false => Err(Unsupported::Host(HostError::CpuBusy(self.host.current_cpu()))),
        }
    }

    fn leave_cpu(&self) {
        let before = self.this_cpu().and_then(|cpu| cpu.before.lock().take());
        if let Some(before) = before {
            before.restore();
        }
    }
}

impl Before {
    fn enable(fpu: FpuSupport, cpu: &PerCpu) -> Self {
        let host_save = cpu.host_save.address().as_u64();
        // SAFETY: SVM is there and not locked. Setting EFER.SVME and the save area's address
        // changes nothing for code that does not execute VMRUN; the CR0 and CR4 bits only
        // make floating-point state accessible, which the host does not use.
        unsafe {
            let before = Self {
                efer: rdmsr(IA32_EFER),
                hsave: 0,
                cr0: host_registers::cr0(),
                cr4: host_registers::cr4(),
            };
            wrmsr(IA32_EFER, before.efer | efer::SVME);
            let before = Self { hsave: rdmsr(VM_HSAVE_PA), ..before };
            wrmsr(VM_HSAVE_PA, host_save);
            host_registers::write_cr0(before.cr0 & !(cr0::TS | cr0::EM));
            host_registers::write_cr4(before.cr4 | fpu.required_cr4());
            super::switch::save_host_state(cpu.host_vmcb.address().as_u64());
            before
        }
    }

    fn restore(self) {
        // SAFETY: these are the values that this CPU had when it was prepared, and no vCPU is
        // loaded on it any more.
        unsafe {
            host_registers::write_cr4(self.cr4);
            host_registers::write_cr0(self.cr0);
            wrmsr(VM_HSAVE_PA, self.hsave);
            wrmsr(IA32_EFER, self.efer);
        }
    }
}

/// The per-CPU data of `cpu`.
pub(super) fn per_cpu(cpus: &[PerCpu], cpu: CpuId) -> Option<&PerCpu> {
    cpus.get(cpu.0 as usize)
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::svm::asid::{Asid, AsidUse};

    #[test]
    fn identifiers_of_an_earlier_stay_on_a_cpu_are_not_trusted() {
        let svm = Svm::sample(MockHost::leak(1)).unwrap();
        let cpu = &svm.cpus[0];
        let enable = || Before { efer: 0, hsave: 0, cr0: 0, cr4: 0 };
        assert!(cpu.prepare(enable) && !cpu.prepare(enable));
        let AsidUse::FreshAfterFlush(first) = cpu.asids.lock().ensure(Asid::default()) else {
            panic!("who had the CPU before is not known")
        };
        assert!(matches!(cpu.asids.lock().assign(), AsidUse::Fresh(_)));
        for asid in [first, Asid::default()] {
            // Handed back, and used by somebody else with identifiers of their own.
            cpu.before.lock().take();
            assert!(cpu.prepare(enable));
            let used = cpu.asids.lock().ensure(asid);
            assert!(matches!(used, AsidUse::FreshAfterFlush(_)), "{used:?}");
        }
    }
}
