// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which accesses guest memory allows: every one near an edge, against a look at each byte.

use std::ops::Range;

use host_iface::PageRequest;
use host_mock::MockHost;

use super::{GuestMemory, OwnedPages};
use crate::{GuestPhysAddr, PAGE_SIZE};

/// Regions: two that touch, one beyond a hole, and the last page but one of all.
const REGIONS: [Range<u64>; 4] =
    [0x1000..0x3000, 0x3000..0x4000, 0x6000..0x7000, 0xFFFF_FFFF_FFFF_E000..0xFFFF_FFFF_FFFF_F000];
/// Lengths of accesses, and with them those that end beyond the address space.
const LENGTHS: [usize; 8] = [1, 2, 7, 8, 0x1000, 0x1001, 0x3000, 0x3001];

fn memory() -> GuestMemory {
    let mut memory = GuestMemory::new();
    for region in REGIONS {
        let pages = PageRequest::contiguous((region.end - region.start) / PAGE_SIZE);
        let pages = OwnedPages::zeroed(MockHost::leak(1), pages).unwrap();
        memory.add(GuestPhysAddr::new(region.start), pages).unwrap();
    }
    memory
}

/// True if each byte is memory.
fn is_memory(start: u64, bytes: usize) -> bool {
    (0..bytes as u64).all(|offset| {
        let at = start.checked_add(offset);
        at.is_some_and(|at| REGIONS.iter().any(|region| region.contains(&at)))
    })
}

#[test]
fn accesses_are_allowed_exactly_where_all_bytes_are_memory() {
    let memory = memory();
    let edges = REGIONS.iter().flat_map(|region| [region.start, region.end]).chain([0, u64::MAX]);
    let addresses: Vec<u64> = edges
        .flat_map(|edge| (0..=16).map(move |near| edge.wrapping_add(near).wrapping_sub(8)))
        .collect();
    let mut allowed = 0;
    for &address in &addresses {
        for bytes in LENGTHS {
            let mut buffer = vec![0; bytes];
            let at = GuestPhysAddr::new(address);
            let wanted = is_memory(address, bytes);
            assert_eq!(memory.read(at, &mut buffer).is_ok(), wanted, "{bytes} bytes at {at}");
            assert_eq!(memory.write(at, &buffer).is_ok(), wanted, "{bytes} bytes at {at}");
            allowed += u32::from(wanted);
        }
    }
    assert!(allowed > 100, "only {allowed} accesses are allowed");
}
