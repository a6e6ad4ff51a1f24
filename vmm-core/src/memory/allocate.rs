// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host memory for a guest, in as few and as well aligned runs as the host has.

use host_iface::{Host, HostError, PAGE_SIZE, PageRequest};

use super::{GuestMemory, HIGH_MEMORY, MemoryLayout, OwnedPages};
use crate::GuestPhysAddr;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const LARGE_PAGE: u64 = 2 * MIB;

/// Memory below the frame buffers of a PC.
const CONVENTIONAL: (u64, u64) = (0, 0xA_0000);
/// Option ROMs: shadow memory without content, because guests search them, and what is not
/// memory costs an exit for each look.
const OPTION_ROMS: (u64, u64) = (0xC_0000, SYSTEM_ROM.as_u64());
/// Where a PC has the end of its firmware a second time, 128 KiB below 1 MiB. It is a region of
/// its own: with firmware it becomes a ROM, else it is memory that holds tables for the guest.
pub const SYSTEM_ROM: GuestPhysAddr = GuestPhysAddr::new(0xE_0000);
/// End of [`SYSTEM_ROM`].
pub const SYSTEM_ROM_END: GuestPhysAddr = GuestPhysAddr::new(0x10_0000);
/// Up to where large pages can begin.
const REST: (u64, u64) = (SYSTEM_ROM_END.as_u64(), LARGE_PAGE);

/// Smallest memory of a VM: the pieces below the first large page.
pub const MIN_MEMORY: u64 = LARGE_PAGE;

/// Allocates `layout`, zeroed.
///
/// # Errors
/// What the host answers; everything goes back then.
pub fn allocate(host: &'static dyn Host, layout: MemoryLayout) -> Result<GuestMemory, HostError> {
    let mut memory = GuestMemory::new();
    let system_rom = (SYSTEM_ROM.as_u64(), SYSTEM_ROM_END.as_u64());
    for (start, end) in [CONVENTIONAL, OPTION_ROMS, system_rom, REST] {
        add(host, &mut memory, start, end - start, PAGE_SIZE)?;
    }
    // Up to the first gigabyte nothing is aligned for 1 GiB pages anyway.
    let first_gigabyte = layout.low.min(GIB);
    add_piecewise(host, &mut memory, LARGE_PAGE, first_gigabyte)?;
    add_piecewise(host, &mut memory, GIB, layout.low)?;
    add_piecewise(host, &mut memory, HIGH_MEMORY.as_u64(), HIGH_MEMORY.as_u64() + layout.high)?;
    Ok(memory)
}

/// Allocates from `start` to `end` whole, or else in halves, down to single large pages.
fn add_piecewise(
    host: &'static dyn Host,
    memory: &mut GuestMemory,
    start: u64,
    end: u64,
) -> Result<(), HostError> {
    let bytes = end.saturating_sub(start);
    if bytes == 0 {
        return Ok(());
    }
    let huge = start.is_multiple_of(GIB) && bytes >= GIB;
    let whole = huge
        .then(|| add(host, memory, start, bytes, GIB))
        .filter(Result::is_ok)
        .unwrap_or_else(|| add(host, memory, start, bytes, LARGE_PAGE));
    match whole {
        Err(HostError::OutOfMemory(_)) if bytes > LARGE_PAGE => {
            let half = (bytes / 2).next_multiple_of(LARGE_PAGE);
            add_piecewise(host, memory, start, start + half)?;
            add_piecewise(host, memory, start + half, end)
        }
        result => result,
    }
}

fn add(
    host: &'static dyn Host,
    memory: &mut GuestMemory,
    start: u64,
    bytes: u64,
    alignment: u64,
) -> Result<(), HostError> {
    let request = PageRequest::contiguous(bytes / PAGE_SIZE).aligned_to(alignment);
    let pages = OwnedPages::zeroed(host, request)?;
    // The pieces are whole pages and apart by construction.
    memory.add(GuestPhysAddr::new(start), pages).map_err(|_| HostError::InvalidRequest(request))
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    #[test]
    fn leaves_the_legacy_hole_and_nothing_else() {
        let memory = allocate(MockHost::leak(1), MemoryLayout::of(16 * MIB)).unwrap();
        assert_eq!(memory.bytes(), 16 * MIB - 0x2_0000);
        for (address, is_memory) in [
            (0x9_FFFF, true),
            (0xA_0000, false),
            (0xB_FFFF, false),
            (0xC_0000, true),
            (0x1F_FFFF, true),
            (0x20_0000, true),
            (16 * MIB - 1, true),
            (16 * MIB, false),
        ] {
            assert_eq!(memory.contains(GuestPhysAddr::new(address)), is_memory, "{address:#x}");
        }
    }

    #[test]
    fn takes_pieces_when_the_whole_is_not_to_be_had() {
        let host = MockHost::leak(1);
        host.fail_allocation_in(4);
        let memory = allocate(host, MemoryLayout::of(16 * MIB)).unwrap();
        assert_eq!(memory.bytes(), 16 * MIB - 0x2_0000);
        assert_eq!(memory.regions().len(), 6);
        drop(memory);
        assert_eq!(host.live_runs(), 0);
    }
}
