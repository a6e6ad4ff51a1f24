// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shadow MMU of one VM: its parts, and the tables it finds and makes.

use alloc::{sync::Arc, vec::Vec};

use hashbrown::HashMap;
use host_iface::{Host, HostError};

use super::{
    arena::{Arena, PageHandle, ShadowPage, StaleHandle},
    config::least_tables,
    frame::FrameMap,
    role::{Gfn, Role},
    root::Root,
    shootdown::Shootdown,
    statistics::ShadowStatistics,
};
use crate::{
    Doorbell,
    memory::{GuestMemory, heap},
    paging::walk::PagingFeatures,
};

/// Free tables that the mending of a fault may need: one for each level below the root. Loading a
/// root needs no more.
pub(super) const ROOM: usize = 4;

/// The shadow MMU of one VM, as one vCPU uses it at a time.
pub(super) struct Mmu {
    pub(super) arena: Arena,
    pub(super) frames: FrameMap,
    /// By frame: one of its tables, which leads to the others.
    pub(super) index: HashMap<Gfn, PageHandle>,
    /// By vCPU.
    pub(super) roots: Vec<Root>,
    /// Tables that the guest may be writing.
    pub(super) unsynced: Vec<PageHandle>,
    pub(super) shootdown: Arc<Shootdown>,
    pub(super) doorbells: Vec<Doorbell>,
    /// The vCPU that uses the MMU now.
    pub(super) current: usize,
    /// Translations were taken back that some vCPU may have cached.
    pub(super) stale: bool,
    pub(super) cache: bool,
    /// What the guest's entries may say.
    pub(super) features: PagingFeatures,
    /// Where eviction goes on.
    pub(super) hand: usize,
    /// Number of the last search for tables that roots lead to.
    pub(super) searches: u64,
    pub(super) statistics: ShadowStatistics,
}

impl Mmu {
    /// An MMU without tables, which is to have at most `most` of them.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub(super) fn new(
        host: &'static dyn Host,
        memory: &GuestMemory,
        most: usize,
        features: PagingFeatures,
        cache: bool,
        doorbells: Vec<Doorbell>,
    ) -> Result<Self, HostError> {
        let vcpus = doorbells.len();
        let roots: Result<Vec<_>, _> = (0..vcpus).map(|_| Root::new(host)).collect();
        let first = least_tables(vcpus as u32) as usize;
        Ok(Self {
            arena: Arena::new(host, most, first)?,
            frames: FrameMap::new(memory, most)?,
            index: heap::map_with_room(most)?,
            roots: roots?,
            unsynced: heap::vec_with_room(most)?,
            shootdown: Arc::new(Shootdown::new(vcpus)),
            doorbells,
            current: 0,
            stale: false,
            cache,
            features,
            hand: 0,
            searches: 0,
            statistics: ShadowStatistics { tables_most: most as u64, ..Default::default() },
        })
    }

    /// Has every vCPU forget what was taken back, if anything was; returns when none can use it
    /// any more.
    pub(super) fn flush(&mut self) {
        if !core::mem::take(&mut self.stale) {
            return;
        }
        let doorbells = &self.doorbells;
        let ring = |vcpu: usize| {
            if let Some(doorbell) = doorbells.get(vcpu) {
                doorbell.ring();
            }
        };
        self.shootdown.flush(self.current, ring, core::hint::spin_loop);
        self.statistics.flushes += 1;
        self.arena.release_freed();
    }

    /// True if `count` tables more can be made without an allocation: a map that has lost and
    /// gained many keys may want to grow although it holds no more than it had room for.
    pub(super) fn have_room(&mut self, count: usize) -> bool {
        self.index.try_reserve(count).is_ok()
            && self.frames.have_room(count)
            && self.arena.have_free(count)
    }

    /// The first shadow table of `gfn`, from which `next_of_frame` leads to the others.
    pub(super) fn first_of(&self, gfn: Gfn) -> Option<PageHandle> {
        self.index.get(&gfn).copied()
    }

    /// The table that shadows `gfn` in `role`, if there is one.
    fn find(&self, gfn: Gfn, role: &Role) -> Result<Option<PageHandle>, StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            if page.role == *role {
                return Ok(Some(handle));
            }
            next = page.next_of_frame;
        }
        Ok(None)
    }

    /// The table that shadows `gfn` in `role`, up to date, or a new one; there is room for it.
    /// True if it is new: then the guest can write its own table unseen up to the next flush, and
    /// it must not be read before.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn obtain(
        &mut self,
        memory: &GuestMemory,
        gfn: Gfn,
        role: Role,
    ) -> Result<(PageHandle, bool), StaleHandle> {
        if let Some(found) = self.find(gfn, &role)? {
            if self.arena.get(found)?.unsynced {
                self.resync_frame(memory, gfn)?;
            }
            return Ok((found, false));
        }
        let mut page = ShadowPage::new(gfn, role);
        page.next_of_frame = self.first_of(gfn);
        let handle = self.arena.insert(page).ok_or(StaleHandle)?;
        self.index.insert(gfn, handle);
        self.statistics.made += 1;
        if role.source.is_guest_table() {
            self.frames.table_made(gfn);
            self.resync_frame(memory, gfn)?;
            self.protect(gfn)?;
        }
        Ok((handle, true))
    }

    /// Takes a table out of the index.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn unindex(&mut self, handle: PageHandle) -> Result<(), StaleHandle> {
        let page = self.arena.get(handle)?;
        let (gfn, next) = (page.gfn, page.next_of_frame);
        if self.first_of(gfn) == Some(handle) {
            match next {
                Some(next) => self.index.insert(gfn, next),
                None => self.index.remove(&gfn),
            };
            return Ok(());
        }
        let mut at = self.first_of(gfn);
        while let Some(other) = at {
            let page = self.arena.get_mut(other)?;
            at = page.next_of_frame;
            if at == Some(handle) {
                page.next_of_frame = next;
                return Ok(());
            }
        }
        Err(StaleHandle)
    }

    /// The counters, with those that are computed.
    pub(super) fn statistics(&self) -> ShadowStatistics {
        ShadowStatistics {
            tables: self.arena.in_use() as u64,
            tables_peak: self.arena.peak() as u64,
            ..self.statistics
        }
    }
}
