// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the control structure of a vCPU holds before its first entry.

use host_iface::HostPhysAddr;
use x86::vmx::vmcs::control::{PrimaryControls, SecondaryControls};

use super::{
    ept,
    field::Field,
    msr_area::{self, EferAreas},
    pause_loop,
    permission::X2ApicMsrs,
    vcpu::VmxVcpu,
};
use crate::{
    backend::{VcpuBackend, VcpuSetup},
    msr::PAT_RESET,
    state::{ControlRegisters, cr0, dr6, dr7, rflags},
};

const DEBUG_VECTOR: u32 = 1;
const PAGE_FAULT_VECTOR: u32 = 14;
const ALIGNMENT_VECTOR: u32 = 17;
const MACHINE_CHECK_VECTOR: u32 = 18;

impl VmxVcpu {
    /// What exits, and what an entry loads. Left to the guest is only what cannot reach beyond
    /// it: its own paging, descriptor tables, debug registers and the MSRs that are switched.
    pub(super) fn set_controls(&mut self, setup: VcpuSetup) {
        let controls = self.capabilities.controls;
        let mut secondary = controls.secondary;
        if self.vpid.is_none() {
            secondary -= SecondaryControls::ENABLE_VPID;
        }
        if setup.has_siblings && controls.pause_loop {
            secondary |= SecondaryControls::PAUSE_LOOP_EXITING;
            for (field, value) in pause_loop::FIELDS {
                self.vmcs.write(field, value);
            }
        }
        let [io_low, io_high] = self.shared.maps.io_addresses();
        let virtual_apic = self.apic.page.as_ref().map_or(0, |p| p.address().as_u64());
        let ept_pointer = self.ept_pointer(self.nested_root);
        let areas = self.efer_areas.as_ref().map(EferAreas::addresses);
        let (msr_count, [entry_area, exit_area]) = match areas {
            Some(addresses) => (msr_area::COUNT, addresses.map(|address| address.as_u64())),
            None => (0, [0; 2]),
        };
        // A guest could keep the CPU in endless delivery of #DB or #AC.
        let exceptions = 1 << DEBUG_VECTOR | 1 << ALIGNMENT_VECTOR | 1 << MACHINE_CHECK_VECTOR;
        // All page faults, as the fields that could except some by their error codes are zero.
        let page_faults = u64::from(self.shadow.is_some()) << PAGE_FAULT_VECTOR;
        for (field, value) in [
            (Field::PinControls, u64::from(controls.pin.bits())),
            (Field::PrimaryControls, u64::from(controls.primary.bits())),
            (Field::SecondaryControls, u64::from(secondary.bits())),
            (Field::ExitControls, u64::from(controls.exit.bits())),
            (Field::EntryControls, u64::from(controls.entry.bits())),
            (Field::ExceptionBitmap, exceptions | page_faults),
            (Field::IoBitmapA, io_low.as_u64()),
            (Field::IoBitmapB, io_high.as_u64()),
            (Field::MsrBitmap, self.shared.maps.msr_address(X2ApicMsrs::None).as_u64()),
            (Field::VirtualApic, virtual_apic),
            (Field::Vpid, self.vpid.as_ref().map_or(0, |vpid| u64::from(vpid.number()))),
            (Field::EptPointer, ept_pointer),
            // No function of the instruction is the guest's (Intel SDM vol. 3, 24.6.16).
            (Field::EnclsBitmap, u64::MAX),
            (Field::TscOffset, setup.tsc_offset),
            (Field::EntryMsrLoadCount, msr_count),
            (Field::EntryMsrLoadArea, entry_area),
            (Field::ExitMsrLoadCount, msr_count),
            (Field::ExitMsrLoadArea, exit_area),
            (Field::LinkPointer, u64::MAX),
            // The guest sees what it wrote; what it may write is checked first.
            (Field::Cr0Mask, u64::MAX),
            (Field::Cr4Mask, u64::MAX),
        ] {
            self.vmcs.write(field, value);
        }
    }

    /// The EPT pointer to tables with this root, or to none.
    pub(super) fn ept_pointer(&self, root: Option<HostPhysAddr>) -> u64 {
        root.map_or(0, |root| ept::pointer(&self.capabilities, root))
    }

    /// The registers as RESET leaves them, as far as the hardware holds them.
    pub(super) fn set_reset_state(&mut self) {
        self.vmcs.write(Field::GuestPat, PAT_RESET);
        self.vmcs.write(Field::GuestRflags, rflags::FIXED);
        self.set_debug_status_control(dr6::FIXED, dr7::FIXED);
        self.set_control_registers(ControlRegisters { cr0: cr0::ET, ..Default::default() });
    }

    /// Sets bits of the primary controls, or clears them unless they are always set.
    pub(super) fn set_primary_controls(&mut self, bits: PrimaryControls, wanted: bool) {
        let old = self.vmcs.read(Field::PrimaryControls);
        let always = u64::from(self.capabilities.controls.primary.bits());
        let bits = u64::from(bits.bits());
        let new = if wanted { old | bits } else { old & !bits | always };
        self.vmcs.write(Field::PrimaryControls, new);
    }
}
