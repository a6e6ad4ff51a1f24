// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps events from the guest (Intel SDM vol. 3, 24.4.2).

use super::{
    decode::{EventField, ViolationQualification, reason},
    field::Field,
    vcpu::VmxVcpu,
};
use crate::{
    Event,
    state::{InterruptShadow, dr6, rflags},
};

const BLOCKED_BY_STI: u64 = 1 << 0;
const BLOCKED_BY_MOV_SS: u64 = 1 << 1;
/// Blocking by STI and by MOV SS.
pub const SHADOW: u64 = BLOCKED_BY_STI | BLOCKED_BY_MOV_SS;
/// Blocking by NMI: with virtual NMIs, that of the guest.
pub const BLOCKED_BY_NMI: u64 = 1 << 3;

impl VmxVcpu {
    /// Ends an interrupt shadow for the hardware, too.
    ///
    /// Completing an instruction in the VMM ends the shadow that it stood in, but that is only
    /// noted: if no event waits, nobody can tell whether the next instruction stands in it as
    /// well, and two accesses to the VMCS are saved.
    pub(super) fn end_shadow(&mut self) {
        let state = self.vmcs.read(Field::Interruptibility);
        self.vmcs.write(Field::Interruptibility, state & !SHADOW);
        self.shadow_ended = false;
        if self.traces() {
            self.hold_single_step(false);
        }
    }

    /// Notes that a shadow has ended. In a guest that single-steps it ends at once: the CPU
    /// enters none in a shadow without the single step that the shadow holds back (Intel SDM
    /// vol. 3, 26.3.1.5).
    pub(super) fn note_end_of_shadow(&mut self) {
        self.shadow_ended = true;
        if self.traces() {
            self.end_shadow();
        }
    }

    /// Begins an interrupt shadow in place of the one that was.
    pub(super) fn begin_shadow(&mut self, shadow: InterruptShadow) {
        self.end_shadow();
        let bit = match shadow {
            InterruptShadow::Sti => BLOCKED_BY_STI,
            InterruptShadow::MovSs => BLOCKED_BY_MOV_SS,
        };
        let state = self.vmcs.read(Field::Interruptibility);
        self.vmcs.write(Field::Interruptibility, state | bit);
        if self.traces() {
            self.hold_single_step(true);
        }
    }

    /// True if the guest single-steps.
    fn traces(&self) -> bool {
        self.vmcs.read(Field::GuestRflags) & rflags::TF != 0
    }

    /// Has the trap of a single step wait for the end of the shadow, or forgets it.
    fn hold_single_step(&mut self, held: bool) {
        let pending = self.vmcs.read(Field::PendingDebug) & !dr6::SINGLE_STEP;
        let step = if held { dr6::SINGLE_STEP } else { 0 };
        self.vmcs.write(Field::PendingDebug, pending | step);
    }

    /// Corrects the blocking of NMIs after an exit: it has begun with an NMI whose delivery is
    /// to be repeated, and has ended with an IRET that is to be repeated (Intel SDM vol. 3,
    /// 27.2.3 and 27.3.4).
    pub(super) fn correct_nmi_blocking(&mut self) {
        if self.interrupted == Some(Event::Nmi) {
            self.block_nmis(false);
            return;
        }
        if !self.capabilities.has_virtual_nmis() {
            return;
        }
        const DOUBLE_FAULT: u8 = 8;
        let iret_interrupted = match self.basic_reason {
            reason::EXCEPTION_OR_NMI => {
                let event = EventField::from_bits(self.vmcs.read(Field::ExitEvent) as u32);
                event.nmi_unblocking() && event.vector() != DOUBLE_FAULT
            }
            reason::EPT_VIOLATION => {
                let qualification = self.vmcs.read(Field::ExitQualification);
                ViolationQualification::from_bits(qualification).nmi_unblocking()
            }
            _ => false,
        };
        if iret_interrupted && self.interrupted.is_none() {
            self.block_nmis(true);
            self.iret_interrupted = true;
        }
    }

    /// The instruction that exited raises an exception in the guest. If it is an IRET, it is not
    /// repeated, and has ended the blocking of NMIs although it failed.
    pub(super) fn keep_nmi_unblocking(&mut self) {
        if core::mem::take(&mut self.iret_interrupted) {
            self.block_nmis(false);
        }
    }

    /// True if the guest takes no NMIs.
    pub(super) fn blocks_nmis(&self) -> bool {
        match self.capabilities.has_virtual_nmis() {
            true => self.vmcs.read(Field::Interruptibility) & BLOCKED_BY_NMI != 0,
            false => self.handles_nmi,
        }
    }

    /// Without virtual NMIs, IRET does not tell. A handler for NMIs runs with interrupts
    /// disabled: when the guest is seen to take interrupts, it is over.
    #[inline]
    pub(super) fn look_for_end_of_nmi(&mut self) {
        if self.handles_nmi {
            let enabled = self.vmcs.read(Field::GuestRflags) & rflags::IF != 0;
            let shadow = self.vmcs.read(Field::Interruptibility) & SHADOW != 0;
            self.handles_nmi = !enabled || shadow;
        }
    }

    /// Begins or ends the blocking of NMIs.
    pub(super) fn block_nmis(&mut self, blocked: bool) {
        if !self.capabilities.has_virtual_nmis() {
            self.handles_nmi = blocked;
            return;
        }
        let state = self.vmcs.read(Field::Interruptibility) & !BLOCKED_BY_NMI;
        let bit = if blocked { BLOCKED_BY_NMI } else { 0 };
        self.vmcs.write(Field::Interruptibility, state | bit);
    }
}
