// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine-check registers: the architecture is there, as CPUID says, without any bank (AMD
//! APM vol. 2, 9.3).

use serde::{Deserialize, Serialize};

use super::{GeneralProtection, index};

/// RIPV, EIPV and MCIP.
const STATUS_DEFINED: u64 = 7;

/// The global machine-check registers of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MachineCheckMsrs {
    status: u64,
}

impl MachineCheckMsrs {
    /// Reads a register; `None` if `msr` is not one of these. There is no MCG_CTL, as
    /// MCG_CAP says.
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            index::MCG_CAP => Some(0),
            index::MCG_STATUS => Some(self.status),
            _ => None,
        }
    }

    /// Writes a register; `None` if `msr` is not one of these.
    pub(super) fn write(&mut self, msr: u32, value: u64) -> Option<Result<(), GeneralProtection>> {
        match msr {
            index::MCG_STATUS if value & !STATUS_DEFINED == 0 => {
                self.status = value;
                Some(Ok(()))
            }
            index::MCG_CAP | index::MCG_STATUS => Some(Err(GeneralProtection)),
            _ => None,
        }
    }
}
