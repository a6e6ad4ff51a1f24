// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables that come back into use with others below them that the guest wrote meanwhile.

use super::long::{self, MAPS};
use crate::{
    Doorbell, GuestPhysAddr,
    memory::GuestMemory,
    paging::{
        shadow::{
            FaultAction,
            mmu::Mmu,
            role::{Gfn, Level},
        },
        walk::{AccessKind, AddressSpace},
    },
};

/// Two roots with the same tables below them.
const ROOTS: [u64; 2] = [0x1000, 0x2000];
const POINTERS: u64 = 0x3000;
const DIRECTORY: u64 = 0x4000;
const TABLE: u64 = 0x5000;
/// Two pages of the guest, one of which it takes back, and the one in which it has its table.
const KEPT: u64 = 0x0000;
const TAKEN_BACK: u64 = 0x1000;
const TABLE_PAGE: u64 = 0x2000;
const DATA: u64 = 0x8000;
const READ_ONLY: u64 = MAPS & !2;

struct Machine {
    memory: GuestMemory,
    space: AddressSpace,
    mmu: Mmu,
}

impl Machine {
    fn new() -> Self {
        let (host, memory) = long::memory(16);
        let space = long::space(ROOTS[0]);
        let doorbells = vec![Doorbell::disconnected()];
        let mmu = Mmu::new(host, &memory, 64, space.features, true, doorbells).unwrap();
        let machine = Self { memory, space, mmu };
        for root in ROOTS {
            machine.put(root, POINTERS | MAPS);
        }
        machine.put(POINTERS, DIRECTORY | MAPS);
        machine.put(DIRECTORY, TABLE | MAPS);
        for (page, frame) in [(KEPT, DATA), (TAKEN_BACK, DATA), (TABLE_PAGE, TABLE)] {
            machine.put(TABLE + page / 512, frame | MAPS);
        }
        machine
    }

    fn put(&self, at: u64, value: u64) {
        self.memory.write_u64(GuestPhysAddr::new(at), value).unwrap();
    }

    fn load_root(&mut self, root: u64) {
        self.space.control.cr3 = root;
        self.mmu.load_root(&self.memory, &self.space).unwrap();
    }

    /// True if the CPU would let the guest write there without a fault.
    fn is_writable(&self, address: u64) -> bool {
        let Self { mmu, .. } = self;
        let mut handle = mmu.top(address);
        while let Some(table) = handle {
            let level = mmu.arena.get(table).unwrap().role.level;
            let id = mmu.arena.entry_id(table, level.index(address)).unwrap();
            let entry = mmu.arena.read(id).unwrap();
            if level == Level::One {
                return entry.is_present() && entry.rights().write;
            }
            let address = entry.address();
            let mut tables = (0..mmu.arena.slots()).filter_map(|slot| mmu.arena.in_slot(slot));
            handle = tables.find(|table| mmu.arena.address(*table) == Ok(address));
        }
        false
    }

    /// An access to memory, with the faults on its way mended.
    fn access(&mut self, address: u64, kind: AccessKind) {
        let access = long::access(kind);
        let action = self.mmu.fault(&self.memory, &self.space, address, access).unwrap();
        assert_eq!(action, FaultAction::Resume);
    }

    /// Uses all pages, and then makes one read-only.
    fn take_back(&mut self) {
        self.load_root(ROOTS[0]);
        self.access(KEPT, AccessKind::Write);
        self.access(TAKEN_BACK, AccessKind::Write);
        self.access(TABLE_PAGE, AccessKind::Write);
        assert!(self.is_writable(TAKEN_BACK) && self.is_writable(TABLE_PAGE));
        self.put(TABLE + TAKEN_BACK / 512, DATA | READ_ONLY);
    }
}

#[test]
fn what_another_root_leads_to_is_brought_up_to_date() {
    let mut machine = Machine::new();
    machine.take_back();
    machine.load_root(ROOTS[1]);
    machine.access(KEPT, AccessKind::Write);
    assert!(machine.is_writable(KEPT), "the page table is used again");
    assert!(!machine.is_writable(TAKEN_BACK));
}

#[test]
fn what_lost_its_way_to_the_root_is_brought_up_to_date() {
    for lost in [POINTERS, DIRECTORY, TABLE] {
        let mut machine = Machine::new();
        machine.take_back();
        machine.mmu.unshadow(Gfn::of(GuestPhysAddr::new(lost))).unwrap();
        machine.mmu.flush();
        machine.load_root(ROOTS[0]);
        machine.access(KEPT, AccessKind::Read);
        assert!(!machine.is_writable(TAKEN_BACK), "with the table at {lost:#x} given up");
    }
}

#[test]
fn an_invalidation_reaches_what_lost_its_way_to_the_root() {
    let mut machine = Machine::new();
    machine.take_back();
    machine.mmu.unshadow(Gfn::of(GuestPhysAddr::new(POINTERS))).unwrap();
    machine.mmu.flush();
    machine.mmu.invalidate(&machine.memory, TAKEN_BACK).unwrap();
    machine.access(KEPT, AccessKind::Read);
    assert!(!machine.is_writable(TAKEN_BACK));
}
