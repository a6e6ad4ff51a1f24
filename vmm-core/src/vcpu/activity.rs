// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU does between exits: run, wait for an event, or wait to be started.

use super::Vcpu;
use crate::{
    Vector,
    backend::VcpuBackend,
    boot::InitialState,
    cpuid::DynamicCpuid,
    state::{dr6, dr7},
};

/// Activity of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Activity {
    /// Executes instructions.
    Running,
    /// Executed HLT and waits for an event.
    Halted,
    /// Was reset by INIT and waits for a start-up message.
    WaitForStartup,
}

impl<V: VcpuBackend> Vcpu<V> {
    /// Waits until somebody rings, a timer is due, or the host was interrupted for another
    /// reason, of which a device may have to know.
    pub(super) fn wait(&mut self) {
        if self.activity == Activity::Halted && self.is_woken() {
            self.activity = Activity::Running;
            return;
        }
        let unwakeable = match self.activity {
            Activity::WaitForStartup => true,
            _ => !self.hardware.interruptibility().interrupts_enabled,
        };
        let host = self.core.host;
        self.arm_host_timer();
        self.link.going_inside(host.current_cpu());
        if unwakeable {
            self.core.enter_unwakeable();
        }
        let (link, deadline) = (&self.link, self.armed);
        let mut interrupted = false;
        host.idle_while(&mut || {
            let idle = !interrupted
                && !link.needs_attention()
                && deadline.is_none_or(|deadline| host.tsc() < deadline);
            interrupted = true;
            idle
        });
        if unwakeable {
            self.core.leave_unwakeable();
        }
        self.link.back_outside();
        let woken_at = host.tsc();
        self.close_exit(self.now);
        self.statistics.idle_ticks += woken_at.0.saturating_sub(self.now.0);
        self.now = woken_at;
        self.notify_host_event_clients();
    }

    /// True if an event has come that ends HLT.
    fn is_woken(&mut self) -> bool {
        if self.pending.external {
            // It may have been withdrawn since.
            self.look_at_external_source();
        }
        let state = self.hardware.interruptibility();
        let interrupt = self.apic.pending_vector().is_some() || self.pending.external;
        self.pending.nmi && !state.nmi_blocked
            || interrupt && state.interrupts_enabled
            || self.pending.has_event()
    }

    /// Takes up messages that do not wait in the IRR.
    pub(super) fn take_messages(&mut self) {
        self.pending.nmi |= self.apic.take_nmi();
        if self.apic.take_init() {
            self.reset_by_init();
        }
        // One that was not awaited is dropped, and must not stay behind as mail.
        if let Some(page) = self.apic.take_startup() {
            self.set_reset_state(&InitialState::startup(Vector(page)));
            self.activity = Activity::Running;
        }
        if self.serves_devices() {
            self.look_at_external_source();
            self.notify_host_event_clients();
        } else {
            // The 8259A pair is wired to the first vCPU alone.
            self.apic.take_external();
        }
    }

    /// INIT resets what the architecture says, and leaves the vCPU waiting for a start-up;
    /// the bootstrap processor begins at the reset vector instead (Intel SDM vol. 3, 9.1).
    fn reset_by_init(&mut self) {
        self.pending = Default::default();
        self.hardware.clear_interrupt_shadow();
        self.hardware.set_nmi_blocking(false);
        self.hardware.drop_pending_debug_exceptions();
        self.hardware.set_debug_status_control(dr6::FIXED, dr7::FIXED);
        for number in 0..4 {
            self.hardware.set_breakpoint_address(number, 0);
        }
        self.set_reset_state(&InitialState::reset());
        self.activity =
            if self.apic.awaiting_startup() { Activity::WaitForStartup } else { Activity::Running };
    }

    /// Sets a state that the CPU brings itself into, which leaves its signature in RDX.
    pub(super) fn set_reset_state(&mut self, state: &InitialState) {
        let signature = self.core.cpuid.query(1, 0, &DynamicCpuid::default()).eax;
        self.set_initial_state(&state.with_signature(signature));
    }

    /// Lets devices look for what has arrived at the host.
    pub(super) fn notify_host_event_clients(&self) {
        if self.serves_devices() {
            for client in &self.core.host_event_clients {
                client.host_event();
            }
        }
    }
}
