// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries that are made to fail, to see what comes of it.

use alloc::{format, string::String};

use super::Vcpu;
use crate::{EndReason, backend::VcpuBackend};

/// An entry that is to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryFault {
    /// What of the control block is spoiled, as the backend names it.
    pub what: String,
    /// Number of the entry; the first is 1.
    pub at_entry: u64,
}

impl<V: VcpuBackend> Vcpu<V> {
    /// Has an entry fail. If the backend does not know the fault, the VM ends at that entry and
    /// says so.
    pub fn set_entry_fault(&mut self, fault: EntryFault) {
        self.entry_fault = Some(fault);
    }

    /// Spoils the control block if this is the entry.
    pub(super) fn inject_entry_fault(&mut self) {
        let Some(fault) = &self.entry_fault else { return };
        if self.statistics.entries + 1 != fault.at_entry {
            return;
        }
        if !self.hardware.spoil_entry(&fault.what) {
            let why = format!("there is no entry fault '{}'", fault.what);
            self.end(EndReason::EmulationFailure { vcpu: self.index, rip: 0, why });
        }
    }
}
