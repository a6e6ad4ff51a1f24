// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU may still use of what it once found.
//!
//! A TLB may hold a translation that the guest's tables no longer have, but only until the
//! architecture has it dropped: all of them when CR3 is loaded, that of one address by INVLPG.
//! Shadow tables are allowed exactly as much. A single access hardly ever meets what was kept for
//! too long, for its own fault brings its own entry up to date; so everything that a vCPU could
//! use is looked at.

use std::collections::HashSet;

use super::{
    cpu::{Cpu, Outcome, owner},
    guest::Guest,
    invariants::used_entries,
};
use crate::{
    PAGE_SIZE,
    paging::{
        shadow::{
            arena::PageHandle,
            chain::Target,
            mmu::Mmu,
            role::{GuestMode, Level},
        },
        walk::{Access, AccessKind, Privilege},
    },
};

/// Of which addresses a vCPU may have no translations but those that the guest's tables hold.
#[derive(Debug)]
pub enum Fresh {
    /// Of all: the tables are as they were when it loaded CR3.
    All,
    /// Of these pages: they were invalidated after the last change.
    Pages(HashSet<u64>),
}

impl Fresh {
    /// The guest changed a table.
    pub fn tables_changed(&mut self) {
        *self = Self::Pages(HashSet::new());
    }

    /// The translation of `address` was invalidated.
    pub fn invalidated(&mut self, address: u64) {
        if let Self::Pages(pages) = self {
            pages.insert(address / PAGE_SIZE);
        }
    }

    pub fn covers(&self, address: u64) -> bool {
        match self {
            Self::All => true,
            Self::Pages(pages) => pages.contains(&(address / PAGE_SIZE)),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Pages(pages) if pages.is_empty())
    }
}

/// Looks at all that `cpu` could use without a fault, where it has to be fresh.
pub fn check(mmu: &Mmu, cpu: &Cpu, guest: &Guest<'_>, fresh: &Fresh) {
    if fresh.is_empty() || !cpu.root_is_as_loaded(guest) {
        return;
    }
    let view = View { mmu, cpu, guest, fresh };
    match cpu.mode() {
        GuestMode::Long => view.check_table(cpu.top(mmu, 0), 0),
        _ => (0..4).for_each(|slot| view.check_table(cpu.top(mmu, slot << 30), slot << 30)),
    }
}

struct View<'a> {
    mmu: &'a Mmu,
    cpu: &'a Cpu,
    guest: &'a Guest<'a>,
    fresh: &'a Fresh,
}

impl View<'_> {
    /// Looks at all that `table` leads to, which translates the addresses from `first` on.
    fn check_table(&self, table: Option<PageHandle>, first: u64) {
        let Some(table) = table else { return };
        let arena = &self.mmu.arena;
        let page = arena.get(table).unwrap();
        let level = page.role.level;
        let mut present = 0;
        for index in used_entries().take_while(|_| page.present > 0) {
            if present == page.present {
                break;
            }
            let id = arena.entry_id(table, index).unwrap();
            let entry = arena.read(id).unwrap();
            if !entry.is_present() {
                continue;
            }
            present += 1;
            let address = canonical(first + index as u64 * level.entry_frames() * PAGE_SIZE);
            match arena.note(id).unwrap().target {
                Target::Table(child) => self.check_table(Some(child), address),
                _ => self.check_page(level, address),
            }
        }
    }

    /// Looks at the ends of what one entry maps.
    fn check_page(&self, level: Level, first: u64) {
        let last = first + (level.entry_frames() - 1) * PAGE_SIZE;
        for address in [first, last] {
            if self.fresh.covers(address) {
                self.check_address(address);
            }
        }
    }

    fn check_address(&self, address: u64) {
        let found = self.cpu.walk(self.mmu, address).expect("an entry maps it");
        let at = owner(self.guest.memory, found.page).expect("memory of the guest");
        for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Fetch] {
            for privilege in [Privilege::User, Privilege::Supervisor] {
                let access = Access { kind, privilege };
                if self.cpu.allows(found.rights, access) {
                    let expected = self.cpu.settled(self.guest, address, access);
                    let kept = "a translation was kept for too long";
                    assert_eq!(Outcome::Memory(at), expected, "{kept}: {access:?} of {address:#x}");
                }
            }
        }
    }
}

/// Bits 63 to 48 are as bit 47.
const fn canonical(address: u64) -> u64 {
    ((address << 16) as i64 >> 16) as u64
}
