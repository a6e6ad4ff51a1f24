// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events for the guest, and what holds them back.

use x86::vmx::vmcs::control::PrimaryControls;

use super::{decode, field::Field, interruptibility::SHADOW, vcpu::VmxVcpu};
use crate::{Event, backend::Interruptibility, state::rflags};

impl VmxVcpu {
    /// Has the next entry deliver `event`.
    pub(super) fn deliver_at_entry(&mut self, event: Event) {
        self.injected = Some(event);
        // Delivery ends an interrupt shadow. The CPU refuses some events inside one.
        self.end_shadow();
        let injection = decode::injection(event);
        self.vmcs.write(Field::EntryEvent, injection.field.into());
        if let Some(code) = injection.error_code {
            self.vmcs.write(Field::EntryErrorCode, code.into());
        }
        if let Some(length) = injection.instruction_length {
            self.vmcs.write(Field::EntryInstructionLength, length.into());
        }
        if let Event::Exception(exception) = event {
            self.keep_nmi_unblocking();
            if let Some(address) = exception.fault_address {
                self.context.cr2 = address;
            }
        }
    }

    /// What the guest can take now.
    pub(super) fn receptiveness(&self) -> Interruptibility {
        let state = self.vmcs.read(Field::Interruptibility);
        Interruptibility {
            interrupts_enabled: self.vmcs.read(Field::GuestRflags) & rflags::IF != 0,
            in_shadow: state & SHADOW != 0 && !self.shadow_ended,
            nmi_blocked: self.blocks_nmis(),
        }
    }

    /// Asks for an exit as soon as the guest can take an interrupt.
    pub(super) fn watch_interrupt_window(&mut self, wanted: bool) {
        self.set_primary_controls(PrimaryControls::INTERRUPT_WINDOW_EXITING, wanted);
    }

    /// Asks for an exit as soon as the guest can take an NMI.
    pub(super) fn watch_nmi_window(&mut self, wanted: bool) {
        if self.capabilities.has_virtual_nmis() {
            self.set_primary_controls(PrimaryControls::NMI_WINDOW_EXITING, wanted);
        } else if wanted {
            // Asked for behind the window for interrupts: the handler of an NMI is over when
            // interrupts are taken again.
            self.set_primary_controls(PrimaryControls::INTERRUPT_WINDOW_EXITING, true);
        }
    }
}
