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
    role::{Gfn, Level},
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

/// The roots that a search is for.
#[derive(Clone, Copy)]
pub(super) enum Roots {
    /// Those of the current vCPU.
    Current,
    /// Those of all vCPUs.
    All,
    /// This table, as if it were one.
    Table(PageHandle),
}

/// A search for tables that roots lead to.
#[derive(Clone, Copy)]
struct Search {
    roots: Roots,
    number: u64,
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
    /// Tables of it that are not in use go: what the guest writes there is probably no table any
    /// more, but data, or the beginning of another table. It may be a whole page, and to emulate
    /// that would cost more than to make the table anew.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn permit_write(&mut self, gfn: Gfn) -> Result<WritePermit, StaleHandle> {
        let mut upper = false;
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            next = page.next_of_frame;
            if !page.role.source.is_guest_table() || page.role.level == Level::One {
                continue;
            }
            if self.is_in_use(handle)? {
                upper = true;
            } else {
                self.abandon(handle)?;
            }
        }
        if upper {
            return Ok(WritePermit::Emulate);
        }
        self.let_go(gfn)?;
        Ok(WritePermit::Granted)
    }

    /// Lets the tables of `gfn`, all of the last level, get out of sync. Guests also write those of
    /// spaces that no CPU is in, so only what nothing leads to goes.
    fn let_go(&mut self, gfn: Gfn) -> Result<(), StaleHandle> {
        let mut next = self.first_of(gfn);
        while let Some(handle) = next {
            let page = self.arena.get_mut(handle)?;
            next = page.next_of_frame;
            if !page.role.source.is_guest_table() || page.unsynced {
                continue;
            }
            if page.parents.is_none() {
                self.abandon(handle)?;
                continue;
            }
            page.unsynced = true;
            self.unsynced.push(handle);
            self.statistics.unsynced += 1;
        }
        Ok(())
    }

    /// Gives up a table because the guest writes to what it shadows.
    fn abandon(&mut self, handle: PageHandle) -> Result<(), StaleHandle> {
        self.statistics.flooded += 1;
        self.zap(handle)
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
                self.forget_unsynced(handle);
                self.flush();
                self.revalidate_all(memory, handle)?;
            }
        }
        Ok(())
    }

    /// Brings all tables up to date that these roots lead to.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn resync_below(
        &mut self,
        memory: &GuestMemory,
        roots: Roots,
    ) -> Result<(), StaleHandle> {
        let mut found = 0;
        let search = self.begin_search(roots);
        for at in 0..self.unsynced.len() {
            let Some(&handle) = self.unsynced.get(at) else { break };
            if self.is_below(handle, search)? {
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

    /// Takes a table off the list of those out of sync; their order does not matter.
    pub(super) fn forget_unsynced(&mut self, handle: PageHandle) {
        if let Some(at) = self.unsynced.iter().position(|other| *other == handle) {
            self.unsynced.swap_remove(at);
        }
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
        let mut from = 0;
        while let Some(index) = self.arena.first_in_use(handle, from)? {
            self.revalidate(memory, handle, index)?;
            from = index + 1;
        }
        Ok(())
    }

    /// True if a root of some vCPU leads to the table.
    fn is_in_use(&mut self, handle: PageHandle) -> Result<bool, StaleHandle> {
        let search = self.begin_search(Roots::All);
        self.is_below(handle, search)
    }

    /// Links must stay as they are until the search is over.
    fn begin_search(&mut self, roots: Roots) -> Search {
        self.searches += 1;
        Search { roots, number: self.searches }
    }

    /// True if one of the search's roots leads to the table. Each table is looked at once in a
    /// search, however many ways lead to it.
    fn is_below(&mut self, handle: PageHandle, search: Search) -> Result<bool, StaleHandle> {
        let page = self.arena.get(handle)?;
        let (number, known) = page.searched;
        if number == search.number {
            return Ok(known);
        }
        let mut found = match search.roots {
            Roots::All => page.roots > 0,
            Roots::Current => page.roots > 0 && self.root().holds(handle),
            Roots::Table(table) => table == handle,
        };
        let mut next = page.parents;
        // Each step leads a level up, so this ends.
        while let (Some(entry), false) = (next, found) {
            next = self.arena.note(entry)?.next;
            found = self.is_below(self.arena.owner(entry)?, search)?;
        }
        self.arena.get_mut(handle)?.searched = (search.number, found);
        Ok(found)
    }
}
