// SPDX-License-Identifier: MIT OR Apache-2.0
//! IA32_APIC_BASE and the modes it selects (Intel SDM vol. 3, 11.4.4 and figure 11-27).

use bitfield_struct::bitfield;

use crate::{GuestPhysAddr, msr::GeneralProtection};

/// Where the registers of every local APIC lie in xAPIC mode.
///
/// Writes that would move them elsewhere draw #GP: all vCPUs share one guest-physical address
/// space, so a page that moves on one of them would shadow the memory of the others. No known
/// system moves it.
pub const DEFAULT_APIC_BASE: GuestPhysAddr = GuestPhysAddr::new(0xFEE0_0000);

/// IA32_APIC_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(super) struct ApicBase {
    __: u8,
    /// Read-only: this is the bootstrap processor.
    pub bootstrap: bool,
    _reserved: bool,
    pub x2apic: bool,
    pub enabled: bool,
    /// Page number of the registers. The bits above MAXPHYADDR are refused with the rest of
    /// what is not the default address.
    #[bits(52)]
    pub page: u64,
}

impl ApicBase {
    pub(super) const fn reset(bootstrap: bool) -> Self {
        Self::new()
            .with_bootstrap(bootstrap)
            .with_enabled(true)
            .with_page(DEFAULT_APIC_BASE.as_u64() >> 12)
    }

    pub(super) const fn mode(self) -> ApicMode {
        match (self.enabled(), self.x2apic()) {
            (false, _) => ApicMode::Disabled,
            (true, false) => ApicMode::XApic,
            (true, true) => ApicMode::X2Apic,
        }
    }

    /// The register after a write of `value`.
    pub(super) fn written(self, value: u64) -> Result<Self, GeneralProtection> {
        let new = Self::from_bits(value).with_bootstrap(self.bootstrap());
        let reserved = Self::reset(self.bootstrap()).with_x2apic(true).into_bits();
        if new.into_bits() & !reserved != 0 || new.page() != DEFAULT_APIC_BASE.as_u64() >> 12 {
            return Err(GeneralProtection);
        }
        if new.x2apic() && !new.enabled() {
            return Err(GeneralProtection);
        }
        match (self.mode(), new.mode()) {
            (ApicMode::X2Apic, ApicMode::XApic) | (ApicMode::Disabled, ApicMode::X2Apic) => {
                Err(GeneralProtection)
            }
            _ => Ok(new),
        }
    }
}

/// Operating mode of a local APIC (Intel SDM vol. 3, table 11-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicMode {
    /// Switched off in IA32_APIC_BASE.
    Disabled,
    /// The registers lie in memory.
    XApic,
    /// The registers are MSRs.
    X2Apic,
}
