// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables that map the first 4 GiB to themselves, for kernels entered in 64-bit mode.

use super::{BootError, placement::LOW_DATA_END, placement::Placement};
use crate::{GuestPhysAddr, PAGE_SIZE, memory::GuestMemory};

const ENTRIES: u64 = 512;
const GIBIBYTES: u64 = 4;
const LARGE_PAGE: u64 = 2 << 20;
/// One PML4, one page-directory-pointer table, one page directory for each GiB.
const TABLES: u64 = 2 + GIBIBYTES;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

/// Writes the tables; returns the address of the PML4.
pub(super) fn identity(memory: &GuestMemory, placement: &mut Placement) -> Result<u64, BootError> {
    let bytes = TABLES * PAGE_SIZE;
    let pml4 = placement
        .take_lowest(bytes, PAGE_SIZE, 0..LOW_DATA_END)
        .ok_or(BootError::NoRoomForBootData { bytes })?;
    let pointers = pml4 + PAGE_SIZE;
    let directories = pointers + PAGE_SIZE;
    let to_pointers = [pointers | PRESENT | WRITABLE];
    let to_directories =
        (0..GIBIBYTES).map(|gib| (directories + gib * PAGE_SIZE) | PRESENT | WRITABLE);
    let pages =
        (0..GIBIBYTES * ENTRIES).map(|page| (page * LARGE_PAGE) | PRESENT | WRITABLE | LARGE);
    write_table(memory, pml4, to_pointers.into_iter())?;
    write_table(memory, pointers, to_directories)?;
    write_table(memory, directories, pages)?;
    Ok(pml4)
}

/// Writes entries, and zeroes up to the end of the last page.
fn write_table(
    memory: &GuestMemory,
    at: u64,
    entries: impl Iterator<Item = u64>,
) -> Result<(), BootError> {
    let mut next = at;
    for entry in entries {
        memory.write_u64(GuestPhysAddr::new(next), entry)?;
        next += 8;
    }
    while !next.is_multiple_of(PAGE_SIZE) {
        memory.write_u64(GuestPhysAddr::new(next), 0)?;
        next += 8;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::test_memory::{TestGuest, garbage};

    /// Walks the tables as the CPU does.
    fn translate(memory: &GuestMemory, root: u64, address: u64) -> Option<u64> {
        let mut table = root;
        for shift in [39, 30, 21] {
            let index = address >> shift & 511;
            let entry = memory.read_u64(GuestPhysAddr::new(table + index * 8)).unwrap();
            if entry & PRESENT == 0 {
                return None;
            }
            if entry & LARGE != 0 {
                return Some((entry & !0x1F_FFFF) + (address & 0x1F_FFFF));
            }
            table = entry & !0xFFF;
        }
        None
    }

    #[test]
    fn maps_four_gib_to_themselves_and_nothing_else() {
        let guest = TestGuest::with_mib(2);
        garbage(&guest.memory, 0..0x2_0000);
        let mut placement = Placement::new(&guest.map);
        let root = identity(&guest.memory, &mut placement).unwrap();
        for address in [0, 0x7C00, 0x100_0200, 0xBFFF_FFFF, 0xFFFF_FFF0] {
            assert_eq!(translate(&guest.memory, root, address), Some(address));
        }
        for address in [1 << 32, 1 << 39, 0xFFFF_8000_0000_0000, u64::MAX] {
            assert_eq!(translate(&guest.memory, root, address), None);
        }
    }

    #[test]
    fn needs_low_memory() {
        let guest = TestGuest::with_mib(1);
        let mut placement = Placement::new(&[]);
        let error = BootError::NoRoomForBootData { bytes: 6 * PAGE_SIZE };
        assert_eq!(identity(&guest.memory, &mut placement), Err(error));
    }
}
