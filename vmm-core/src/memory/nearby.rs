// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading guest memory where it was read last: page tables and code mostly lie in one region.

use core::cell::Cell;

use super::{GuestMemory, Region};
use crate::GuestPhysAddr;

/// The region that was read last, kept between two uses of [`Nearby`]. Only a guess where to look
/// first: what it names need not hold what is read next.
#[derive(Default)]
pub struct RegionHint(Cell<usize>);

/// Guest memory, of which one region is at hand.
pub struct Nearby<'a> {
    memory: &'a GuestMemory,
    hint: &'a RegionHint,
    region: Cell<&'a Region>,
}

impl<'a> Nearby<'a> {
    /// Begins where `hint` says. `None` if there is no memory at all.
    #[inline]
    pub fn new(memory: &'a GuestMemory, hint: &'a RegionHint) -> Option<Self> {
        let regions = memory.regions();
        let region = regions.get(hint.0.get()).or_else(|| regions.last())?;
        Some(Self { memory, hint, region: Cell::new(region) })
    }

    /// Reads the naturally aligned eight bytes at `address`, at once; `None` if they are not
    /// memory, or not aligned.
    #[inline]
    pub fn read_u64(&self, address: GuestPhysAddr) -> Option<u64> {
        match self.region.get().read_quadword(address) {
            Some(value) => Some(value),
            None => self.read_elsewhere(address),
        }
    }

    #[cold]
    fn read_elsewhere(&self, address: GuestPhysAddr) -> Option<u64> {
        let number = self.memory.number_of(address)?;
        let region = self.memory.regions().get(number)?;
        self.hint.0.set(number);
        self.region.set(region);
        region.read_quadword(address)
    }
}

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::*;
    use crate::memory::OwnedPages;

    #[test]
    fn reads_what_the_memory_reads_wherever_it_looks_first() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        for start in [0x8000, 0, 0xA000] {
            let pages = OwnedPages::zeroed(host, PageRequest::contiguous(1)).unwrap();
            memory.add(GuestPhysAddr::new(start), pages).unwrap();
            memory.write_u64(GuestPhysAddr::new(start), start + 1).unwrap();
        }
        for first in 0..5 {
            let hint = RegionHint(Cell::new(first));
            let nearby = Nearby::new(&memory, &hint).unwrap();
            for at in [0, 0xFF8, 0x1000, 0x8000, 0x8001, 0x8FFC, 0x9000, 0xA000, 0x8000, u64::MAX] {
                let address = GuestPhysAddr::new(at);
                let expected = memory.read_u64(address).ok().filter(|_| at % 8 == 0);
                assert_eq!(nearby.read_u64(address), expected, "{at:#x} after {first}");
            }
            // Kept for the next time.
            assert_eq!(hint.0.get(), 1);
        }
        assert!(Nearby::new(&GuestMemory::new(), &RegionHint::default()).is_none());
    }
}
