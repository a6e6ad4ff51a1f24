// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC and the hardware that takes over a part of its work.
//!
//! The local APIC of the VMM is right whenever the guest is outside; the hardware has copies
//! while it is inside.

use super::Vcpu;
use crate::{
    ApicAccess, ApicAccessKind, NestedPageFault, Vector, apic::DEFAULT_APIC_BASE,
    backend::VcpuBackend, state::Exception,
};

/// Offsets of registers.
const END_OF_INTERRUPT: u16 = 0xB0;
const COMMAND_HIGH: u16 = 0x310;

impl<V: VcpuBackend> Vcpu<V> {
    /// Finds out what the hardware does of the local APIC's work from now on.
    #[inline]
    pub(super) fn choose_apic_role(&mut self) {
        if !V::HAS_APIC_ROLES {
            return;
        }
        // What is interpreted gets its interrupts from the VMM.
        let delivers = self.apic.delivers() && self.hardware.can_enter();
        let role = self.hardware.set_apic_mode(self.apic.mode(), delivers);
        if role != self.apic_role {
            self.apic.mark_changed();
            self.handed_over = Default::default();
            self.apic_role = role;
        }
    }

    /// The interrupt of the local APIC that the VMM itself has to deliver, if the guest can
    /// take interrupts.
    #[inline]
    pub(super) fn deliverable_vector(&self) -> Option<Vector> {
        if self.apic_role.delivers { None } else { self.apic.pending_vector() }
    }

    /// The priority class of the highest interrupt that waits, if the VMM has to look at it
    /// again when the task priority falls.
    #[inline]
    pub(super) fn watched_class(&self) -> Option<u8> {
        if self.apic_role.delivers {
            return None;
        }
        self.apic.highest_request().map(|vector| vector.0 >> 4)
    }

    /// Gives the hardware what it needs for the next entry.
    #[inline]
    pub(super) fn hand_over_apic(&mut self) {
        self.hardware.set_task_priority(self.apic.tpr());
        if self.apic_role.delivers {
            let state = self.apic.interrupts();
            if state.requested != self.handed_over {
                self.count_handed_over(state.requested.without(self.handed_over));
                self.handed_over = state.requested;
            }
            self.hardware.load_interrupts(&state);
        }
        if self.apic_role.shows_registers && self.apic.take_changed() {
            for (offset, value) in self.apic.readable_registers() {
                self.hardware.set_apic_register(offset, value);
            }
        }
    }

    /// Interrupts that the hardware delivers are counted when it gets them.
    fn count_handed_over(&mut self, mut vectors: crate::apic::VectorSet) {
        while let Some(vector) = vectors.highest() {
            vectors.remove(vector);
            self.statistics.count_interrupt(vector);
        }
    }

    /// After a brief exit for a register of the local APIC: what was prepared for the last entry
    /// holds for the next if no interrupt waits now. `is_confined` is what
    /// [`LocalApic::is_confined`] says of a write, and true for a read.
    #[inline]
    pub(super) fn follow_apic_access(&mut self, is_confined: bool) {
        let by_hardware = self.apic_role.delivers || self.apic_role.shows_registers;
        self.settled &= is_confined && !by_hardware && !self.apic.has_request();
        // Else it is done with all other preparations.
        if self.settled {
            self.hardware.set_task_priority(self.apic.tpr());
            self.follow_deadline();
        }
    }

    /// Takes back what the guest and the hardware have changed.
    #[inline]
    pub(super) fn take_back_apic(&mut self) {
        if self.hardware.may_have_new_task_priority() {
            let priority = self.hardware.task_priority();
            if priority != self.apic.tpr() {
                self.apic.set_tpr(priority);
            }
        }
        if !V::HAS_APIC_ROLES {
            return;
        }
        if self.apic_role.delivers {
            let state = self.hardware.interrupts();
            self.apic.set_interrupts(&state);
            self.handed_over = state.requested;
        }
        if self.apic_role.shows_registers {
            self.apic.set_command_high(self.hardware.apic_register(COMMAND_HIGH));
        }
    }

    /// The guest has written a register whose effect is the VMM's business.
    pub(super) fn apic_written(&mut self, offset: u16) {
        let value = self.hardware.apic_register(offset);
        self.apic.written(offset, value);
        // The copy is what the guest wrote, not what the register holds.
        self.apic.mark_changed();
    }

    /// An access to the page of the registers. The end of an interrupt, which needs no operand,
    /// is completed at once if the hardware tells where the instruction ends.
    pub(super) fn apic_access(&mut self, access: ApicAccess) -> Result<(), Exception> {
        let ends = access.kind == ApicAccessKind::Write && access.offset == END_OF_INTERRUPT;
        if ends && self.hardware.next_rip().is_some_and(|next| next != self.hardware.rip()) {
            self.apic.end_of_interrupt();
            return self.skip_instruction();
        }
        let address = DEFAULT_APIC_BASE.checked_add(access.offset.into());
        self.nested_page_fault(NestedPageFault {
            address: address.unwrap_or(DEFAULT_APIC_BASE),
            is_write: access.kind == ApicAccessKind::Write,
            is_fetch: access.kind == ApicAccessKind::Fetch,
            in_page_walk: access.kind == ApicAccessKind::Physical,
        })
    }
}
