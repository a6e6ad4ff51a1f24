// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory behind bounded accessors.

use alloc::vec::Vec;
use core::{
    fmt,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use host_iface::HostPhysAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::OwnedPages;
use crate::GuestPhysAddr;

/// Why guest memory could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryError {
    /// No region holds all of the range.
    OutOfRange {
        /// Start of the access.
        address: GuestPhysAddr,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A new region overlaps one that exists.
    Overlap(GuestPhysAddr),
    /// A region's address or size is not a multiple of the page size, or its end wraps.
    Misaligned(GuestPhysAddr),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { address, bytes } => {
                write!(f, "{bytes} bytes at guest-physical {address} are not in guest memory")
            }
            Self::Overlap(address) => {
                write!(f, "the memory region at guest-physical {address} overlaps another")
            }
            Self::Misaligned(address) => write!(
                f,
                "the memory region at guest-physical {address} is not made of whole pages"
            ),
        }
    }
}

impl core::error::Error for MemoryError {}

/// What a guest can do with a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionAccess {
    /// Memory.
    ReadWrite,
    /// A ROM: reads and fetches as memory, writes are dropped.
    ReadOnly,
}

/// A contiguous stretch of guest memory, backed by contiguous host memory.
pub struct Region {
    start: GuestPhysAddr,
    pages: OwnedPages,
    access: RegionAccess,
}

impl Region {
    /// First guest-physical address.
    pub fn start(&self) -> GuestPhysAddr {
        self.start
    }

    /// Length in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.pages.bytes() as u64
    }

    /// Where the first byte lies in the host.
    pub fn host_address(&self) -> HostPhysAddr {
        self.pages.address()
    }

    /// What the guest can do with it.
    pub fn access(&self) -> RegionAccess {
        self.access
    }

    #[inline]
    fn offset_of(&self, address: GuestPhysAddr) -> Option<u64> {
        // What lies below the start wraps, to beyond every region's end.
        let offset = address.as_u64().wrapping_sub(self.start.as_u64());
        (offset < self.bytes()).then_some(offset)
    }
}

/// All memory of one guest.
///
/// The guest's vCPUs change this memory at any time, so nothing here ever hands out a
/// reference into it: data is copied in and out, each byte once. Naturally aligned accesses
/// of up to eight bytes are single and atomic, as they are for the guest's own CPUs.
///
/// Writes to a ROM are dropped here as on a bus, whoever does them: they succeed and change
/// nothing.
#[derive(Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
}

macro_rules! scalar_access {
    ($read:ident, $write:ident, $exchange:ident, $int:ty, $atomic:ty) => {
        /// Reads a naturally aligned value at once, or an unaligned one byte by byte.
        ///
        /// # Errors
        /// [`MemoryError::OutOfRange`].
        pub fn $read(&self, address: GuestPhysAddr) -> Result<$int, MemoryError> {
            if address.is_aligned(size_of::<$int>() as u64) {
                let at = self.locate(address, size_of::<$int>())?.pointer.cast::<$atomic>();
                // SAFETY: `locate` returned valid memory for the whole value, it is aligned,
                // and everybody reaches guest memory by atomic or raw accesses only.
                return Ok(unsafe { at.as_ref() }.load(Ordering::Acquire));
            }
            let mut bytes = [0; size_of::<$int>()];
            self.read(address, &mut bytes)?;
            Ok(<$int>::from_le_bytes(bytes))
        }

        /// Writes a naturally aligned value at once, or an unaligned one byte by byte.
        ///
        /// # Errors
        /// [`MemoryError::OutOfRange`]; nothing is written then.
        pub fn $write(&self, address: GuestPhysAddr, value: $int) -> Result<(), MemoryError> {
            if address.is_aligned(size_of::<$int>() as u64) {
                let place = self.locate(address, size_of::<$int>())?;
                if place.access == RegionAccess::ReadWrite {
                    // SAFETY: as for reading.
                    let at = unsafe { place.pointer.cast::<$atomic>().as_ref() };
                    at.store(value, Ordering::Release);
                }
                return Ok(());
            }
            self.write(address, &value.to_le_bytes())
        }

        /// Replaces `current` by `new` at once; the inner result is the value found, as an
        /// error if it was not `current`. A ROM keeps its value all the same.
        ///
        /// # Errors
        /// [`MemoryError::OutOfRange`], also for an unaligned address.
        pub fn $exchange(
            &self,
            address: GuestPhysAddr,
            current: $int,
            new: $int,
        ) -> Result<Result<$int, $int>, MemoryError> {
            let bytes = size_of::<$int>();
            if !address.is_aligned(bytes as u64) {
                return Err(MemoryError::OutOfRange { address, bytes });
            }
            let place = self.locate(address, bytes)?;
            // SAFETY: as for reading.
            let at = unsafe { place.pointer.cast::<$atomic>().as_ref() };
            if place.access == RegionAccess::ReadOnly {
                let found = at.load(Ordering::SeqCst);
                return Ok(if found == current { Ok(found) } else { Err(found) });
            }
            Ok(at.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
        }
    };
}

impl GuestMemory {
    /// No memory at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region that starts at `start`.
    ///
    /// # Errors
    /// [`MemoryError::Overlap`] or [`MemoryError::Misaligned`]; the pages go back then.
    pub fn add(&mut self, start: GuestPhysAddr, pages: OwnedPages) -> Result<(), MemoryError> {
        self.add_region(start, pages, RegionAccess::ReadWrite)
    }

    /// Adds a ROM that starts at `start`, with what `pages` hold.
    ///
    /// # Errors
    /// [`MemoryError::Overlap`] or [`MemoryError::Misaligned`]; the pages go back then.
    pub fn add_rom(&mut self, start: GuestPhysAddr, pages: OwnedPages) -> Result<(), MemoryError> {
        self.add_region(start, pages, RegionAccess::ReadOnly)
    }

    /// Makes a ROM of the region that starts at `start`, with what it holds now. To be called
    /// before the guest's second-level tables are made.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] if no region starts there.
    pub fn make_rom(&mut self, start: GuestPhysAddr) -> Result<(), MemoryError> {
        let region = self.regions.iter_mut().find(|region| region.start == start);
        let region = region.ok_or(MemoryError::OutOfRange { address: start, bytes: 0 })?;
        region.access = RegionAccess::ReadOnly;
        Ok(())
    }

    fn add_region(
        &mut self,
        start: GuestPhysAddr,
        pages: OwnedPages,
        access: RegionAccess,
    ) -> Result<(), MemoryError> {
        let end = start.checked_add(pages.bytes() as u64);
        let Some(end) = end.filter(|_| start.is_aligned(crate::PAGE_SIZE)) else {
            return Err(MemoryError::Misaligned(start));
        };
        let overlaps = |r: &Region| r.start < end && start.as_u64() < r.start.as_u64() + r.bytes();
        if self.regions.iter().any(overlaps) {
            return Err(MemoryError::Overlap(start));
        }
        let position = self.regions.partition_point(|r| r.start < start);
        self.regions.insert(position, Region { start, pages, access });
        Ok(())
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Total size in bytes.
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(Region::bytes).sum()
    }

    /// True if `address` is memory.
    pub fn contains(&self, address: GuestPhysAddr) -> bool {
        self.region_of(address).is_some()
    }

    /// Where the byte at `address` lies in the host.
    pub fn host_address(&self, address: GuestPhysAddr) -> Option<HostPhysAddr> {
        let (region, offset) = self.region_of(address)?;
        region.pages.address().checked_add(offset)
    }

    /// Copies bytes out of guest memory; the range may span adjacent regions.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is copied then.
    pub fn read(&self, address: GuestPhysAddr, to: &mut [u8]) -> Result<(), MemoryError> {
        self.for_each_piece(address, to.len(), |from, range| {
            let (from, to) = (from.pointer.as_ptr(), &mut to[range]);
            // SAFETY: the piece is valid memory for its whole length, outside every Rust
            // object. A vCPU may write it at the same time; the bytes read then are any mix
            // of old and new, which every caller has to expect of a guest.
            unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
        })
    }

    /// Copies bytes into guest memory; the range may span adjacent regions.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is copied then.
    pub fn write(&self, address: GuestPhysAddr, from: &[u8]) -> Result<(), MemoryError> {
        self.for_each_piece(address, from.len(), |to, range| {
            let from = &from[range];
            if to.access == RegionAccess::ReadWrite {
                let to = to.pointer.as_ptr();
                // SAFETY: as for reading; a vCPU that reads at the same time sees any mix.
                unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
            }
        })
    }

    /// Calls `copy` with each contiguous piece of the range and its place in the whole, after
    /// it made sure that all of the range is memory.
    fn for_each_piece(
        &self,
        address: GuestPhysAddr,
        bytes: usize,
        mut copy: impl FnMut(Place, Range<usize>),
    ) -> Result<(), MemoryError> {
        // Nearly always it is all one piece.
        if let Ok(whole) = self.locate(address, bytes) {
            copy(whole, 0..bytes);
            return Ok(());
        }
        let out_of_range = MemoryError::OutOfRange { address, bytes };
        for pass in [Pass::Check, Pass::Copy] {
            let mut done = 0;
            while done < bytes {
                let at = address.checked_add(done as u64).ok_or(out_of_range)?;
                let (region, offset) = self.region_of(at).ok_or(out_of_range)?;
                let left = region.bytes() - offset;
                let count = (bytes - done).min(usize::try_from(left).unwrap_or(usize::MAX));
                if pass == Pass::Copy {
                    copy(self.locate(at, count)?, done..done + count);
                }
                done += count;
            }
        }
        Ok(())
    }

    /// Reads a plain value, copied once.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    pub fn read_plain<T: FromBytes + IntoBytes>(
        &self,
        address: GuestPhysAddr,
    ) -> Result<T, MemoryError> {
        let mut value = T::new_zeroed();
        self.read(address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a plain value.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is written then.
    pub fn write_plain<T: IntoBytes + Immutable>(
        &self,
        address: GuestPhysAddr,
        value: &T,
    ) -> Result<(), MemoryError> {
        self.write(address, value.as_bytes())
    }

    scalar_access!(read_u8, write_u8, compare_exchange_u8, u8, AtomicU8);
    scalar_access!(read_u16, write_u16, compare_exchange_u16, u16, AtomicU16);
    scalar_access!(read_u32, write_u32, compare_exchange_u32, u32, AtomicU32);
    scalar_access!(read_u64, write_u64, compare_exchange_u64, u64, AtomicU64);

    /// Where the naturally aligned quadword at `address` lies in the host, if it is memory and
    /// aligned; valid as long as `self` is, for atomic accesses.
    pub(super) fn quadword(&self, address: GuestPhysAddr) -> Option<NonNull<AtomicU64>> {
        let place = self.locate(address, size_of::<AtomicU64>()).ok()?;
        address.is_aligned(size_of::<AtomicU64>() as u64).then(|| place.pointer.cast())
    }

    #[inline]
    fn region_of(&self, address: GuestPhysAddr) -> Option<(&Region, u64)> {
        // From above: most accesses are to the large regions, which are the higher ones.
        self.regions.iter().rev().find_map(|r| r.offset_of(address).map(|offset| (r, offset)))
    }

    /// The bytes from `address` on, all of one region.
    #[inline]
    fn locate(&self, address: GuestPhysAddr, bytes: usize) -> Result<Place, MemoryError> {
        let out_of_range = MemoryError::OutOfRange { address, bytes };
        let (region, offset) = self.region_of(address).ok_or(out_of_range)?;
        if bytes as u64 > region.bytes() - offset {
            return Err(out_of_range);
        }
        // SAFETY: the offset is inside the region's pages, which are mapped contiguously.
        let pointer = unsafe { region.pages.as_ptr().add(offset as usize) };
        Ok(Place { pointer, access: region.access })
    }
}

/// Where bytes of the guest lie in the host, and what may be done with them.
#[derive(Clone, Copy)]
struct Place {
    pointer: NonNull<u8>,
    access: RegionAccess,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Check,
    Copy,
}

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::*;

    fn memory() -> (&'static MockHost, GuestMemory) {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        for start in [0x8000, 0] {
            let pages = OwnedPages::zeroed(host, PageRequest::contiguous(2)).unwrap();
            memory.add(GuestPhysAddr::new(start), pages).unwrap();
        }
        (host, memory)
    }

    #[test]
    fn reads_back_what_was_written() {
        let (_, memory) = memory();
        let at = GuestPhysAddr::new(0x8FFE);
        memory.write_u32(at, 0x1234_5678).unwrap();
        assert_eq!(memory.read_u32(at), Ok(0x1234_5678));
        assert_eq!(memory.read_u8(at), Ok(0x78));
        assert_eq!(memory.read_u64(GuestPhysAddr::new(0x9000)), Ok(0x1234));
        assert_eq!(memory.read_plain::<[u8; 4]>(at), Ok([0x78, 0x56, 0x34, 0x12]));
    }

    #[test]
    fn a_rom_keeps_what_it_holds() {
        let (_, mut memory) = memory();
        let (rom, neighbour) = (GuestPhysAddr::new(0x8000), GuestPhysAddr::new(0x1FFC));
        memory.write_u64(rom, 0x1122_3344_5566_7788).unwrap();
        memory.make_rom(rom).unwrap();
        memory.write_u8(rom, 0).unwrap();
        memory.write_u64(rom, 0).unwrap();
        memory.write_u32(GuestPhysAddr::new(0x8001), 0).unwrap();
        memory.write(rom, &[0; 0x100]).unwrap();
        let value = 0x1122_3344_5566_7788;
        assert_eq!(memory.compare_exchange_u64(rom, value, 0), Ok(Ok(value)));
        assert_eq!(memory.compare_exchange_u64(rom, 1, 0), Ok(Err(value)));
        assert_eq!(memory.read_u64(rom), Ok(value));
        memory.write_u32(neighbour, 7).unwrap();
        assert_eq!(memory.read_u32(neighbour), Ok(7));
        assert!(memory.make_rom(GuestPhysAddr::new(0x9000)).is_err());
    }

    #[test]
    fn no_access_leaves_its_region() {
        let (_, memory) = memory();
        let mut buffer = [0; 16];
        for start in [0x1FF1, 0x2000, 0x7FFF, 0x9FF1, u64::MAX - 7, u64::MAX] {
            let address = GuestPhysAddr::new(start);
            let error = MemoryError::OutOfRange { address, bytes: 16 };
            assert_eq!(memory.read(address, &mut buffer), Err(error));
            assert_eq!(memory.write(address, &buffer), Err(error));
        }
        assert!(memory.read(GuestPhysAddr::new(0x1FF0), &mut buffer).is_ok());
        assert!(memory.read_u64(GuestPhysAddr::new(0x1FFC)).is_err());
    }

    #[test]
    fn copies_run_on_into_the_next_region() {
        let (host, mut memory) = memory();
        let pages = OwnedPages::zeroed(host, PageRequest::contiguous(1)).unwrap();
        memory.add(GuestPhysAddr::new(0x2000), pages).unwrap();
        let at = GuestPhysAddr::new(0x1FFD);
        memory.write(at, b"across").unwrap();
        let mut back = [0; 6];
        memory.read(at, &mut back).unwrap();
        assert_eq!(&back, b"across");
        assert!(memory.write(GuestPhysAddr::new(0x2FFD), b"across").is_err());
        assert_eq!(memory.read_u8(GuestPhysAddr::new(0x2FFD)), Ok(0), "nothing was written");
    }

    #[test]
    fn exchanges_only_what_was_expected() {
        let (_, memory) = memory();
        let at = GuestPhysAddr::new(0x100);
        assert_eq!(memory.compare_exchange_u64(at, 0, 5), Ok(Ok(0)));
        assert_eq!(memory.compare_exchange_u64(at, 0, 6), Ok(Err(5)));
        assert!(memory.compare_exchange_u64(GuestPhysAddr::new(0x101), 0, 6).is_err());
    }

    #[test]
    fn refuses_overlaps_and_gives_all_pages_back() {
        let (host, mut memory) = memory();
        let pages = OwnedPages::zeroed(host, PageRequest::contiguous(1)).unwrap();
        let start = GuestPhysAddr::new(0x9000);
        assert_eq!(memory.add(start, pages), Err(MemoryError::Overlap(start)));
        assert_eq!(memory.bytes(), 0x4000);
        drop(memory);
        assert_eq!(host.live_runs(), 0);
    }
}
