// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to guest-physical addresses that are not memory.

use alloc::format;

use super::Vcpu;
use crate::{
    EndReason, Exit, NestedPageFault, backend::VcpuBackend, emulate::TriedAccess, state::Exception,
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

    /// The guest's descriptor tables or stack, or the page tables that lead there, lie where
    /// there is no memory. Through tables of all ones no event can be delivered, not even a
    /// double fault.
    fn delivery_failed(&mut self, fault: NestedPageFault, event: crate::Event) {
        let (vcpu, rip) = (self.index, self.hardware.rip());
        if fault.in_page_walk {
            self.handle(Exit::Shutdown).ok();
            return;
        }
        let why = format!("the delivery of {event:?} through guest-physical {}", fault.address);
        self.end(EndReason::EmulationFailure { vcpu, rip, why });
    }
}
