// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving up shadow tables, and finding those that go when room is needed.

use super::{
    arena::{PageHandle, StaleHandle},
    mmu::Mmu,
};

/// One in so many tables goes at a time, so that the search and the flush are shared.
const BATCH: usize = 32;

impl Mmu {
    /// Gives up a table. Its memory is used again only after a flush; as a vCPU's root it stays,
    /// empty, until that vCPU has another.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn zap(&mut self, handle: PageHandle) -> Result<(), StaleHandle> {
        // First, for else it would be given up once more, when the last entry above it goes.
        if core::mem::take(&mut self.arena.get_mut(handle)?.unsynced) {
            self.forget_unsynced(handle);
        }
        while let Some(parent) = self.arena.get(handle)?.parents {
            self.unmap(parent)?;
        }
        let mut from = 0;
        while let Some(index) = self.arena.first_in_use(handle, from)? {
            let entry = self.arena.entry_id(handle, index)?;
            self.unmap(entry)?;
            from = index + 1;
        }
        self.unindex(handle)?;
        let page = self.arena.get_mut(handle)?;
        let (gfn, source, roots) = (page.gfn, page.role.source, page.roots);
        page.obsolete = true;
        if source.is_guest_table() {
            self.frames.table_gone(gfn);
        }
        self.stale = true;
        if roots == 0 { self.arena.remove(handle) } else { Ok(()) }
    }

    /// Gives up all tables.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn zap_all(&mut self) -> Result<(), StaleHandle> {
        for slot in 0..self.arena.slots() {
            if let Some(handle) = self.arena.in_slot(slot)
                && !self.arena.get(handle)?.obsolete
            {
                self.zap(handle)?;
            }
        }
        Ok(())
    }

    /// Sees to `wanted` free tables. False if there is nothing that could go, which the least
    /// budget rules out.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn make_room(&mut self, wanted: usize) -> Result<bool, StaleHandle> {
        while !self.have_room(wanted) {
            if !self.arena.has_freed() && !self.evict(wanted)? {
                return Ok(false);
            }
            self.stale = true;
            self.flush();
        }
        Ok(true)
    }

    /// Gives up tables that were not used for longest, as a clock with one hand finds them, and
    /// that are nobody's root. False if there was none.
    fn evict(&mut self, wanted: usize) -> Result<bool, StaleHandle> {
        let slots = self.arena.slots();
        let batch = wanted.max(slots / BATCH);
        let mut evicted = 0;
        // In the first round each may get a second chance.
        for _ in 0..2 * slots {
            self.hand = (self.hand + 1) % slots;
            let Some(handle) = self.arena.in_slot(self.hand) else { continue };
            let page = self.arena.get_mut(handle)?;
            if page.roots > 0 || core::mem::take(&mut page.touched) {
                continue;
            }
            self.zap(handle)?;
            evicted += 1;
            if evicted == batch {
                break;
            }
        }
        self.statistics.evicted += evicted as u64;
        Ok(evicted > 0)
    }
}
