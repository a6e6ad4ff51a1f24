// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding room for images and boot data, so that none of them overlap.

use alloc::vec::Vec;
use core::ops::Range;

use super::{MemoryKind, MemoryRange};
use crate::PAGE_SIZE;

/// End of what 32-bit addresses reach.
pub(super) const FOUR_GIB: u64 = 1 << 32;

/// End of conventional memory, where boot data goes.
pub(super) const LOW_DATA_END: u64 = 0xA_0000;

/// The usable memory that is not yet taken.
pub(super) struct Placement {
    /// In ascending order, without overlap.
    free: Vec<Range<u64>>,
}

impl Placement {
    /// All usable memory of a map but the first page, which holds the BIOS data area.
    pub(super) fn new(map: &[MemoryRange]) -> Self {
        let mut free: Vec<_> = map
            .iter()
            .filter(|range| range.kind == MemoryKind::Usable)
            .map(|range| range.start.as_u64()..range.start.as_u64().saturating_add(range.bytes))
            .filter(|range| !range.is_empty())
            .collect();
        free.sort_by_key(|range| range.start);
        for range in map.iter().filter(|range| range.kind != MemoryKind::Usable) {
            let start = range.start.as_u64();
            free = without(free, &(start..start.saturating_add(range.bytes)));
        }
        Self { free: without(free, &(0..PAGE_SIZE)) }
    }

    /// End of usable memory below `limit`.
    pub(super) fn end_below(&self, limit: u64) -> u64 {
        let below = self.free.iter().filter(|range| range.start < limit);
        below.map(|range| range.end.min(limit)).max().unwrap_or(0)
    }

    /// The longest free stretch that starts and ends below `limit`.
    pub(super) fn longest_below(&self, limit: u64) -> u64 {
        let below = self.free.iter().filter(|range| range.start < limit);
        below.map(|range| range.end.min(limit) - range.start).max().unwrap_or(0)
    }

    /// Takes exactly these bytes; false if they are not free.
    pub(super) fn take(&mut self, start: u64, bytes: u64) -> bool {
        let Some(end) = start.checked_add(bytes) else {
            return false;
        };
        let fits = self.free.iter().any(|range| range.start <= start && end <= range.end);
        if fits {
            self.free = without(core::mem::take(&mut self.free), &(start..end));
        }
        fits
    }

    /// Takes the lowest `bytes` at a multiple of `alignment` within `bounds`.
    pub(super) fn take_lowest(
        &mut self,
        bytes: u64,
        alignment: u64,
        bounds: Range<u64>,
    ) -> Option<u64> {
        let start = self.free.iter().find_map(|range| {
            let start = range.start.max(bounds.start).checked_next_multiple_of(alignment)?;
            let end = start.checked_add(bytes)?;
            (end <= range.end.min(bounds.end)).then_some(start)
        })?;
        self.take(start, bytes).then_some(start)
    }

    /// Takes the highest `bytes` at a page boundary below `limit`.
    pub(super) fn take_highest(&mut self, bytes: u64, limit: u64) -> Option<u64> {
        self.take_highest_in(bytes, PAGE_SIZE, 0..limit)
    }

    /// Takes the highest `bytes` at a multiple of `alignment`, a power of two, within `bounds`.
    pub(super) fn take_highest_in(
        &mut self,
        bytes: u64,
        alignment: u64,
        bounds: Range<u64>,
    ) -> Option<u64> {
        let start = self.free.iter().rev().find_map(|range| {
            let start = range.end.min(bounds.end).checked_sub(bytes)? & !(alignment - 1);
            (start >= range.start.max(bounds.start)).then_some(start)
        })?;
        self.take(start, bytes).then_some(start)
    }
}

/// The ranges without what lies in `taken`.
fn without(ranges: Vec<Range<u64>>, taken: &Range<u64>) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        let below = range.start..range.end.min(taken.start);
        let above = range.start.max(taken.end)..range.end;
        if taken.is_empty() {
            left.push(range);
        } else {
            left.extend([below, above].into_iter().filter(|part| !part.is_empty()));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::GuestPhysAddr;

    fn range(start: u64, end: u64, kind: MemoryKind) -> MemoryRange {
        MemoryRange { start: GuestPhysAddr::new(start), bytes: end - start, kind }
    }

    #[test]
    fn reserved_memory_wins_over_usable() {
        let placement = Placement::new(&[
            range(0, 0x10000, MemoryKind::Usable),
            range(0x4000, 0x6000, MemoryKind::Reserved),
        ]);
        assert_eq!(placement.free, [0x1000..0x4000, 0x6000..0x10000]);
        assert_eq!(placement.end_below(0x8000), 0x8000);
        assert_eq!(placement.longest_below(0x8000), 0x3000);
    }

    #[test]
    fn takes_from_both_ends() {
        let mut placement = Placement::new(&[range(0, 0x10000, MemoryKind::Usable)]);
        assert_eq!(placement.take_lowest(0x800, 0x1000, 0..0x10000), Some(0x1000));
        assert_eq!(placement.take_lowest(0x800, 0x1000, 0..0x10000), Some(0x2000));
        assert_eq!(placement.take_highest(0x1001, 0xFFFF), Some(0xE000));
        assert!(!placement.take(0xE800, 0x100));
        assert!(placement.take(0x1800, 0x800));
        assert_eq!(placement.take_lowest(0x100, 0x100, 0x20000..u64::MAX), None);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_usable_and_taken_once(
            wishes in prop::collection::vec((1u64..0x3000, 0u32..14, any::<bool>()), 1..40)
        ) {
            let map = [
                range(0, 0x9000, MemoryKind::Usable),
                range(0x9000, 0x10000, MemoryKind::Reserved),
                range(0x10000, 0x20000, MemoryKind::Usable),
            ];
            let mut placement = Placement::new(&map);
            let mut taken: Vec<Range<u64>> = Vec::new();
            for (bytes, log_alignment, low) in wishes {
                let start = if low {
                    placement.take_lowest(bytes, 1 << log_alignment, 0..0x20000)
                } else {
                    placement.take_highest(bytes, 0x1F800)
                };
                let Some(start) = start else { continue };
                let end = start + bytes;
                prop_assert!(start >= 0x1000 && (end <= 0x9000 || start >= 0x10000));
                prop_assert!(end <= 0x20000);
                prop_assert!(taken.iter().all(|t| end <= t.start || t.end <= start));
                taken.push(start..end);
            }
        }
    }
}
