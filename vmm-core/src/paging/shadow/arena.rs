// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shadow tables of one VM: a bounded number of slots, named by handles that go stale.
//!
//! A handle holds the slot's number and the generation in which it was given out. Freeing a table
//! begins a new generation, so a handle that outlived its table is an error wherever it is used,
//! and never reaches the table that has the slot now. The memory of a freed table is used again
//! only after [`Arena::release_freed`], which is called when no CPU can walk the table any more.

use alloc::vec::Vec;

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};

use super::{
    chain::{EntryId, EntryNote, Notes, Target},
    entry::ShadowEntry,
    role::{Gfn, Role},
    table_memory::TableMemory,
};
use crate::memory::heap;

/// Names a shadow table, for as long as it is that table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHandle {
    slot: u32,
    generation: u32,
}

/// A handle or a link names a table that is gone: a defect of the shadow MMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleHandle;

impl StaleHandle {
    /// What the end of a VM says about a defect that the MMU found in itself.
    pub const WHY: &'static str = "a shadow table was used that is gone";
}

/// What is known of a shadow table.
#[derive(Debug)]
pub struct ShadowPage {
    /// The guest frame it shadows: that of the guest's table, or the first of a linear piece.
    pub gfn: Gfn,
    /// What it stands for.
    pub role: Role,
    /// The entries that lead to it.
    pub parents: Option<EntryId>,
    /// Another shadow table of the same frame.
    pub next_of_frame: Option<PageHandle>,
    /// How many vCPUs use it as a root.
    pub roots: u32,
    /// Entries in use.
    pub present: u32,
    /// The guest may write the table it was made from; only the last level may be so.
    pub unsynced: bool,
    /// It stands for nothing any more, and lives only as long as a vCPU has it as its root.
    pub obsolete: bool,
    /// Used since the hand of the eviction's clock last passed.
    pub touched: bool,
    /// Writes to the guest's table since it was last used.
    pub writes: u8,
    /// The last search that came here, by its number, and whether a root led here.
    pub searched: (u64, bool),
}

impl ShadowPage {
    /// A table without entries.
    pub const fn new(gfn: Gfn, role: Role) -> Self {
        Self {
            gfn,
            role,
            parents: None,
            next_of_frame: None,
            roots: 0,
            present: 0,
            unsynced: false,
            obsolete: false,
            touched: true,
            writes: 0,
            searched: (0, false),
        }
    }
}

struct Slot {
    memory: TableMemory,
    notes: Notes,
    generation: u32,
    page: Option<ShadowPage>,
}

/// All shadow tables of a VM.
pub struct Arena {
    host: &'static dyn Host,
    slots: Vec<Slot>,
    most: usize,
    free: Vec<u32>,
    /// Freed, but maybe still walked by a CPU.
    freed: Vec<u32>,
    peak: usize,
    changes: u64,
}

impl Arena {
    /// Room for at most `most` tables, of which `first` are allocated at once.
    ///
    /// # Errors
    /// When the host has no memory for those.
    pub fn new(host: &'static dyn Host, most: usize, first: usize) -> Result<Self, HostError> {
        let (slots, free, freed) = (Vec::new(), Vec::new(), Vec::new());
        let mut arena = Self { host, slots, most, free, freed, peak: 0, changes: 0 };
        for _ in 0..first.min(most) {
            arena.grow()?;
        }
        Ok(arena)
    }

    fn grow(&mut self) -> Result<(), HostError> {
        let memory = TableMemory::new(self.host, PageRequest::contiguous(1))?;
        let notes = heap::boxed_array(EntryNote::default())?;
        // Freeing and reusing tables allocates nothing: there is room for all of them.
        let count = self.slots.len() + 1;
        heap::make_room(&mut self.slots, count)?;
        heap::make_room(&mut self.free, count)?;
        heap::make_room(&mut self.freed, count)?;
        self.free.push(self.slots.len() as u32);
        self.slots.push(Slot { memory, notes, generation: 0, page: None });
        Ok(())
    }

    /// Tries to have `wanted` slots free, growing if the bound and the host allow. False if some
    /// table has to go first.
    pub fn have_free(&mut self, wanted: usize) -> bool {
        while self.free.len() < wanted {
            if self.slots.len() >= self.most || self.grow().is_err() {
                return false;
            }
        }
        true
    }

    /// True if tables were freed whose memory is not free yet.
    pub fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Makes the memory of freed tables free: no CPU walks them any more.
    pub fn release_freed(&mut self) {
        self.free.append(&mut self.freed);
    }

    /// Puts `page` into a free slot; none if there is no free slot.
    pub fn insert(&mut self, page: ShadowPage) -> Option<PageHandle> {
        let slot = self.free.pop()?;
        let entry = self.slots.get_mut(slot as usize)?;
        entry.page = Some(page);
        let handle = PageHandle { slot, generation: entry.generation };
        self.peak = self.peak.max(self.in_use());
        Some(handle)
    }

    /// Ends the life of a table without entries, and with it of all handles to it.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn remove(&mut self, handle: PageHandle) -> Result<(), StaleHandle> {
        self.get(handle)?;
        let slot = self.slots.get_mut(handle.slot as usize).ok_or(StaleHandle)?;
        slot.page = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.freed.push(handle.slot);
        Ok(())
    }

    fn slot(&self, handle: PageHandle) -> Result<&Slot, StaleHandle> {
        let slot = self.slots.get(handle.slot as usize).ok_or(StaleHandle)?;
        if slot.generation == handle.generation { Ok(slot) } else { Err(StaleHandle) }
    }

    /// What is known of a table.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn get(&self, handle: PageHandle) -> Result<&ShadowPage, StaleHandle> {
        self.slot(handle)?.page.as_ref().ok_or(StaleHandle)
    }

    /// What is known of a table.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn get_mut(&mut self, handle: PageHandle) -> Result<&mut ShadowPage, StaleHandle> {
        self.slot(handle)?;
        let slot = self.slots.get_mut(handle.slot as usize).ok_or(StaleHandle)?;
        slot.page.as_mut().ok_or(StaleHandle)
    }

    /// Where a table lies in the host.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn address(&self, handle: PageHandle) -> Result<HostPhysAddr, StaleHandle> {
        Ok(self.slot(handle)?.memory.address())
    }

    /// The table that has the slot of an entry.
    ///
    /// # Errors
    /// [`StaleHandle`] if there is none.
    pub fn owner(&self, entry: EntryId) -> Result<PageHandle, StaleHandle> {
        let slot = self.slots.get(entry.slot() as usize).ok_or(StaleHandle)?;
        slot.page.as_ref().ok_or(StaleHandle)?;
        Ok(PageHandle { slot: entry.slot(), generation: slot.generation })
    }

    /// The name of entry `index` of a table.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn entry_id(&self, handle: PageHandle, index: usize) -> Result<EntryId, StaleHandle> {
        self.get(handle)?;
        EntryId::new(handle.slot, index).ok_or(StaleHandle)
    }

    /// Reads an entry as the CPU sees it.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn read(&self, entry: EntryId) -> Result<ShadowEntry, StaleHandle> {
        let slot = self.slots.get(entry.slot() as usize).ok_or(StaleHandle)?;
        Ok(slot.memory.read(entry.index()))
    }

    /// The first entry of a table that leads or maps anywhere, from entry `from` on.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn first_in_use(
        &self,
        handle: PageHandle,
        from: usize,
    ) -> Result<Option<usize>, StaleHandle> {
        if self.get(handle)?.present == 0 {
            return Ok(None);
        }
        Ok(self.slot(handle)?.memory.first_in_use(from))
    }

    /// Writes an entry; CPUs that walk the table see the old or the new value.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn write(&mut self, entry: EntryId, value: ShadowEntry) -> Result<(), StaleHandle> {
        let slot = self.slots.get_mut(entry.slot() as usize).ok_or(StaleHandle)?;
        let page = slot.page.as_mut().ok_or(StaleHandle)?;
        let old = slot.memory.write(entry.index(), value);
        page.present += u32::from(value.is_present());
        page.present -= u32::from(old.is_present());
        self.changes += u64::from(old != value);
        Ok(())
    }

    /// How often an entry was changed so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What is noted of an entry.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn note(&self, entry: EntryId) -> Result<&EntryNote, StaleHandle> {
        let slot = self.slots.get(entry.slot() as usize).ok_or(StaleHandle)?;
        slot.notes.get(entry.index()).ok_or(StaleHandle)
    }

    fn note_mut(&mut self, entry: EntryId) -> Result<&mut EntryNote, StaleHandle> {
        let slot = self.slots.get_mut(entry.slot() as usize).ok_or(StaleHandle)?;
        slot.notes.get_mut(entry.index()).ok_or(StaleHandle)
    }

    /// Puts an entry that is in no chain at the head of the chain that begins with `head`, and
    /// notes what it leads to. Returns the new head.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn chain(
        &mut self,
        entry: EntryId,
        target: Target,
        head: Option<EntryId>,
    ) -> Result<Option<EntryId>, StaleHandle> {
        *self.note_mut(entry)? = EntryNote { target, previous: None, next: head };
        if let Some(head) = head {
            self.note_mut(head)?.previous = Some(entry);
        }
        Ok(Some(entry))
    }

    /// Takes an entry out of the chain that begins with `head`. Returns the new head.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub fn unchain(
        &mut self,
        entry: EntryId,
        head: Option<EntryId>,
    ) -> Result<Option<EntryId>, StaleHandle> {
        let EntryNote { previous, next, .. } = core::mem::take(self.note_mut(entry)?);
        if let Some(next) = next {
            self.note_mut(next)?.previous = previous;
        }
        match previous {
            Some(previous) => {
                self.note_mut(previous)?.next = next;
                Ok(head)
            }
            None => Ok(next),
        }
    }

    /// Tables that are in use.
    pub fn in_use(&self) -> usize {
        self.slots.len() - self.free.len() - self.freed.len()
    }

    /// The most that ever were.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Number of slots; tables are in some of them.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The table in slot number `slot`, if there is one.
    pub fn in_slot(&self, slot: usize) -> Option<PageHandle> {
        let generation = self.slots.get(slot).filter(|slot| slot.page.is_some())?.generation;
        Some(PageHandle { slot: u32::try_from(slot).ok()?, generation })
    }

    /// Bytes of tables, those of free slots included.
    pub fn bytes(&self) -> u64 {
        self.slots.len() as u64 * crate::PAGE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::{
        super::role::{ALL_RIGHTS, Level, Source, Switches},
        *,
    };

    fn page(gfn: u64) -> ShadowPage {
        let switches = Switches { write_protect: true, no_execute: true, smep: false, smap: false };
        let source = Source::Long;
        ShadowPage::new(Gfn(gfn), Role { level: Level::One, source, rights: ALL_RIGHTS, switches })
    }

    #[test]
    fn a_stale_handle_reaches_nothing() {
        let mut arena = Arena::new(MockHost::leak(1), 2, 1).unwrap();
        let old = arena.insert(page(1)).unwrap();
        assert_eq!(arena.get(old).unwrap().gfn, Gfn(1));
        arena.remove(old).unwrap();
        assert_eq!(arena.get(old).unwrap_err(), StaleHandle);
        assert!(arena.insert(page(2)).is_none(), "a CPU may still walk the freed table");
        arena.release_freed();
        let new = arena.insert(page(2)).unwrap();
        assert_eq!((new.slot, arena.get(new).unwrap().gfn), (old.slot, Gfn(2)));
        assert_eq!(arena.get(old).unwrap_err(), StaleHandle);
        assert_eq!(arena.get_mut(old).unwrap_err(), StaleHandle);
        assert_eq!(arena.address(old), Err(StaleHandle));
        assert_eq!(arena.remove(old), Err(StaleHandle));
        assert_eq!(arena.entry_id(old, 0), Err(StaleHandle));
    }

    #[test]
    fn grows_up_to_its_bound_and_as_the_host_allows() {
        let host = MockHost::leak(1);
        let mut arena = Arena::new(host, 3, 1).unwrap();
        assert!(arena.have_free(2) && arena.have_free(3) && !arena.have_free(4));
        let mut arena = Arena::new(host, 3, 1).unwrap();
        host.fail_allocation_in(1);
        assert!(!arena.have_free(3), "one more was to be had");
        assert_eq!((arena.slots(), arena.in_use()), (2, 0));
    }

    #[test]
    fn chains_lose_what_is_taken_out() {
        let mut arena = Arena::new(MockHost::leak(1), 1, 1).unwrap();
        let table = arena.insert(page(1)).unwrap();
        let ids = [1, 2, 3].map(|index| arena.entry_id(table, index).unwrap());
        let mut head = None;
        for id in ids {
            head = arena.chain(id, Target::Table(table), head).unwrap();
        }
        let members = |arena: &Arena, head: Option<EntryId>| {
            let next = |id: &EntryId| arena.note(*id).unwrap().next;
            std::iter::successors(head, next).map(EntryId::index).collect::<Vec<_>>()
        };
        assert_eq!(members(&arena, head), [3, 2, 1]);
        head = arena.unchain(ids[1], head).unwrap();
        assert_eq!(members(&arena, head), [3, 1]);
        head = arena.unchain(ids[2], head).unwrap();
        head = arena.unchain(ids[0], head).unwrap();
        assert_eq!(head, None);
        assert_eq!(arena.note(ids[0]).unwrap().target, Target::Empty);
    }

    #[test]
    fn counts_and_finds_what_is_present() {
        let mut arena = Arena::new(MockHost::leak(1), 1, 1).unwrap();
        let table = arena.insert(page(1)).unwrap();
        let id = arena.entry_id(table, 5).unwrap();
        let entry = ShadowEntry::table(HostPhysAddr::new(0x5000));
        arena.write(id, entry).unwrap();
        arena.write(id, entry).unwrap();
        assert_eq!((arena.get(table).unwrap().present, arena.read(id)), (1, Ok(entry)));
        for (from, found) in [(0, Some(5)), (5, Some(5)), (6, None), (512, None)] {
            assert_eq!(arena.first_in_use(table, from), Ok(found), "from {from}");
        }
        arena.write(id, ShadowEntry::EMPTY).unwrap();
        assert_eq!(arena.get(table).unwrap().present, 0);
        assert_eq!(arena.first_in_use(table, 0), Ok(None));
    }
}
