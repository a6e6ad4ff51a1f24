// SPDX-License-Identifier: MIT OR Apache-2.0
//! What exits, and what else the control area of a new vCPU says (AMD APM vol. 2, 15.9 to
//! 15.13).

use super::{
    pause_filter,
    permission::PermissionMaps,
    shadow::{self, ShadowedRegisters},
    vcpu::SvmVcpu,
    vmcb::{Intercepts1, Intercepts2, Intercepts3, InterruptControl},
};
use crate::{
    backend::{Translation, VcpuBackend, VcpuSetup},
    msr::PAT_RESET,
    state::{ControlRegisters, cr0, dr6, dr7, efer, rflags},
};

const DEBUG_VECTOR: u32 = 1;
const ALIGNMENT_VECTOR: u32 = 17;
const MACHINE_CHECK_VECTOR: u32 = 18;

impl SvmVcpu {
    /// What exits. Left to the guest is only what cannot reach beyond it: its own paging,
    /// descriptor tables, debug registers and the MSRs that are switched.
    pub(super) fn set_intercepts(&mut self) {
        let control = &mut self.vmcb_mut().control;
        control.cr_writes = 1 << 4;
        // A guest could keep the CPU in endless delivery of #DB or #AC.
        control.exceptions = 1 << DEBUG_VECTOR | 1 << ALIGNMENT_VECTOR | 1 << MACHINE_CHECK_VECTOR;
        control.intercepts1 = Intercepts1::new()
            .with_interrupt(true)
            .with_nmi(true)
            .with_smi(true)
            .with_init(true)
            .with_rdpmc(true)
            .with_cpuid(true)
            .with_rsm(true)
            .with_invd(true)
            .with_hlt(true)
            .with_invlpga(true)
            .with_port_io(true)
            .with_msr(true)
            .with_ferr_freeze(true)
            .with_shutdown(true);
        control.intercepts2 = Intercepts2::new()
            .with_vmrun(true)
            .with_vmmcall(true)
            .with_vmload(true)
            .with_vmsave(true)
            .with_stgi(true)
            .with_clgi(true)
            .with_skinit(true)
            .with_wbinvd(true)
            .with_monitor(true)
            .with_mwait(true)
            .with_xsetbv(true)
            .with_rdpru(true);
        control.intercepts3 = Intercepts3::new()
            .with_invlpgb(true)
            .with_invlpgb_illegal(true)
            .with_invpcid(true)
            .with_mcommit(true)
            .with_tlbsync(true);
    }

    pub(super) fn set_controls(&mut self, maps: &PermissionMaps, setup: VcpuSetup) {
        let capabilities = self.capabilities;
        let vmcb = self.vmcb_mut();
        vmcb.control.io_permission_map = maps.io_address().as_u64();
        vmcb.control.msr_permission_map = maps.msr_address().as_u64();
        vmcb.control.tsc_offset = setup.tsc_offset;
        vmcb.control.interrupt_control = InterruptControl::new().with_masking(true);
        if setup.has_siblings {
            pause_filter::limit_spinning(&mut vmcb.control, &capabilities);
        }
        if let Translation::Nested(root) = setup.translation {
            vmcb.control.nested_enable = 1;
            vmcb.control.nested_cr3 = root.as_u64();
        }
        vmcb.save.efer = efer::SVME;
        vmcb.save.pat = PAT_RESET;
        vmcb.save.cr0 = cr0::ET;
        vmcb.save.rflags = rflags::FIXED;
        vmcb.save.dr6 = dr6::FIXED;
        vmcb.save.dr7 = dr7::FIXED;
        if setup.translation == Translation::Shadow {
            shadow::intercept(&mut vmcb.control);
            self.shadowed = Some(ShadowedRegisters::new());
            self.set_control_registers(ControlRegisters { cr0: cr0::ET, ..Default::default() });
        }
    }

    /// Has IRET exit, which may end the blocking of NMIs.
    pub(super) fn intercept_iret(&mut self, wanted: bool) {
        let control = &mut self.vmcb_mut().control;
        control.intercepts1.set_iret(wanted);
    }
}
