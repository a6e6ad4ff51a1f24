// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of AMD's CPUs (AMD APM vol. 2, 3.2 and appendix A; Processor Programming
//! Reference for family 19h, 2.1.14).

use serde::{Deserialize, Serialize};

use super::{GeneralProtection, index};
use crate::cpuid::CpuidTable;

/// Microcode revision of a Milan B1 that has the fixes that family 19h got as microcode, so
/// that a guest does not work around what the model does not have.
const MICROCODE_REVISION: u64 = 0x0A00_11D5;

/// HWCR: the TSC counts at the P0 frequency. Read-only.
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
/// HWCR: bits without an effect that operating systems set: TlbCacheDis, INVDWBINVD, FFDIS,
/// IGNNE emulation and McStatusWrEn.
const HWCR_WRITABLE: u64 = 1 << 3 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 18;

/// SYSCFG: fixed and variable MTRRs may map DRAM.
const SYSCFG_RESET: u64 = 1 << 18 | 1 << 20;
/// MtrrFixDramEn, MtrrVarDramEn, MtrrTom2En and Tom2ForceMemTypeWB. MtrrFixDramModEn is not
/// offered: there is no DRAM attribute in the fixed ranges.
const SYSCFG_WRITABLE: u64 = 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22;

/// NB_CFG: extended configuration accesses through ports 0xCF8 and 0xCFC.
const NB_CFG_EXTENDED_CF8: u64 = 1 << 46;

/// VM_CR: SVM is disabled and stays so.
const VM_CR_SVM_LOCKED_OFF: u64 = 1 << 3 | 1 << 4;
const VM_CR_DEFINED: u64 = 0x1F;

/// DE_CFG: LFENCE serialises dispatch.
const DE_CFG_LFENCE_SERIALIZING: u64 = 1 << 1;

/// The registers of an AMD vCPU that hold something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AmdMsrs {
    hwcr: u64,
    syscfg: u64,
    nb_cfg: u64,
}

impl Default for AmdMsrs {
    fn default() -> Self {
        Self { hwcr: HWCR_TSC_FREQ_SEL, syscfg: SYSCFG_RESET, nb_cfg: NB_CFG_EXTENDED_CF8 }
    }
}

impl AmdMsrs {
    pub(super) fn read(&self, msr: u32, cpuid: &CpuidTable) -> Option<u64> {
        match msr {
            index::PATCH_LEVEL => Some(MICROCODE_REVISION),
            index::HWCR => Some(self.hwcr),
            index::SYSCFG => Some(self.syscfg),
            index::NB_CFG => Some(self.nb_cfg),
            index::VM_CR => Some(VM_CR_SVM_LOCKED_OFF),
            index::DE_CFG if cpuid.lfence_serializes() => Some(DE_CFG_LFENCE_SERIALIZING),
            _ => None,
        }
    }

    pub(super) fn write(
        &mut self,
        msr: u32,
        value: u64,
        cpuid: &CpuidTable,
    ) -> Option<Result<(), GeneralProtection>> {
        let outcome = match msr {
            index::HWCR => write(&mut self.hwcr, value, HWCR_WRITABLE, HWCR_TSC_FREQ_SEL),
            index::SYSCFG => write(&mut self.syscfg, value, SYSCFG_WRITABLE, 0),
            index::NB_CFG => write(&mut self.nb_cfg, value, NB_CFG_EXTENDED_CF8, 0),
            index::VM_CR => write(&mut { 0 }, value, 0, VM_CR_DEFINED),
            index::DE_CFG if cpuid.lfence_serializes() => {
                write(&mut { 0 }, value, 0, DE_CFG_LFENCE_SERIALIZING)
            }
            _ => return None,
        };
        Some(outcome)
    }
}

/// Replaces the writable bits. Read-only bits may be written but keep their value.
fn write(
    register: &mut u64,
    value: u64,
    writable: u64,
    read_only: u64,
) -> Result<(), GeneralProtection> {
    if value & !(writable | read_only) != 0 {
        return Err(GeneralProtection);
    }
    *register = *register & !writable | value & writable;
    Ok(())
}
