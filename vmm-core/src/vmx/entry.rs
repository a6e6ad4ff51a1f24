// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use core::arch::asm;

use super::{
    decode::{self, EventField, ExitInformation, ExitReasonField, event_kind, reason},
    entry_check, entry_failure,
    field::Field,
    switch::{self, Outcome},
    vcpu::VmxVcpu,
};
use crate::{Exit, backend::EntryGate, cpu_interrupts, state::Exception};

/// Bits of a debug exception's exit qualification that DR6 has in the same place: B0 to B3,
/// BD and BS (Intel SDM vol. 3, table 27-1).
const DEBUG_CAUSES: u64 = 0x600F;
const BREAKPOINTS_HIT: u64 = 0xF;
/// DR7.GD: accesses to debug registers trap.
const GENERAL_DETECT: u64 = 1 << 13;

impl VmxVcpu {
    /// Enters the guest if the gate opens, and returns its exit.
    pub(super) fn enter(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        self.flush_if_wanted();
        self.vmcs.write_back();
        cpu_interrupts::disable();
        if !gate.opens() {
            cpu_interrupts::enable();
            self.interrupted = self.injected.take();
            self.vmcs.write(Field::EntryEvent, 0);
            return Exit::NotEntered;
        }
        let resume = self.vmcs.is_launched();
        // SAFETY: interrupts are disabled. The vCPU is loaded on this CPU: its VMCS is current
        // or there is none, its host fields were filled here, and it is launched if it says
        // so. The controls are those of `set_controls`, the guest state was checked by those
        // who set it, and the nested tables map the VM's own memory only.
        let outcome = unsafe { switch::enter(&mut self.context, resume) };
        self.accesses_at_entry = self.vmcs.accesses() + self.context.accesses;
        self.injected = None;
        self.shadow_ended = false;
        match outcome {
            Outcome::Exited => self.take_exit(),
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
        let field = ExitReasonField::from_bits(self.vmcs.read(Field::ExitReason) as u32);
        self.basic_reason = field.basic();
        if field.basic() == reason::EXCEPTION_OR_NMI && self.event().kind() == event_kind::NMI {
            // The exit has blocked NMIs on this CPU until an IRET, which the host's handler
            // ends with.
            // SAFETY: the host has a handler for NMIs; to it this is one.
            unsafe { asm!("int 2") }
        }
        cpu_interrupts::enable();
        if field.entry_failure() {
            self.vmcs.entry_failed();
            return Exit::EntryFailure(self.entry_failure());
        }
        if decode::may_interrupt_delivery(self.basic_reason) {
            let event = EventField::from_bits(self.vmcs.read(Field::VectoringEvent) as u32);
            let error_code =
                if event.has_error_code() { self.vmcs.read(Field::VectoringErrorCode) } else { 0 };
            self.interrupted =
                decode::interrupted_event(event, error_code as u32, self.context.cr2);
            self.correct_nmi_blocking();
        }
        match decode::exit(self.basic_reason, self) {
            exit @ Exit::Exception(Exception { vector, .. })
                if vector == Exception::DEBUG.vector =>
            {
                self.note_debug_exception();
                exit
            }
            exit => exit,
        }
    }

    /// An intercepted #DB leaves the debug registers to the VMM (Intel SDM vol. 3, 27.1).
    fn note_debug_exception(&mut self) {
        use crate::backend::VcpuBackend;

        if self.event().kind() == event_kind::PRIVILEGED_SOFTWARE_EXCEPTION
            && let Some(next) = self.next_rip()
        {
            // INT1 is a trap: its handler returns behind it.
            self.set_rip(next);
        }
        let causes = self.qualification() & DEBUG_CAUSES;
        let (dr6, dr7) = self.debug_status_control();
        self.set_debug_status_control(dr6 & !BREAKPOINTS_HIT | causes, dr7 & !GENERAL_DETECT);
    }

    /// Which check the guest's state failed.
    fn entry_failure(&self) -> &'static str {
        match self.basic_reason {
            reason::INVALID_GUEST_STATE => entry_failure::guest_state_qualification(
                self.qualification(),
            )
            .unwrap_or_else(|| entry_check::first_failure(&self.vmcs, &self.shared.capabilities)),
            reason::MSR_LOADING => "loading of MSRs (SDM vol. 3, 26.4)",
            reason::MACHINE_CHECK_AT_ENTRY => "a machine check (SDM vol. 3, 26.9)",
            _ => "a reason that the manual does not list",
        }
    }

    /// Drops the guest's cached translations on this CPU. Without a VPID, every entry does.
    fn flush_if_wanted(&mut self) {
        if core::mem::take(&mut self.flush_wanted)
            && let Some(vpid) = &self.vpid
        {
            // SAFETY: the vCPU is loaded, so the CPU is in VMX operation.
            unsafe { vpid.invalidate(&self.shared.capabilities) };
        }
    }

    /// Length of the instruction that exited.
    pub(super) fn instruction_length(&self) -> u8 {
        let known = match self.basic_reason {
            reason::CPUID => self.lengths.get(self.vmcs.read(Field::GuestRip)),
            _ => None,
        };
        known.unwrap_or_else(|| {
            let length = self.vmcs.read(Field::InstructionLength) as u8;
            if self.basic_reason == reason::CPUID {
                self.lengths.note(self.vmcs.read(Field::GuestRip), length);
            }
            length
        })
    }
}

impl ExitInformation for VmxVcpu {
    fn qualification(&self) -> u64 {
        self.vmcs.read(Field::ExitQualification)
    }

    fn guest_physical_address(&self) -> u64 {
        self.vmcs.read(Field::GuestPhysicalAddress)
    }

    fn event(&self) -> EventField {
        EventField::from_bits(self.vmcs.read(Field::ExitEvent) as u32)
    }

    fn error_code(&self) -> u32 {
        self.vmcs.read(Field::ExitErrorCode) as u32
    }
}
