// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory map that a PC's firmware gives to its operating system.

use alloc::vec::Vec;

use vmm_core::{
    GuestPhysAddr,
    boot::{MemoryKind, MemoryRange},
    memory::{HIGH_MEMORY, MemoryLayout},
};

use crate::pci::{ECAM_BASE, ECAM_BYTES};

/// End of conventional memory; the kilobyte above is the extended BIOS data area's.
const CONVENTIONAL_END: u64 = 0x9_FC00;

/// End of video memory, option ROMs and BIOS, where the ACPI tables lie, too.
const FIRMWARE_END: u64 = 0x10_0000;

/// The memory map of a guest with this memory, in ascending order.
pub fn memory_map(layout: MemoryLayout) -> Vec<MemoryRange> {
    let range = |start: u64, end: u64, kind| MemoryRange {
        start: GuestPhysAddr::new(start),
        bytes: end.saturating_sub(start),
        kind,
    };
    let ecam = ECAM_BASE.as_u64();
    let high = HIGH_MEMORY.as_u64();
    let mut map = Vec::from([
        range(0, CONVENTIONAL_END.min(layout.low), MemoryKind::Usable),
        range(CONVENTIONAL_END, FIRMWARE_END, MemoryKind::Reserved),
        range(FIRMWARE_END, layout.low, MemoryKind::Usable),
        range(ecam, ecam + ECAM_BYTES, MemoryKind::Reserved),
        range(high, high.saturating_add(layout.high), MemoryKind::Usable),
    ]);
    map.retain(|range| range.bytes > 0);
    map
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::{TABLES_BASE, TABLES_END};

    proptest! {
        #[test]
        fn usable_memory_exists_and_no_ranges_overlap(bytes in 0u64..1 << 46) {
            let layout = MemoryLayout::of(bytes);
            let mut end = 0;
            for range in memory_map(layout) {
                let start = range.start.as_u64();
                prop_assert!(start >= end && range.bytes > 0);
                end = start + range.bytes;
                if range.kind == MemoryKind::Usable {
                    let low = end <= layout.low;
                    let high = start >= 1 << 32 && end <= (1 << 32) + layout.high;
                    prop_assert!(low || high);
                    let tables = TABLES_BASE.as_u64()..TABLES_END.as_u64();
                    prop_assert!(end <= tables.start || start >= tables.end);
                }
            }
        }
    }

    #[test]
    fn all_but_384_kib_and_a_bit_is_usable() {
        for bytes in [2u64 << 20, 512 << 20, 3 << 30, (3 << 30) + 4096, 8 << 30] {
            let map = memory_map(MemoryLayout::of(bytes));
            let usable = map.iter().filter(|range| range.kind == MemoryKind::Usable);
            let total: u64 = usable.map(|range| range.bytes).sum();
            assert_eq!(total, bytes - 0x6_0400);
        }
    }
}
