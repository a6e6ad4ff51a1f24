// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading guest memory where it was read last: page tables and code mostly lie in one region.

use core::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{GuestMemory, Region};
use crate::{GuestPhysAddr, paging::walk::Quadwords};

/// The region that was read last, kept between two uses of [`Nearby`]. Only a guess where to look
/// first: what it names need not hold what is read next.
#[derive(Default)]
pub struct RegionHint(Cell<usize>);

/// Guest memory, of which one region is at hand.
pub struct Nearby<'a> {
    memory: &'a GuestMemory,
    hint: &'a RegionHint,
    at_hand: Piece<'a>,
}

/// What is needed of a region to read from it, copied so that it stays in registers.
#[derive(Clone, Copy)]
struct Piece<'a> {
    start: u64,
    bytes: u64,
    first: NonNull<u8>,
    region: PhantomData<&'a Region>,
}

impl<'a> Piece<'a> {
    #[inline]
    fn of(region: &'a Region) -> Self {
        Self {
            start: region.start().as_u64(),
            bytes: region.bytes(),
            first: region.as_ptr(),
            region: PhantomData,
        }
    }

    #[inline]
    fn read(self, address: GuestPhysAddr) -> Option<u64> {
        // What lies below the start wraps, to beyond every region's end.
        let offset = address.as_u64().wrapping_sub(self.start);
        if offset >= self.bytes || !address.is_aligned(size_of::<u64>() as u64) {
            return None;
        }
        // SAFETY: the region is made of whole pages, so that what begins in it aligned also ends
        // in it; they are mapped contiguously, and live as long as the region.
        let at = unsafe { self.first.add(offset as usize) }.cast::<AtomicU64>();
        // SAFETY: valid and aligned by the above, and everybody reaches guest memory by atomic
        // or raw accesses only.
        Some(unsafe { at.as_ref() }.load(Ordering::Acquire))
    }
}

impl<'a> Nearby<'a> {
    /// Begins where `hint` says. `None` if there is no memory at all.
    #[inline]
    pub fn new(memory: &'a GuestMemory, hint: &'a RegionHint) -> Option<Self> {
        let regions = memory.regions();
        let region = regions.get(hint.0.get()).or_else(|| regions.last())?;
        Some(Self { memory, hint, at_hand: Piece::of(region) })
    }

    /// Reads the naturally aligned eight bytes at `address`, at once; `None` if they are not
    /// memory, or not aligned.
    #[inline(always)]
    pub fn read_u64(&mut self, address: GuestPhysAddr) -> Option<u64> {
        if let Some(value) = self.at_hand.read(address) {
            return Some(value);
        }
        self.at_hand = find(self.memory, self.hint, address)?;
        self.at_hand.read(address)
    }
}

impl Quadwords for Nearby<'_> {
    #[inline(always)]
    fn quadword(&mut self, address: GuestPhysAddr) -> Option<u64> {
        self.read_u64(address)
    }
}

/// Looks for the region elsewhere, and notes which it is.
#[cold]
fn find<'a>(
    memory: &'a GuestMemory,
    hint: &RegionHint,
    address: GuestPhysAddr,
) -> Option<Piece<'a>> {
    let number = memory.number_of(address)?;
    hint.0.set(number);
    memory.regions().get(number).map(Piece::of)
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
            let mut nearby = Nearby::new(&memory, &hint).unwrap();
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
