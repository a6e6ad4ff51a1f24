// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a PC's memory lies in guest-physical address space.

use crate::GuestPhysAddr;

/// End of memory below 4 GiB; from here to 4 GiB lie PCI, the APICs and firmware.
pub const LOW_MEMORY_END: GuestPhysAddr = GuestPhysAddr::new(0xC000_0000);

/// Where memory goes on above the hole.
pub const HIGH_MEMORY: GuestPhysAddr = GuestPhysAddr::new(0x1_0000_0000);

/// How a PC splits its memory around the hole below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLayout {
    /// Bytes from address zero; at most [`LOW_MEMORY_END`].
    pub low: u64,
    /// Bytes from [`HIGH_MEMORY`]; zero if all fits below.
    pub high: u64,
}

impl MemoryLayout {
    /// The layout of `bytes` of memory.
    pub const fn of(bytes: u64) -> Self {
        let limit = LOW_MEMORY_END.as_u64();
        if bytes <= limit {
            Self { low: bytes, high: 0 }
        } else {
            Self { low: limit, high: bytes - limit }
        }
    }
}
