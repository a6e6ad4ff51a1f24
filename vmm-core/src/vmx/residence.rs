// SPDX-License-Identifier: MIT OR Apache-2.0
//! A vCPU on a CPU of the host: what comes with it, and goes with it.

use super::{ept, field::Field, host_state::HostDescriptors, vcpu::VmxVcpu};

impl VmxVcpu {
    /// Brings the vCPU to the calling CPU; false if that is not prepared for it.
    pub(super) fn move_in(&mut self) -> bool {
        // SAFETY: the CPU is in VMX operation, and the vCPU, which is borrowed exclusively, is
        // loaded nowhere.
        if !self.shared.is_prepared() || !unsafe { self.vmcs.load() } {
            return false;
        }
        self.host = Some(HostDescriptors::capture(&mut self.vmcs));
        let host_efer = self.vmcs.read(Field::HostEfer);
        if let Some(areas) = &mut self.efer_areas {
            areas.set_host(host_efer);
        }
        // Another CPU, or other tables at the same address, may have been here.
        self.context.host_rsp = 0;
        self.flush_wanted = true;
        let window = self.apic.window().map(|window| window.nested_root);
        for root in [self.nested_root, window].into_iter().flatten() {
            // SAFETY: the CPU is in VMX operation, and has EPT: nothing else walks nested tables.
            unsafe { ept::invalidate(&self.capabilities, self.ept_pointer(Some(root))) };
        }
        self.fpu.load();
        self.breakpoints.load();
        self.debug_status.load();
        self.switched.load();
        self.tsc_aux.load();
        true
    }

    /// Takes the vCPU off the calling CPU, and brings back what was the host's.
    pub(super) fn move_out(&mut self) {
        self.tsc_aux.put();
        self.switched.put();
        self.fpu.put();
        self.debug_status.put();
        self.breakpoints.put();
        self.timer.distrust();
        self.vmcs.put();
        if let Some(host) = self.host.take() {
            host.restore();
        }
    }
}
