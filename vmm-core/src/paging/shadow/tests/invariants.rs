// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold whenever nobody is at work in the MMU.

use std::collections::HashSet;

use super::{cpu::owner, guest::DIRECT_FRAMES};
use crate::{
    memory::GuestMemory,
    paging::shadow::{
        arena::{PageHandle, ShadowPage},
        chain::{EntryId, Target},
        entry::ShadowEntry,
        mmu::Mmu,
        role::{ENTRIES, Gfn, LARGE_FRAMES, Level},
    },
};

/// The entries of shadow tables that the model's addresses can lead through.
pub fn used_entries() -> impl Iterator<Item = usize> {
    let first = 0..DIRECT_FRAMES as usize;
    first.chain([ENTRIES - 2, ENTRIES - 1])
}

/// Looks at every table and every entry in use.
pub fn check(mmu: &Mmu, memory: &GuestMemory) {
    let protected = protected_frames(mmu);
    let mut tables = 0;
    let mut unsynced = 0;
    for handle in (0..mmu.arena.slots()).filter_map(|slot| mmu.arena.in_slot(slot)) {
        let page = mmu.arena.get(handle).unwrap();
        tables += 1;
        unsynced += usize::from(page.unsynced);
        check_table(mmu, handle, page);
        let mut present = 0;
        for index in used_entries() {
            if present == page.present {
                break;
            }
            let id = mmu.arena.entry_id(handle, index).unwrap();
            let entry = mmu.arena.read(id).unwrap();
            if entry.is_present() {
                present += 1;
                check_entry(mmu, memory, &protected, (page, id, entry));
            }
        }
        assert_eq!(present, page.present, "entries that no address leads through");
    }
    assert_eq!(tables, mmu.arena.in_use());
    assert!(tables as u64 <= mmu.statistics.tables_most, "over the budget");
    assert_eq!(unsynced, mmu.unsynced.len());
    assert!(!mmu.stale, "translations were taken back, and nobody was told");
}

/// Frames that hold tables which are shadowed, and are not out of sync.
fn protected_frames(mmu: &Mmu) -> HashSet<Gfn> {
    let tables = (0..mmu.arena.slots()).filter_map(|slot| mmu.arena.in_slot(slot));
    let pages = tables.map(|handle| mmu.arena.get(handle).unwrap());
    let synced = pages.filter(|page| !page.unsynced && !page.obsolete);
    synced.filter(|page| page.role.source.is_guest_table()).map(|page| page.gfn).collect()
}

fn check_table(mmu: &Mmu, handle: PageHandle, page: &ShadowPage) {
    let mut others = std::iter::successors(mmu.first_of(page.gfn), |other| {
        mmu.arena.get(*other).unwrap().next_of_frame
    });
    let found = others.any(|other| other == handle);
    assert_eq!(found, !page.obsolete, "a table is found unless it was given up");
    let roots: usize = mmu.roots.iter().map(|root| root.uses(handle)).sum();
    assert_eq!(page.roots as usize, roots);
    if page.obsolete {
        assert!(roots > 0 && page.present == 0 && page.parents.is_none());
    }
    if page.unsynced {
        assert!(page.role.level == Level::One && page.role.source.is_guest_table());
        assert!(mmu.unsynced.contains(&handle));
    }
}

fn check_entry(
    mmu: &Mmu,
    memory: &GuestMemory,
    protected: &HashSet<Gfn>,
    (page, id, entry): (&ShadowPage, EntryId, ShadowEntry),
) {
    let level = page.role.level;
    let target = mmu.arena.note(id).unwrap().target;
    let head = match target {
        Target::Empty => panic!("an entry that is in use leads nowhere"),
        Target::Table(child) => {
            let below = mmu.arena.get(child).unwrap();
            assert!(!below.obsolete);
            assert_eq!(Some(below.role.level), level.below());
            assert_eq!(entry, ShadowEntry::table(mmu.arena.address(child).unwrap()));
            below.parents
        }
        Target::Page(frame) | Target::Large(frame) => {
            let large = matches!(target, Target::Large(_));
            assert_eq!(level, if large { Level::Two } else { Level::One });
            let host = entry.address().as_u64();
            let first = owner(memory, host).expect("a frame that the guest owns");
            let frames = if large { LARGE_FRAMES } else { 1 };
            let last = owner(memory, host + (frames - 1) * crate::PAGE_SIZE);
            let first = Gfn::of(first);
            assert_eq!(last.map(Gfn::of), Some(Gfn(first.0 + frames - 1)), "all of it");
            assert_eq!(mmu.frames.find(first).map(|(found, _)| found), Some(frame));
            let mut inside = first.0..first.0 + frames;
            let shadowed = inside.any(|gfn| protected.contains(&Gfn(gfn)));
            assert!(!shadowed || !entry.rights().write, "a shadowed table can be written");
            mmu.frames.head(frame)
        }
    };
    let note = mmu.arena.note(id).unwrap();
    match note.previous {
        Some(previous) => assert_eq!(mmu.arena.note(previous).unwrap().next, Some(id)),
        None => assert_eq!(head, Some(id)),
    }
    if let Some(next) = note.next {
        assert_eq!(mmu.arena.note(next).unwrap().previous, Some(id));
    }
}
