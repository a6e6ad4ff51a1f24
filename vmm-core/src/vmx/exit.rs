// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware tells of an exit, as the neutral layer sees it.

use super::{
    decode::{self, EventField, ExitInformation, ExitReasonField, event_kind, reason},
    entry_check, entry_failure,
    field::Field,
    segment,
    vcpu::VmxVcpu,
};
use crate::{
    Exit,
    backend::VcpuBackend,
    state::{Exception, SegmentRegister, dr6, dr7, efer},
};

/// Bits of a debug exception's exit qualification that DR6 has in the same place: B0 to B3,
/// BD and BS (Intel SDM vol. 3, table 27-1).
const DEBUG_CAUSES: u64 = dr6::BREAKPOINTS | dr6::GENERAL_DETECT | dr6::SINGLE_STEP;

impl VmxVcpu {
    /// The exit, after the backend's own part of it.
    pub(super) fn exit_of(&mut self, field: ExitReasonField) -> Exit {
        if field.entry_failure() {
            self.vmcs.entry_failed();
            let is_state = self.basic_reason == reason::INVALID_GUEST_STATE;
            if is_state && self.complete_data_segments() {
                // An exit takes back the request to deliver an event, a refused entry does not
                // (Intel SDM vol. 3, 26.8).
                self.vmcs.forget(Field::EntryEvent);
                self.vmcs.write(Field::EntryEvent, 0);
                return Exit::NotEntered;
            }
            if self.basic_reason == reason::MACHINE_CHECK_AT_ENTRY {
                return Exit::MachineCheck;
            }
            return Exit::EntryFailure(self.entry_failure());
        }
        self.iret_interrupted = false;
        if self.basic_reason == reason::PREEMPTION_TIMER {
            self.timer.distrust();
        }
        if decode::may_interrupt_delivery(self.basic_reason) {
            let event = self.vectoring_event();
            let error_code = if event.has_error_code() { self.vectoring_error_code() } else { 0 };
            self.interrupted = decode::interrupted_event(event, error_code, self.context.cr2);
            self.correct_nmi_blocking();
        }
        self.look_for_end_of_nmi();
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
        if self.event().kind() == event_kind::PRIVILEGED_SOFTWARE_EXCEPTION {
            // INT1 is a trap: its handler returns behind it.
            self.set_rip(self.behind_instruction());
        }
        let causes = self.qualification() & DEBUG_CAUSES;
        let (status, control) = self.debug_status_control();
        self.set_debug_status_control(
            status & !dr6::BREAKPOINTS | causes,
            control & !dr7::GENERAL_DETECT,
        );
    }

    /// Which check the guest's state failed.
    fn entry_failure(&self) -> &'static str {
        match self.basic_reason {
            reason::INVALID_GUEST_STATE => {
                self.log_segments();
                entry_failure::guest_state_qualification(self.qualification())
                    .unwrap_or_else(|| entry_check::first_failure(&self.vmcs, &self.capabilities))
            }
            reason::MSR_LOADING => "loading of MSRs (SDM vol. 3, 26.4)",
            _ => "a reason that the manual does not list",
        }
    }

    /// Writes what the entry was refused with to the log, once for a VM: most checks are on it.
    fn log_segments(&self) {
        for register in [
            SegmentRegister::Cs,
            SegmentRegister::Ss,
            SegmentRegister::Ds,
            SegmentRegister::Es,
            SegmentRegister::Fs,
            SegmentRegister::Gs,
            SegmentRegister::Ldtr,
            SegmentRegister::Tr,
        ] {
            log::warn!("entry refused with {register:?} {:x?}", self.segment(register));
        }
    }

    /// Length of the instruction that exited.
    pub(super) fn instruction_length(&self) -> u8 {
        if self.basic_reason != reason::CPUID {
            return self.vmcs.read(Field::InstructionLength) as u8;
        }
        let rip = self.vmcs.read(Field::GuestRip);
        self.plain_cpuid.length_at(rip).unwrap_or_else(|| {
            let length = self.vmcs.read(Field::InstructionLength) as u8;
            self.plain_cpuid.note(rip, length);
            length
        })
    }

    /// Where the guest goes on behind the instruction that exited.
    pub(super) fn behind_instruction(&self) -> u64 {
        let rip = self.vmcs.read(Field::GuestRip);
        let next = rip.wrapping_add(self.instruction_length().into());
        // Outside 64-bit code RIP has 32 bits. What lies beyond them is 64-bit code.
        let wraps = next >> 32 != 0 && rip >> 32 == 0 && !self.is_in_64_bit_code();
        if wraps { next & 0xFFFF_FFFF } else { next }
    }

    /// True if the guest executes 64-bit code.
    pub(super) fn is_in_64_bit_code(&self) -> bool {
        let rights = segment::from_rights(self.vmcs.read(Field::CsRights));
        self.vmcs.read(Field::GuestEfer) & efer::LMA != 0 && rights.long()
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

    fn vectoring_event(&self) -> EventField {
        EventField::from_bits(self.vmcs.read(Field::VectoringEvent) as u32)
    }

    fn vectoring_error_code(&self) -> u32 {
        self.vmcs.read(Field::VectoringErrorCode) as u32
    }
}
