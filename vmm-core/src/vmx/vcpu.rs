// SPDX-License-Identifier: MIT OR Apache-2.0
//! One vCPU on VMX: what it consists of.

use alloc::sync::Arc;
use core::cell::Cell;

use host_iface::{HostError, HostPhysAddr};

use super::{
    apic::ApicVirtualization, capability::Capabilities, cpu::Shared, debug_status::DebugStatus,
    field::Field, host_state::HostDescriptors, length::PlainCpuid, msr_area::EferAreas,
    preemption::PreemptionTimer, shadow::ShadowPaging, switch::SwitchContext,
    switched_msrs::SwitchedMsrs, virtual_apic::VirtualApic, vmcs::Vmcs, vpid::Vpid,
};
use crate::{
    Event,
    backend::{Translation, VcpuSetup},
    debug::BreakpointAddresses,
    fpu::FpuState,
    tsc_aux::TscAux,
};

/// Hardware state of one vCPU.
pub struct VmxVcpu {
    pub(super) shared: Arc<Shared>,
    /// What of the CPU is used for this guest.
    pub(super) capabilities: Capabilities,
    pub(super) vmcs: Vmcs,
    pub(super) apic: ApicVirtualization,
    pub(super) timer: PreemptionTimer,
    /// Root of the VM's nested page tables; none with shadow paging.
    pub(super) nested_root: Option<HostPhysAddr>,
    pub(super) vpid: Option<Vpid>,
    /// If the VMCS does not hold EFER.
    pub(super) efer_areas: Option<EferAreas>,
    pub(super) context: SwitchContext,
    pub(super) fpu: FpuState,
    pub(super) breakpoints: BreakpointAddresses,
    pub(super) debug_status: DebugStatus,
    pub(super) switched: SwitchedMsrs,
    pub(super) tsc_aux: TscAux,
    /// With shadow paging.
    pub(super) shadow: Option<ShadowPaging>,
    /// CR3 and EFER as the guest set them, while it runs with others.
    pub(super) hidden: Option<(u64, u64)>,
    /// Can the CPU enter the guest as it is? Unknown after a change.
    pub(super) enterable: Cell<Option<bool>>,
    /// Without virtual NMIs: the guest is in its handler of one.
    pub(super) handles_nmi: bool,
    /// The last exit cut short an IRET that had ended the blocking of NMIs.
    pub(super) iret_interrupted: bool,
    /// While the vCPU is loaded.
    pub(super) host: Option<HostDescriptors>,
    pub(super) flush_wanted: bool,
    pub(super) shadow_ended: bool,
    pub(super) injected: Option<Event>,
    pub(super) interrupted: Option<Event>,
    pub(super) basic_reason: u16,
    pub(super) plain_cpuid: PlainCpuid,
    pub(super) accesses_at_entry: u64,
}

impl VmxVcpu {
    pub(super) fn new(shared: Arc<Shared>, setup: VcpuSetup) -> Result<Self, HostError> {
        let host = shared.host;
        let capabilities = shared.capabilities.for_vcpu(setup);
        let shadow = match setup.translation {
            Translation::Nested(_) => None,
            Translation::Shadow => Some(ShadowPaging::new()),
        };
        let apic_page = match capabilities.has_tpr_shadow() {
            true => Some(VirtualApic::new(host)?),
            false => None,
        };
        let timer = PreemptionTimer::new(capabilities.preemption_shift());
        let revision = capabilities.msrs.basic.revision();
        let has_vpid = capabilities.fields() & Field::Vpid.bit() != 0;
        let mut vcpu = Self {
            vmcs: Vmcs::new(host, revision, capabilities.fields())?,
            apic: ApicVirtualization::new(setup.apic, apic_page),
            timer,
            nested_root: match setup.translation {
                Translation::Nested(root) => Some(root),
                Translation::Shadow => None,
            },
            vpid: if has_vpid { shared.vpids.take() } else { None },
            efer_areas: match capabilities.switches_efer() {
                true => None,
                false => Some(EferAreas::new(host)?),
            },
            context: SwitchContext::default(),
            fpu: FpuState::new(host, shared.fpu)?,
            breakpoints: BreakpointAddresses::default(),
            debug_status: DebugStatus::new(),
            switched: SwitchedMsrs::default(),
            tsc_aux: TscAux::new(capabilities.has_tsc_aux()),
            shadow,
            hidden: None,
            enterable: Cell::new(None),
            handles_nmi: false,
            iret_interrupted: false,
            host: None,
            flush_wanted: false,
            shadow_ended: false,
            injected: None,
            interrupted: None,
            basic_reason: 0,
            plain_cpuid: PlainCpuid::default(),
            accesses_at_entry: 0,
            capabilities,
            shared,
        };
        vcpu.set_controls(setup);
        vcpu.set_reset_state();
        Ok(vcpu)
    }
}
