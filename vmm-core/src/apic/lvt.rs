// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local vector table (Intel SDM vol. 3, 11.5.1).

use serde::{Deserialize, Serialize};

/// Mask bit of an entry.
pub(super) const MASKED: u32 = 1 << 16;
/// Delivery status; read-only.
const DELIVERY_STATUS: u32 = 1 << 12;
/// Remote IRR; read-only.
const REMOTE_IRR: u32 = 1 << 14;

const VECTOR: u32 = 0xFF;
const DELIVERY_MODE: u32 = 7 << 8;
const PIN_POLARITY: u32 = 1 << 13;
const LEVEL_TRIGGERED: u32 = 1 << 15;
const TIMER_MODE: u32 = 3 << 17;

/// The number of entries, less one, as the version register gives it.
pub(super) const MAX_ENTRY: u32 = 5;

/// An entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LvtEntry {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl LvtEntry {
    /// The entry whose register lies at `index` × 16.
    pub(super) const fn from_register(index: u32) -> Option<Self> {
        match index {
            0x32 => Some(Self::Timer),
            0x33 => Some(Self::Thermal),
            0x34 => Some(Self::Performance),
            0x35 => Some(Self::Lint0),
            0x36 => Some(Self::Lint1),
            0x37 => Some(Self::Error),
            _ => None,
        }
    }

    /// The bits that software can set.
    const fn writable(self) -> u32 {
        match self {
            Self::Timer => VECTOR | MASKED | TIMER_MODE,
            Self::Thermal | Self::Performance => VECTOR | DELIVERY_MODE | MASKED,
            Self::Lint0 | Self::Lint1 => {
                VECTOR | DELIVERY_MODE | PIN_POLARITY | LEVEL_TRIGGERED | MASKED
            }
            Self::Error => VECTOR | MASKED,
        }
    }

    /// The bits that x2APIC mode lets software write without a fault: the writable ones and
    /// those that are read-only.
    pub(super) const fn defined(self) -> u32 {
        match self {
            Self::Lint0 | Self::Lint1 => self.writable() | DELIVERY_STATUS | REMOTE_IRR,
            _ => self.writable() | DELIVERY_STATUS,
        }
    }
}

/// All entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalVectorTable {
    entries: [u32; MAX_ENTRY as usize + 1],
}

impl LocalVectorTable {
    /// All entries masked, as reset leaves them.
    pub(super) const RESET: Self = Self { entries: [MASKED; MAX_ENTRY as usize + 1] };

    #[inline]
    pub(super) fn get(&self, entry: LvtEntry) -> u32 {
        self.entries[entry as usize]
    }

    /// Stores the writable bits. While the local APIC is disabled the mask bit stays set.
    pub(super) fn set(&mut self, entry: LvtEntry, value: u32, software_enabled: bool) {
        let forced = if software_enabled { 0 } else { MASKED };
        self.entries[entry as usize] = value & entry.writable() | forced;
    }

    pub(super) fn mask_all(&mut self) {
        for entry in &mut self.entries {
            *entry |= MASKED;
        }
    }
}
