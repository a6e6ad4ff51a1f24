// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping shadow tables and the guest's tables together.
//!
//! A guest table that is shadowed is write-protected: no shadow entry maps its frame writable. A
//! write to a table of an upper level is emulated, and exactly the entries that it changed are
//! dropped. A table of the last level, which a guest writes most, is let go *out of sync* instead
//! at the first write: from then on its shadow is what a TLB would be, and it is brought up to
//! date where the architecture lets a TLB be out of date no longer: an address when it is
//! invalidated, the whole table when a root that leads to it is loaded. Both reach what the root
//! leads to at that time. A table that comes to be led to later, because a new root shares it or
//! one above it was given up meanwhile, is brought up to date then, with all below it.

use super::{
    arena::{PageHandle, StaleHandle},
    chain::Target,
    guest_entry::affected,
    mmu::Mmu,
    role::{ENTRIES, Gfn, Level},
};
use crate::{GuestPhysAddr, PAGE_SIZE, memory::GuestMemory};

/// After so many writes to the guest's table, and no use of its shadow, the shadow goes: the frame
/// is probably no table any more.
const FLOOD: u8 = 3;

/// What is done about a write to a frame that is shadowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WritePermit {
    /// Let the guest write.
    Granted,
    /// Emulate the write.
    Emulate,
}

/// Where a search for tables begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Top {
    /// The root of the current vCPU.
    Root,
    /// This table.
    Table(PageHandle),
}

impl Mmu {
    /// Sees to it that no entry maps `gfn` writable.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn protect(&mut self, gfn: Gfn) -> Result<(), StaleHandle> {
        if let Some((base, _)) = self.frames.find(gfn.large_base()) {
            let mut next = self.frames.head(base);
            while let Some(entry) = next {
                let note = self.arena.note(entry)?;
                next = note.next;
                if matches!(note.target, Target::Large(_)) {
                    self.unmap(entry)?;
                }
            }
        }
        let Some((frame, _)) = self.frames.find(gfn) else { return Ok(()) };
        let mut next = self.frames.head(frame);
        while let Some(entry) = next {
            next = self.arena.note(entry)?.next;
            let value = self.arena.read(entry)?;
            if value.rights().write {
                self.arena.write(entry, value.read_only())?;
                self.stale = true;
            }
        }
        Ok(())
    }

    /// True if `gfn` must not be mapped writable.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn is_protected(&self, gfn: Gfn) -> Result<bool, StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            if page.role.source.is_guest_table() && !page.unsynced {
                return Ok(true);
            }
            next = page.next_of_frame;
        }
        Ok(false)
    }

    /// The guest is about to write to `gfn`, which is protected.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn permit_write(&mut self, gfn: Gfn) -> Result<WritePermit, StaleHandle> {
        let mut upper = false;
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            next = page.next_of_frame;
            upper |= page.role.source.is_guest_table() && page.role.level != Level::One;
        }
        if upper {
            return Ok(WritePermit::Emulate);
        }
        self.let_go(gfn)?;
        Ok(WritePermit::Granted)
    }

    /// Lets the tables of `gfn`, all of the last level, get out of sync.
    fn let_go(&mut self, gfn: Gfn) -> Result<(), StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get_mut(handle)?;
            next = page.next_of_frame;
            if page.role.source.is_guest_table() && !page.unsynced {
                page.unsynced = true;
                self.unsynced.push(handle);
                self.statistics.unsynced += 1;
            }
        }
        Ok(())
    }

    /// Drops all shadow tables of the guest's tables at `gfn`, which the guest may write then.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn unshadow(&mut self, gfn: Gfn) -> Result<(), StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            next = page.next_of_frame;
            if page.role.source.is_guest_table() {
                self.zap(handle)?;
            }
        }
        Ok(())
    }

    /// The guest's memory was written by the emulator: drops what was made from these bytes,
    /// which lie in one page.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn wrote(
        &mut self,
        memory: &GuestMemory,
        address: GuestPhysAddr,
        bytes: u64,
    ) -> Result<(), StaleHandle> {
        let first = address.offset_in(PAGE_SIZE);
        let last = (first + bytes.max(1) - 1).min(PAGE_SIZE - 1);
        let gfn = Gfn::of(address);
        let mut next = self.first_of(gfn);
        let (mut counted, mut flood) = (false, false);
        while let Some(handle) = next {
            let page = self.arena.get_mut(handle)?;
            next = page.next_of_frame;
            let range = affected(&page.role, first, last).filter(|_| !page.unsynced);
            if let Some((first, last)) = range {
                counted = true;
                page.writes = page.writes.saturating_add(1);
                flood |= page.writes > FLOOD;
                for index in first..=last {
                    self.revalidate(memory, handle, index)?;
                }
            }
        }
        if flood {
            self.unshadow(gfn)?;
            self.statistics.flooded += 1;
        }
        self.statistics.table_writes += u64::from(counted);
        self.flush();
        Ok(())
    }

    /// Brings all tables of `gfn` up to date.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn resync_frame(
        &mut self,
        memory: &GuestMemory,
        gfn: Gfn,
    ) -> Result<(), StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            next = page.next_of_frame;
            if page.unsynced {
                self.protect_again(handle)?;
                self.unsynced.retain(|other| *other != handle);
                self.flush();
                self.revalidate_all(memory, handle)?;
            }
        }
        Ok(())
    }

    /// Brings all tables up to date that the current vCPU's root leads to.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn resync_reachable(&mut self, memory: &GuestMemory) -> Result<(), StaleHandle> {
        self.resync_below(memory, Top::Root)
    }

    /// Brings all tables up to date that `top` leads to.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn resync_below(
        &mut self,
        memory: &GuestMemory,
        top: Top,
    ) -> Result<(), StaleHandle> {
        let mut found = 0;
        for at in 0..self.unsynced.len() {
            let Some(&handle) = self.unsynced.get(at) else { break };
            if self.is_below(handle, top)? {
                self.protect_again(handle)?;
                self.unsynced.swap(found, at);
                found += 1;
            }
        }
        // Nobody writes them any more from here on.
        self.flush();
        for at in 0..found {
            if let Some(&handle) = self.unsynced.get(at) {
                self.revalidate_all(memory, handle)?;
            }
        }
        self.unsynced.drain(..found);
        self.flush();
        Ok(())
    }

    fn protect_again(&mut self, handle: PageHandle) -> Result<(), StaleHandle> {
        let page = self.arena.get_mut(handle)?;
        page.unsynced = false;
        let gfn = page.gfn;
        self.statistics.resynced += 1;
        self.protect(gfn)
    }

    fn revalidate_all(
        &mut self,
        memory: &GuestMemory,
        handle: PageHandle,
    ) -> Result<(), StaleHandle> {
        for index in 0..ENTRIES {
            if self.arena.get(handle)?.present == 0 {
                break;
            }
            self.revalidate(memory, handle, index)?;
        }
        Ok(())
    }

    /// True if the table is `top`, or `top` leads to it.
    fn is_below(&self, handle: PageHandle, top: Top) -> Result<bool, StaleHandle> {
        let page = self.arena.get(handle)?;
        let is_top = match top {
            Top::Root => page.roots > 0 && self.root().holds(handle),
            Top::Table(table) => table == handle,
        };
        if is_top {
            return Ok(true);
        }
        let mut next = page.parents;
        while let Some(entry) = next {
            next = self.arena.note(entry)?.next;
            // Each step leads a level up, so this ends.
            if self.is_below(self.arena.owner(entry)?, top)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
