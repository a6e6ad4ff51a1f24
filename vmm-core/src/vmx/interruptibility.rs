// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps events from the guest (Intel SDM vol. 3, 24.4.2).

use super::{
    decode::{EventField, ViolationQualification, reason},
    field::Field,
    vcpu::VmxVcpu,
};
use crate::Event;

/// Blocking by STI and by MOV SS.
pub const SHADOW: u64 = 1 << 0 | 1 << 1;
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
    }

    /// Corrects the blocking of NMIs after an exit: it has begun with an NMI whose delivery is
    /// to be repeated, and has ended with an IRET that is to be repeated (Intel SDM vol. 3,
    /// 27.2.3 and 27.3.4).
    pub(super) fn correct_nmi_blocking(&mut self) {
        if self.interrupted == Some(Event::Nmi) {
            self.set_nmi_blocking(false);
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
            self.set_nmi_blocking(true);
        }
    }

    pub(super) fn set_nmi_blocking(&mut self, blocked: bool) {
        let state = self.vmcs.read(Field::Interruptibility) & !BLOCKED_BY_NMI;
        let bit = if blocked { BLOCKED_BY_NMI } else { 0 };
        self.vmcs.write(Field::Interruptibility, state | bit);
    }
}
