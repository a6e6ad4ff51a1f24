// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interpreting a guest in a state that the CPU cannot enter: real mode, and the moment after
//! it, on CPUs that execute guests in protected mode only.
//!
//! It is the loop of the vCPU with the emulator in the place of the hardware. Exceptions and
//! interrupts are chosen as for an entry, and are delivered by the emulator, too.

use super::{Vcpu, activity::Activity};
use crate::{
    EndReason, Event, Exit,
    backend::VcpuBackend,
    emulate::{self, Outcome},
    memory::text,
    state::{ControlRegisters, Exception},
};

/// Instructions between two looks at what the host has for the devices.
const BATCH: usize = 1024;

impl<V: VcpuBackend> Vcpu<V> {
    /// Executes instructions one after another until the CPU can enter the guest, or something
    /// else comes first.
    pub(super) fn interpret(&mut self) {
        self.close_exit(self.core.host.tsc());
        self.prepare_events();
        for _ in 0..BATCH {
            if self.must_look_up() || self.hardware.can_enter() {
                break;
            }
            self.statistics.interpreted += 1;
            let (mut cpu, mut bus) = self.views();
            let outcome = emulate::emulate(&mut cpu, &mut bus, None);
            if let Err(exception) = self.conclude(outcome) {
                self.pending.raise(exception);
            }
            let event_waits = self.pending.nmi || self.interrupt_waits();
            if event_waits || self.activity != Activity::Running {
                break;
            }
        }
        // No exit tells of the host's interrupts here.
        self.notify_host_event_clients();
        self.now = self.core.host.tsc();
    }

    /// True if no instruction may be executed before the loop of the vCPU was run through.
    fn must_look_up(&self) -> bool {
        self.pending.has_event()
            || self.link.needs_attention()
            || self.armed.is_some_and(|deadline| deadline <= self.core.host.tsc())
    }

    /// Delivers `event` now. If that fails, the fault and the event combine at the next
    /// attempt.
    pub(super) fn deliver_by_emulation(&mut self, event: Event) {
        if let Event::Exception(Exception { fault_address: Some(cr2), .. }) = event {
            let old = self.hardware.control_registers();
            self.hardware.set_control_registers(ControlRegisters { cr2, ..old });
        }
        let (mut cpu, mut bus) = self.views();
        match emulate::deliver(&mut cpu, &mut bus, event) {
            Outcome::Done { .. } if event == Event::Nmi => self.hardware.set_nmi_blocking(true),
            Outcome::Done { .. } => {}
            Outcome::Fault(exception) => {
                self.pending.interrupted = Some(event);
                self.pending.raise(exception);
            }
            // Another CPU keeps changing the page tables.
            Outcome::Repeat { .. } => self.pending.interrupted = Some(event),
            Outcome::Intercepted { exit: Exit::TaskSwitch(switch), .. } => {
                self.pending.interrupted = Some(event);
                if let Err(exception) = self.switch_task(switch) {
                    self.pending.raise(exception);
                }
            }
            _ => {
                let (vcpu, rip) = (self.index, self.hardware.rip());
                let why =
                    text(format_args!("the delivery of {event:?} to another privilege level"));
                self.end(EndReason::EmulationFailure { vcpu, rip, why });
            }
        }
    }
}
