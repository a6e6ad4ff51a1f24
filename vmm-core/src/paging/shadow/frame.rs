// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frames that the guest owns, and what the shadow tables do with each.

use alloc::vec::Vec;

use hashbrown::HashMap;
use host_iface::{HostError, HostPhysAddr, PageRequest};

use super::{
    chain::EntryId,
    role::{Gfn, LARGE_FRAMES},
};
use crate::{
    PAGE_SIZE,
    memory::{GuestMemory, RegionAccess},
};

/// A frame of guest memory: the only thing that a shadow entry can be made to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame(u32);

struct Extent {
    first: Gfn,
    frames: u64,
    host: HostPhysAddr,
    access: RegionAccess,
    /// Number of its first frame.
    base: u64,
}

/// All frames of one guest.
pub struct FrameMap {
    extents: Vec<Extent>,
    /// By frame: the chain of shadow entries that map it. Entries that map 2 MiB are in the chain
    /// of their first frame.
    heads: Vec<Option<EntryId>>,
    /// How many shadow tables shadow a frame of these 2 MiB, by the number of the first frame.
    tables: HashMap<Gfn, u32>,
}

impl FrameMap {
    /// The frames of `memory`. At most `most_tables` of them are ever shadowed at once.
    ///
    /// # Errors
    /// When the host has no memory for the heads of the chains: 4 bytes a frame.
    pub fn new(memory: &GuestMemory, most_tables: usize) -> Result<Self, HostError> {
        let mut extents = Vec::new();
        let mut base = 0;
        for region in memory.regions() {
            let frames = region.bytes() / PAGE_SIZE;
            let (first, host) = (Gfn::of(region.start()), region.host_address());
            extents.push(Extent { first, frames, host, access: region.access(), base });
            base += frames;
        }
        let mut heads = Vec::new();
        let bytes = base.saturating_mul(size_of::<Option<EntryId>>() as u64);
        let no_memory = HostError::OutOfMemory(PageRequest::contiguous(bytes.div_ceil(PAGE_SIZE)));
        let count = u32::try_from(base).map_err(|_| no_memory)? as usize;
        heads.try_reserve_exact(count).map_err(|_| no_memory)?;
        heads.resize(count, None);
        Ok(Self { extents, heads, tables: HashMap::with_capacity(most_tables) })
    }

    fn extent(&self, gfn: Gfn) -> Option<(&Extent, u64)> {
        self.extents.iter().find_map(|extent| {
            let offset = gfn.0.checked_sub(extent.first.0)?;
            (offset < extent.frames).then_some((extent, offset))
        })
    }

    /// The frame with number `gfn` and where it lies in the host, if the guest owns it.
    pub fn find(&self, gfn: Gfn) -> Option<(Frame, HostPhysAddr)> {
        let (extent, offset) = self.extent(gfn)?;
        let frame = u32::try_from(extent.base + offset).ok()?;
        Some((Frame(frame), extent.host.checked_add(offset * PAGE_SIZE)?))
    }

    /// True if `gfn` lies in a ROM, of which no entry may map anything writable.
    pub fn is_rom(&self, gfn: Gfn) -> bool {
        self.extent(gfn).is_some_and(|(extent, _)| extent.access == RegionAccess::ReadOnly)
    }

    /// The first frame of the 2 MiB that `gfn` lies in, if they can be mapped by one entry: the
    /// guest owns them all, in one piece that is aligned in the host, too, and none of them is
    /// shadowed.
    pub fn find_large(&self, gfn: Gfn) -> Option<(Frame, HostPhysAddr)> {
        let base = gfn.large_base();
        let (extent, offset) = self.extent(base)?;
        let whole = extent.frames - offset >= LARGE_FRAMES && !self.tables.contains_key(&base);
        let (frame, host) = self.find(base)?;
        (whole && host.is_aligned(LARGE_FRAMES * PAGE_SIZE)).then_some((frame, host))
    }

    /// The chain of entries that map `frame`.
    pub fn head(&self, frame: Frame) -> Option<EntryId> {
        self.heads.get(frame.0 as usize).copied().flatten()
    }

    /// Replaces the head of that chain.
    pub fn set_head(&mut self, frame: Frame, head: Option<EntryId>) {
        if let Some(slot) = self.heads.get_mut(frame.0 as usize) {
            *slot = head;
        }
    }

    /// Notes that a shadow table for `gfn` was made.
    pub fn table_made(&mut self, gfn: Gfn) {
        *self.tables.entry(gfn.large_base()).or_insert(0) += 1;
    }

    /// Notes that a shadow table for `gfn` is gone.
    pub fn table_gone(&mut self, gfn: Gfn) {
        let base = gfn.large_base();
        if let Some(count) = self.tables.get_mut(&base) {
            *count -= 1;
            if *count == 0 {
                self.tables.remove(&base);
            }
        }
    }

    /// True if no entry maps any frame, and no frame is shadowed.
    #[cfg(any(test, feature = "test-support"))]
    pub fn is_idle(&self) -> bool {
        self.tables.is_empty() && self.heads.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::{GuestPhysAddr, memory::OwnedPages};

    fn frames() -> FrameMap {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        for (start, bytes) in [(0, 0xA_0000), (0x20_0000, 0x60_0000)] {
            let request = PageRequest::contiguous(bytes / PAGE_SIZE).aligned_to(0x20_0000);
            let pages = OwnedPages::allocate(host, request).unwrap();
            memory.add(GuestPhysAddr::new(start), pages).unwrap();
        }
        FrameMap::new(&memory, 16).unwrap()
    }

    #[test]
    fn only_what_the_guest_owns_is_a_frame() {
        let frames = frames();
        assert_eq!(frames.find(Gfn(0x9F)).unwrap().0, Frame(0x9F));
        assert_eq!(frames.find(Gfn(0x200)).unwrap().0, Frame(0xA0));
        for gfn in [0xA0, 0x1FF, 0x800, u64::MAX] {
            assert!(frames.find(Gfn(gfn)).is_none());
        }
    }

    #[test]
    fn large_pages_need_two_mebibytes_without_tables() {
        let mut frames = frames();
        assert!(frames.find_large(Gfn(0x10)).is_none(), "not whole");
        let (frame, host) = frames.find_large(Gfn(0x4FF)).unwrap();
        assert_eq!((frame, host), frames.find(Gfn(0x400)).unwrap());
        frames.table_made(Gfn(0x4FF));
        frames.table_made(Gfn(0x400));
        frames.table_gone(Gfn(0x4FF));
        assert!(frames.find_large(Gfn(0x401)).is_none());
        assert!(frames.find_large(Gfn(0x600)).is_some());
        frames.table_gone(Gfn(0x400));
        assert!(frames.find_large(Gfn(0x401)).is_some() && frames.is_idle());
    }
}
