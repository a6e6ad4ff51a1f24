// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use core::arch::asm;

use super::{
    decode::{ExitInformation, ExitReasonField, event_kind, reason},
    entry_failure,
    field::Field,
    switch::{self, Outcome},
    vcpu::VmxVcpu,
};
use crate::{Event, Exit, backend::EntryGate, cpu_interrupts};

impl VmxVcpu {
    /// Enters the guest if the gate opens, and returns its exit.
    pub(super) fn enter(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        self.flush_if_wanted();
        self.vmcs.write_back();
        cpu_interrupts::disable();
        if !gate.opens() {
            cpu_interrupts::enable();
            self.timer.stand_still(gate);
            self.interrupted = self.injected.take();
            self.vmcs.write(Field::EntryEvent, 0);
            return Exit::NotEntered;
        }
        if self.capabilities.controls.preemption_timer {
            // Only now is it known how much time is left.
            self.timer.prepare(&mut self.vmcs, gate);
            self.vmcs.write_back();
        }
        let resume = self.vmcs.is_launched();
        // SAFETY: interrupts are disabled. The vCPU is loaded on this CPU: its VMCS is current
        // or there is none, its host fields were filled here, and it is launched if it says
        // so. The controls are those of `set_controls`, the guest state was checked by those
        // who set it, and the nested tables map the VM's own memory only.
        let outcome = unsafe { switch::enter(&mut self.context, resume) };
        self.accesses_at_entry = self.vmcs.accesses() + self.context.accesses;
        let injected = self.injected.take();
        if injected == Some(Event::Nmi) && !self.capabilities.has_virtual_nmis() {
            self.handles_nmi = true;
        }
        self.shadow_ended = false;
        match outcome {
            Outcome::Exited => {
                let exit = self.take_exit();
                if matches!(exit, Exit::NotEntered) {
                    self.interrupted = injected;
                }
                exit
            }
            Outcome::Refused => {
                cpu_interrupts::enable();
                self.vmcs.entry_failed();
                let error = self.vmcs.read(Field::InstructionError);
                Exit::EntryFailure(entry_failure::instruction_error(error))
            }
            Outcome::NoVmcs => {
                cpu_interrupts::enable();
                Exit::EntryFailure("the CPU did not accept the VMCS")
            }
        }
    }

    /// The exit as the neutral layer sees it, after the backend's own part. Called with
    /// interrupts disabled; a physical interrupt that caused the exit is taken here.
    fn take_exit(&mut self) -> Exit {
        self.vmcs.guest_exited();
        self.note_interrupts();
        let field = ExitReasonField::from_bits(self.vmcs.read(Field::ExitReason) as u32);
        self.basic_reason = field.basic();
        if field.basic() == reason::EXCEPTION_OR_NMI && self.event().kind() == event_kind::NMI {
            // The exit has blocked NMIs on this CPU until an IRET, which the host's handler
            // ends with.
            // SAFETY: the host has a handler for NMIs; to it this is one.
            unsafe { asm!("int 2") }
        }
        cpu_interrupts::enable();
        self.exit_of(field)
    }

    /// Drops the guest's cached translations on this CPU. Without a VPID, every entry does.
    fn flush_if_wanted(&mut self) {
        if core::mem::take(&mut self.flush_wanted)
            && let Some(vpid) = &self.vpid
        {
            // SAFETY: the vCPU is loaded, so the CPU is in VMX operation.
            unsafe { vpid.invalidate(&self.capabilities) };
        }
    }
}
