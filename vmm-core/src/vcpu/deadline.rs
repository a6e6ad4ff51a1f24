// SPDX-License-Identifier: MIT OR Apache-2.0
//! The earliest moment at which something is to happen to a vCPU, and the timer that tells of
//! it: one of the hardware while the guest runs, where there is one, or else the host's.

use host_iface::Tsc;

use super::Vcpu;
use crate::backend::VcpuBackend;

impl<V: VcpuBackend> Vcpu<V> {
    /// Follows the earliest deadline of this vCPU.
    #[inline]
    pub(super) fn follow_deadline(&mut self) {
        if self.serves_devices() && self.core.timers.take_changed() {
            let earliest = self.core.timers.earliest();
            self.device_deadline = earliest.map(|moment| self.core.clock.tsc_at(moment));
        }
        let deadline = match (self.apic.next_deadline(), self.device_deadline) {
            (Some(own), Some(device)) => Some(own.min(device)),
            (own, device) => own.or(device),
        };
        if deadline == self.armed {
            return;
        }
        self.armed = deadline;
        if deadline.is_some() && !self.hardware.ends_at_deadline() {
            self.arm_host_timer();
        } else {
            self.cancel_host_timer();
        }
    }

    /// The armed deadline has come.
    pub(super) fn deadline_came(&mut self) {
        // A timer of the host that was armed for it has expired.
        if self.host_timer == self.armed {
            self.host_timer = None;
        }
        self.armed = None;
    }

    /// The deadline that the hardware has to watch while the guest runs.
    #[inline]
    pub(super) fn hardware_deadline(&self) -> Option<Tsc> {
        self.armed.filter(|_| self.host_timer.is_none() && self.hardware.ends_at_deadline())
    }

    /// Arms the host's timer for the deadline, if there is one.
    pub(super) fn arm_host_timer(&mut self) {
        if let Some(deadline) = self.armed
            && self.host_timer != self.armed
        {
            self.core.host.arm_timer(deadline);
            self.host_timer = Some(deadline);
        }
    }

    /// Disarms the host's timer.
    pub(super) fn cancel_host_timer(&mut self) {
        if self.host_timer.take().is_some() {
            self.core.host.cancel_timer();
        }
    }
}
