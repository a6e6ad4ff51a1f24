// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to guest-physical addresses that are not memory.

use super::Vcpu;
use crate::{
    EndReason, Exit, NestedPageFault, PAGE_SIZE, apic::LocalApic, backend::VcpuBackend,
    emulate::TriedAccess, memory::text, state::Exception,
};

impl<V: VcpuBackend> Vcpu<V> {
    pub(super) fn nested_page_fault(&mut self, fault: NestedPageFault) -> Result<(), Exception> {
        if let Some(event) = self.pending.interrupted {
            self.delivery_failed(fault, event);
            return Ok(());
        }
        if !fault.is_fetch && !fault.in_page_walk {
            let NestedPageFault { address, is_write, .. } = fault;
            return self.emulate_access(TriedAccess { address, is_write });
        }
        // Where nothing is, a fetch reads all ones, which is no instruction.
        if fault.is_fetch && !fault.in_page_walk && !self.core.memory.contains(fault.address) {
            return Err(Exception::INVALID_OPCODE);
        }
        self.emulate()
    }

    /// Emulates the access if that is simple. `None`, and nothing has changed, if not.
    #[inline]
    pub(super) fn brief_access(&mut self, fault: NestedPageFault) -> Option<Result<(), Exception>> {
        if fault.is_fetch || fault.in_page_walk {
            return None;
        }
        let NestedPageFault { address, is_write, .. } = fault;
        let outcome = self.try_to_move(TriedAccess { address, is_write })?;
        if self.apic.mmio_window() == Some(address.align_down(PAGE_SIZE)) {
            let is_confined = !is_write || LocalApic::is_confined(address.offset_in(PAGE_SIZE));
            self.follow_apic_access(is_confined);
        }
        Some(self.conclude_move(outcome))
    }

    /// The guest's descriptor tables or stack, or the page tables that lead there, lie where
    /// there is no memory. Through tables of all ones no event can be delivered, not even a
    /// double fault.
    fn delivery_failed(&mut self, fault: NestedPageFault, event: crate::Event) {
        let (vcpu, rip) = (self.index, self.hardware.rip());
        if fault.in_page_walk {
            self.handle(Exit::Shutdown).ok();
            return;
        }
        let why = text(format_args!(
            "the delivery of {event:?} through guest-physical {}",
            fault.address
        ));
        self.end(EndReason::EmulationFailure { vcpu, rip, why });
    }
}
