// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the boot memory map to the ranges that are handed out and that are mapped.

use alloc::vec::Vec;

use crate::{
    address::{PAGE_SIZE, PhysAddr},
    boot::{MemoryKind, MemoryRegion},
    memory::frames::FrameRun,
};

/// A range of physical addresses, end exclusive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PhysRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

const LARGE_PAGE: u64 = 2 << 20;
const FOUR_GIB: u64 = 4 << 30;
/// Physical addresses have at most 46 bits here, so that the direct map fits its window.
const MAX_PHYSICAL: u64 = 1 << 46;

/// The whole frames of usable memory outside `reserved`, sorted, merged. Where entries of
/// the map overlap, memory that any of them declares unusable is left out.
pub fn usable_runs(map: &[MemoryRegion], reserved: &[PhysRange]) -> Vec<FrameRun> {
    let usable = map.iter().filter(|r| r.kind == MemoryKind::Usable && r.start < MAX_PHYSICAL);
    let usable = usable.map(|r| PhysRange {
        start: r.start.next_multiple_of(PAGE_SIZE),
        end: r.end().min(MAX_PHYSICAL) & !(PAGE_SIZE - 1),
    });
    let unusable = map
        .iter()
        .filter(|r| r.kind != MemoryKind::Usable)
        .map(|r| PhysRange { start: r.start, end: r.end() });
    let mut holes: Vec<PhysRange> = unusable.chain(reserved.iter().copied()).collect();
    holes.retain(|hole| hole.start < hole.end);
    for hole in &mut holes {
        hole.start &= !(PAGE_SIZE - 1);
        hole.end = hole.end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    }
    merge(subtract(usable.collect(), &holes))
        .into_iter()
        .map(|r| FrameRun { start: PhysAddr(r.start), frames: (r.end - r.start) / PAGE_SIZE })
        .collect()
}

/// What the direct map covers: all memory, and below 4 GiB whatever else the map lists, so
/// that firmware tables can be read; in whole large pages, without `image`.
pub fn direct_map_ranges(map: &[MemoryRegion], image: PhysRange) -> Vec<PhysRange> {
    let limit = |kind| match kind {
        MemoryKind::Usable | MemoryKind::AcpiTables | MemoryKind::AcpiNonVolatile => MAX_PHYSICAL,
        MemoryKind::Reserved => FOUR_GIB,
        MemoryKind::Defective => 0,
    };
    let mut ranges: Vec<PhysRange> = map
        .iter()
        .map(|r| PhysRange { start: r.start, end: r.end().min(limit(r.kind)) })
        .filter(|r| r.start < r.end)
        .map(|r| PhysRange {
            start: r.start & !(LARGE_PAGE - 1),
            end: r.end.next_multiple_of(LARGE_PAGE),
        })
        .collect();
    ranges.push(PhysRange { start: 0, end: LARGE_PAGE });
    subtract(merge(ranges), &[image])
}

/// The parts of `ranges` that no hole covers.
fn subtract(mut ranges: Vec<PhysRange>, holes: &[PhysRange]) -> Vec<PhysRange> {
    for hole in holes {
        ranges = ranges
            .into_iter()
            .flat_map(|r| {
                [
                    PhysRange { start: r.start, end: r.end.min(hole.start) },
                    PhysRange { start: r.start.max(hole.end), end: r.end },
                ]
            })
            .collect();
        ranges.retain(|r| r.start < r.end);
        ranges.sort_unstable();
        ranges.dedup();
    }
    ranges
}

/// Sorts, and joins ranges that touch or overlap.
fn merge(mut ranges: Vec<PhysRange>) -> Vec<PhysRange> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_unstable();
    let mut merged: Vec<PhysRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64, kind: MemoryKind) -> MemoryRegion {
        MemoryRegion { start, length: end - start, kind }
    }

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange { start, end }
    }

    #[test]
    fn reserved_and_overlapping_memory_is_left_out() {
        let map = [
            region(0x10_0000, 0x80_0000, MemoryKind::Usable),
            region(0x7F_F800, 0x90_0000, MemoryKind::Reserved),
            region(0, 0x9_F400, MemoryKind::Usable),
        ];
        let reserved = [range(0, 0x10_0000), range(0x20_0001, 0x30_0001), range(5, 5)];
        let runs = usable_runs(&map, &reserved);
        let runs: Vec<_> = runs.iter().map(|r| (r.start.0, r.frames)).collect();
        assert_eq!(runs, [(0x10_0000, 0x100), (0x30_1000, 0x4FE)]);
    }

    #[test]
    fn hole_in_front_leaves_the_range_whole() {
        let ranges = subtract(alloc::vec![range(10, 20)], &[range(0, 5), range(30, 40)]);
        assert_eq!(ranges, [range(10, 20)]);
    }

    #[test]
    fn direct_map_covers_tables_but_not_the_image_or_high_device_space() {
        let map = [
            region(0x10_0000, 0x7FE0_0000, MemoryKind::Usable),
            region(0x7FE0_0000, 0x7FE0_1000, MemoryKind::Reserved),
            region(0xFD_0000_0000, 0x100_0000_0000, MemoryKind::Reserved),
            region(0x1_0000_0000, 0x1_0000_1000, MemoryKind::Usable),
        ];
        let ranges = direct_map_ranges(&map, range(0x20_0000, 0x23_4000));
        let expected = [
            range(0, 0x20_0000),
            range(0x23_4000, 0x8000_0000),
            range(0x1_0000_0000, 0x1_0020_0000),
        ];
        assert_eq!(ranges, expected);
    }
}
