// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory type range registers (AMD APM vol. 2, 7.7).
//!
//! They are kept and checked but have no effect: guest memory is always write-back, and
//! nothing else is memory. They start as a PC's firmware leaves them, because the kernels that
//! are booted without firmware expect it: write-back by default, the hole below 4 GiB and the
//! video memory uncached, the option ROMs write-protected. With write-back as default, Linux
//! neither trims memory nor rewrites the ranges. All vCPUs start alike, so it finds nothing to
//! make consistent either.

use serde::{Deserialize, Serialize};

use super::{GeneralProtection, index};
use crate::memory::{HIGH_MEMORY, LOW_MEMORY_END};

const VARIABLE_RANGES: usize = 8;
const UNCACHED: u8 = 0;
const WRITE_PROTECTED: u8 = 5;
const WRITE_BACK: u8 = 6;

/// MTRRcap: fixed ranges and the write-combining type exist.
const CAPABILITIES: u64 = VARIABLE_RANGES as u64 | 1 << 8 | 1 << 10;
const TYPE: u64 = 0xFF;
const FIXED_ENABLED: u64 = 1 << 10;
const ENABLED: u64 = 1 << 11;
const VALID: u64 = 1 << 11;
const PAGE: u64 = 1 << 12;

/// Base and mask of a variable range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct VariableRange {
    base: u64,
    mask: u64,
}

/// The memory type range registers of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mtrrs {
    default_type: u64,
    variable: [VariableRange; VARIABLE_RANGES],
    /// 64 KiB, 16 KiB and 4 KiB ranges in ascending order.
    fixed: [u64; 11],
}

impl Mtrrs {
    /// The registers as firmware leaves them, for addresses of `address_bits` bits.
    pub fn after_firmware(address_bits: u8) -> Self {
        let all = |memory_type: u8| u64::from_le_bytes([memory_type; 8]);
        let mut fixed = [all(WRITE_PROTECTED); 11];
        fixed[0] = all(WRITE_BACK);
        fixed[1] = all(WRITE_BACK);
        fixed[2] = all(UNCACHED);
        let mut variable = [VariableRange::default(); VARIABLE_RANGES];
        let hole = HIGH_MEMORY.as_u64() - LOW_MEMORY_END.as_u64();
        variable[0] = VariableRange {
            base: LOW_MEMORY_END.as_u64() | u64::from(UNCACHED),
            mask: address_mask(address_bits) & !(hole - 1) | VALID,
        };
        Self { default_type: u64::from(WRITE_BACK) | FIXED_ENABLED | ENABLED, variable, fixed }
    }

    /// Reads a register; `None` if `msr` is not one of these.
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            index::MTRR_CAP => Some(CAPABILITIES),
            index::MTRR_DEF_TYPE => Some(self.default_type),
            index::MTRR_PHYS_BASE0..=index::MTRR_PHYS_MASK7 => {
                let offset = msr - index::MTRR_PHYS_BASE0;
                let range = self.variable.get((offset / 2) as usize)?;
                Some(if offset.is_multiple_of(2) { range.base } else { range.mask })
            }
            _ => fixed_slot(msr).and_then(|slot| self.fixed.get(slot).copied()),
        }
    }

    /// Writes a register; `None` if `msr` is not one of these.
    pub(super) fn write(
        &mut self,
        msr: u32,
        value: u64,
        address_bits: u8,
    ) -> Option<Result<(), GeneralProtection>> {
        let addresses = address_mask(address_bits);
        match msr {
            index::MTRR_CAP => Some(Err(GeneralProtection)),
            index::MTRR_DEF_TYPE => {
                let legal =
                    value & !(TYPE | FIXED_ENABLED | ENABLED) == 0 && legal_type(value as u8);
                Some(store(&mut self.default_type, value, legal))
            }
            index::MTRR_PHYS_BASE0..=index::MTRR_PHYS_MASK7 => {
                let offset = msr - index::MTRR_PHYS_BASE0;
                let range = self.variable.get_mut((offset / 2) as usize)?;
                if offset.is_multiple_of(2) {
                    let legal = value & !(addresses | TYPE) == 0 && legal_type(value as u8);
                    Some(store(&mut range.base, value, legal))
                } else {
                    Some(store(&mut range.mask, value, value & !(addresses | VALID) == 0))
                }
            }
            _ => {
                let register = self.fixed.get_mut(fixed_slot(msr)?)?;
                Some(store(register, value, value.to_le_bytes().into_iter().all(legal_type)))
            }
        }
    }
}

fn store(register: &mut u64, value: u64, legal: bool) -> Result<(), GeneralProtection> {
    if !legal {
        return Err(GeneralProtection);
    }
    *register = value;
    Ok(())
}

/// UC, WC, WT, WP and WB.
const fn legal_type(memory_type: u8) -> bool {
    matches!(memory_type, 0 | 1 | 4..=6)
}

/// The page-number bits of an address of `bits` bits.
const fn address_mask(bits: u8) -> u64 {
    let below = if bits >= 63 { u64::MAX >> 1 } else { (1 << bits) - 1 };
    below & !(PAGE - 1)
}

const fn fixed_slot(msr: u32) -> Option<usize> {
    match msr {
        index::MTRR_FIX_64K => Some(0),
        index::MTRR_FIX_16K_FIRST..=index::MTRR_FIX_16K_LAST => {
            Some((msr - index::MTRR_FIX_16K_FIRST) as usize + 1)
        }
        index::MTRR_FIX_4K_FIRST..=index::MTRR_FIX_4K_LAST => {
            Some((msr - index::MTRR_FIX_4K_FIRST) as usize + 3)
        }
        _ => None,
    }
}
