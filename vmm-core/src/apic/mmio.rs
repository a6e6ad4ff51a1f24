// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register page of xAPIC mode (Intel SDM vol. 3, 11.4.1).

use super::{
    LocalApic,
    base::ApicMode,
    local::ESR_ILLEGAL_REGISTER,
    registers::{ICR_HIGH, ICR_LOW},
};
use crate::AccessWidth;

const LOW_HALF: u64 = 0xFFFF_FFFF;

impl LocalApic {
    /// Reads at `offset` from the start of the register page.
    ///
    /// Registers are the low 32 bits of each 16 bytes. Narrower reads within one yield that
    /// part of it; hardware leaves them undefined. Everything between registers reads as
    /// zero. Outside xAPIC mode nothing answers, which reads as all ones.
    pub fn read_mmio(&mut self, offset: u64, width: AccessWidth) -> u64 {
        if self.base.mode() != ApicMode::XApic {
            return width.all_ones();
        }
        let within = offset & 0xF;
        if within >= 4 {
            return 0;
        }
        let index = (offset >> 4 & 0xFF) as u32;
        let Some(value) = self.read_register(index, false) else {
            self.report_error(ESR_ILLEGAL_REGISTER);
            return 0;
        };
        u64::from(value) >> (8 * within) & width.all_ones()
    }

    /// Writes the low `width` of `value` at `offset` from the start of the register page.
    /// Only aligned 32-bit writes have an effect; hardware leaves others undefined.
    #[inline]
    pub fn write_mmio(&mut self, offset: u64, width: AccessWidth, value: u64) {
        if self.base.mode() != ApicMode::XApic || width != AccessWidth::Dword || offset & 0xF != 0 {
            return;
        }
        self.changed = true;
        let index = (offset >> 4 & 0xFF) as u32;
        let value = value & LOW_HALF;
        match index {
            ICR_LOW => self.command(self.icr & !LOW_HALF | value, false),
            ICR_HIGH => self.set_command_high(value as u32),
            _ => {
                if !self.write_register(index, value as u32)
                    && self.read_register(index, false).is_none()
                {
                    self.report_error(ESR_ILLEGAL_REGISTER);
                }
            }
        }
    }
}
