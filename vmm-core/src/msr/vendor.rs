// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers that only one manufacturer's CPUs have.

use serde::{Deserialize, Serialize};

use super::{AmdMsrs, GeneralProtection, IntelMsrs};
use crate::cpuid::{CpuidTable, Vendor};

/// Registers of the manufacturer that the CPU model names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VendorMsrs {
    /// AMD's.
    Amd(AmdMsrs),
    /// Intel's.
    Intel(IntelMsrs),
}

impl VendorMsrs {
    /// The registers of `vendor` as firmware leaves them.
    pub fn new(vendor: Vendor) -> Self {
        match vendor {
            Vendor::Amd => Self::Amd(AmdMsrs::default()),
            Vendor::Intel => Self::Intel(IntelMsrs::default()),
        }
    }

    pub(super) fn read(&self, msr: u32, cpuid: &CpuidTable) -> Option<u64> {
        match self {
            Self::Amd(msrs) => msrs.read(msr, cpuid),
            Self::Intel(msrs) => msrs.read(msr),
        }
    }

    pub(super) fn write(
        &mut self,
        msr: u32,
        value: u64,
        cpuid: &CpuidTable,
    ) -> Option<Result<(), GeneralProtection>> {
        match self {
            Self::Amd(msrs) => msrs.write(msr, value, cpuid),
            Self::Intel(msrs) => msrs.write(msr, value),
        }
    }
}
