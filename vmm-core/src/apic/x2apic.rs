// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model-specific registers of the local APIC (Intel SDM vol. 3, 11.12 and table 11-6).

use core::ops::RangeInclusive;

use super::{
    LocalApic,
    base::ApicMode,
    command::ICR_DEFINED,
    lvt::LvtEntry,
    registers::{
        APR, DFR, DIVIDE, EOI, ESR, ICR_HIGH, ICR_LOW, INITIAL_COUNT, LDR, LVT_ERROR, LVT_TIMER,
        RRD, SELF_IPI, SVR, TPR,
    },
};
use crate::msr::GeneralProtection;

/// IA32_APIC_BASE.
pub(super) const IA32_APIC_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE.
pub(super) const IA32_TSC_DEADLINE: u32 = 0x6E0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8FF;

/// The MSRs of x2APIC mode.
pub const X2APIC_MSRS: RangeInclusive<u32> = X2APIC_FIRST..=X2APIC_LAST;

impl LocalApic {
    /// True if `msr` is one of the local APIC's: IA32_APIC_BASE, IA32_TSC_DEADLINE and 0x800
    /// to 0x8FF.
    #[inline]
    pub const fn owns_msr(msr: u32) -> bool {
        matches!(msr, IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST)
    }

    /// Reads one of the local APIC's MSRs.
    ///
    /// # Errors
    /// [`GeneralProtection`] if it does not exist, is write-only, or belongs to x2APIC mode
    /// and that is off.
    pub fn read_msr(&mut self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            IA32_APIC_BASE => return Ok(self.base.into_bits()),
            IA32_TSC_DEADLINE => return Ok(self.read_tsc_deadline()),
            _ => {}
        }
        let index = self.x2apic_register(msr)?;
        match index {
            ICR_LOW => Ok(self.icr),
            APR | EOI | RRD | DFR | ICR_HIGH | SELF_IPI => Err(GeneralProtection),
            _ => self.read_register(index, true).map(u64::from).ok_or(GeneralProtection),
        }
    }

    /// Writes one of the local APIC's MSRs.
    ///
    /// # Errors
    /// [`GeneralProtection`] if it does not exist, is read-only, belongs to x2APIC mode and
    /// that is off, or if the value sets reserved bits or asks for an illegal change of mode.
    #[inline]
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), GeneralProtection> {
        match msr {
            IA32_TSC_DEADLINE => {
                self.write_tsc_deadline(value);
                return Ok(());
            }
            IA32_APIC_BASE => return self.write_base(value),
            _ => {}
        }
        let index = self.x2apic_register(msr)?;
        if value & !self.writable_bits(index) != 0 {
            return Err(GeneralProtection);
        }
        match index {
            ICR_LOW => self.command(value, true),
            SELF_IPI => self.send_to_self(value as u8),
            // The logical ID follows from the APIC ID, in one format.
            LDR | DFR => return Err(GeneralProtection),
            _ if self.write_register(index, value as u32) => {}
            _ => return Err(GeneralProtection),
        }
        Ok(())
    }

    /// The bits of register `index` that x2APIC mode lets software set.
    #[inline]
    fn writable_bits(&self, index: u32) -> u64 {
        match index {
            ICR_LOW => ICR_DEFINED,
            TPR | SELF_IPI => 0xFF,
            EOI | ESR => 0,
            SVR => u64::from(self.svr_defined()),
            INITIAL_COUNT => 0xFFFF_FFFF,
            DIVIDE => 0xB,
            LVT_TIMER..=LVT_ERROR => {
                LvtEntry::from_register(index).map_or(0, |e| u64::from(e.defined()))
            }
            _ => 0,
        }
    }

    #[inline]
    fn x2apic_register(&self, msr: u32) -> Result<u32, GeneralProtection> {
        if self.base.mode() != ApicMode::X2Apic {
            return Err(GeneralProtection);
        }
        msr.checked_sub(X2APIC_FIRST).ok_or(GeneralProtection)
    }

    fn write_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let old = self.base.mode();
        self.base = self.base.written(value)?;
        self.changed = true;
        match (old, self.base.mode()) {
            (ApicMode::XApic | ApicMode::X2Apic, ApicMode::Disabled) => {
                self.collect();
                self.reset_registers();
            }
            // The destination of an xAPIC command means something else in x2APIC mode.
            (ApicMode::XApic, ApicMode::X2Apic) => self.icr &= 0xFFFF_FFFF,
            _ => {}
        }
        self.publish();
        Ok(())
    }
}
