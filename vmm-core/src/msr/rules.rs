// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules for the values of registers that the backend holds.

use super::GeneralProtection;
use crate::{
    GuestVirtAddr,
    cpuid::{CpuidTable, Vendor},
    state::{cr0, efer},
};

/// PAT after reset (AMD APM vol. 2, table 7-9).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Checks a value for PAT: each byte one of UC, WC, WT, WP, WB and UC− (AMD APM vol. 2,
/// 7.8.1).
///
/// # Errors
/// [`GeneralProtection`] for any other type.
pub fn validate_pat(value: u64) -> Result<(), GeneralProtection> {
    let legal = |memory_type: u8| matches!(memory_type, 0 | 1 | 4..=7);
    if value.to_le_bytes().into_iter().all(legal) { Ok(()) } else { Err(GeneralProtection) }
}

/// Checks a write of EFER and returns the value to load (AMD APM vol. 2, 3.1.7).
///
/// LMA is not software's to set: it keeps its value, whatever is written.
///
/// # Errors
/// [`GeneralProtection`] for bits of features that the model lacks, and for a change of LME
/// while paging is on.
pub fn validate_efer(
    old: u64,
    new: u64,
    cr0_value: u64,
    cpuid: &CpuidTable,
) -> Result<u64, GeneralProtection> {
    let changes_mode = (old ^ new) & efer::LME != 0;
    if new & !(cpuid.supported_efer() | efer::LMA) != 0 || changes_mode && cr0_value & cr0::PG != 0
    {
        return Err(GeneralProtection);
    }
    Ok(new & !efer::LMA | old & efer::LMA)
}

/// Checks a value for TSC_AUX: 32 bits.
///
/// # Errors
/// [`GeneralProtection`] if a higher bit is set.
pub fn validate_tsc_aux(value: u64) -> Result<(), GeneralProtection> {
    u32::try_from(value).map(drop).map_err(|_| GeneralProtection)
}

/// Checks a value for STAR or SFMASK, of which Intel's CPUs reserve the bits `reserved`: the lower
/// half of STAR and the upper one of SFMASK (Intel SDM vol. 3, 5.8.8). AMD's have the entry point
/// of 32-bit code in the former, and ignore the latter (AMD APM vol. 2, 6.1.1).
///
/// # Errors
/// [`GeneralProtection`] if an Intel CPU would raise it.
pub fn validate_syscall_register(
    value: u64,
    reserved: u64,
    vendor: Vendor,
) -> Result<(), GeneralProtection> {
    match vendor {
        Vendor::Intel if value & reserved != 0 => Err(GeneralProtection),
        Vendor::Intel | Vendor::Amd => Ok(()),
    }
}

/// True if `value` may be written to a register that holds a linear address: LSTAR, CSTAR,
/// FS_BASE, GS_BASE, KERNEL_GS_BASE and, on Intel's CPUs, SYSENTER_ESP and SYSENTER_EIP.
pub const fn is_canonical(value: u64) -> bool {
    GuestVirtAddr::new(value).is_canonical()
}
