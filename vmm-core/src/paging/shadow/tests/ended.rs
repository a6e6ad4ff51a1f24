// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of the tables of address spaces that have ended: their frames are something else
//! soon, and the guest fills them in one go.

use std::time::{Duration, Instant};

use super::long::{self, MAPS};
use crate::{
    Doorbell, GuestPhysAddr, PAGE_SIZE,
    memory::GuestMemory,
    paging::{
        shadow::{FaultAction, ShadowConfig, ShadowMmu, role::Gfn},
        walk::{AccessKind, AddressSpace},
    },
};

/// Frames that each space maps, each at its own address: all tables among them.
const FRAMES: u64 = 32;

/// Two spaces: the frames of their tables, from the root down.
const FIRST: [u64; 4] = [1, 2, 3, 4];
const SECOND: [u64; 4] = [5, 6, 7, 8];

struct Machine {
    memory: GuestMemory,
    mmu: ShadowMmu,
    /// By vCPU.
    spaces: [AddressSpace; 2],
}

/// Entry `index` of the table at `frame`.
fn entry(frame: u64, index: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(frame * PAGE_SIZE + index * 8)
}

impl Machine {
    /// With two spaces, in none of which a vCPU is.
    fn new() -> Self {
        let (host, memory) = long::memory(FRAMES);
        for tables in [FIRST, SECOND] {
            for pair in tables.windows(2) {
                memory.write_u64(entry(pair[0], 0), (pair[1] * PAGE_SIZE) | MAPS).unwrap();
            }
            for frame in 0..FRAMES {
                memory.write_u64(entry(tables[3], frame), (frame * PAGE_SIZE) | MAPS).unwrap();
            }
        }
        let space = long::space(0);
        let doorbells = vec![Doorbell::disconnected(); 2];
        let mmu = ShadowMmu::new(host, &memory, ShadowConfig::default(), space.features, doorbells)
            .unwrap();
        Self { memory, mmu, spaces: [space; 2] }
    }

    fn enter(&mut self, vcpu: usize, tables: [u64; 4]) {
        self.spaces[vcpu].control.cr3 = tables[0] * PAGE_SIZE;
        self.mmu.load_root(vcpu as u32, &self.memory, &self.spaces[vcpu]).unwrap();
        let touched = self.access(vcpu, 0, AccessKind::Read);
        assert_eq!(touched, FaultAction::Resume);
    }

    fn access(&self, vcpu: usize, address: u64, kind: AccessKind) -> FaultAction {
        let access = long::access(kind);
        let space = &self.spaces[vcpu];
        self.mmu.fault(vcpu as u32, &self.memory, space, address, access).unwrap().0
    }

    /// Writes to a frame, by a fault.
    fn write(&self, vcpu: usize, frame: u64) -> FaultAction {
        self.access(vcpu, frame * PAGE_SIZE, AccessKind::Write)
    }

    fn is_shadowed(&self, frame: u64) -> bool {
        self.mmu.mmu.lock().first_of(Gfn(frame)).is_some()
    }
}

fn to_table(frame: u64) -> FaultAction {
    FaultAction::TableWrite(entry(frame, 0))
}

#[test]
fn an_upper_table_that_no_root_leads_to_goes_with_the_first_write() {
    let mut machine = Machine::new();
    machine.enter(0, FIRST);
    machine.enter(0, SECOND);
    for frame in [FIRST[2], FIRST[0], FIRST[1]] {
        assert!(machine.is_shadowed(frame), "kept over the load of CR3");
        assert_eq!(machine.write(0, frame), FaultAction::Resume, "not emulated");
        assert!(!machine.is_shadowed(frame));
    }
    let counted = machine.mmu.statistics();
    assert_eq!((counted.flooded, counted.table_writes), (3, 0));
    for frame in &SECOND[..3] {
        assert_eq!(machine.write(0, *frame), to_table(*frame), "its own");
        assert!(machine.is_shadowed(*frame));
    }
}

#[test]
fn an_upper_table_stays_that_another_vcpu_uses() {
    let mut machine = Machine::new();
    machine.enter(1, FIRST);
    machine.enter(0, SECOND);
    for frame in &FIRST[..3] {
        assert_eq!(machine.write(0, *frame), to_table(*frame));
        assert!(machine.is_shadowed(*frame));
    }
    assert_eq!(machine.mmu.statistics().flooded, 0);
}

#[test]
fn a_table_out_of_sync_goes_with_the_last_entry_that_leads_there() {
    let mut machine = Machine::new();
    machine.enter(0, FIRST);
    machine.enter(0, SECOND);
    assert_eq!(machine.write(0, FIRST[3]), FaultAction::Resume);
    assert!(machine.is_shadowed(FIRST[3]), "a space that lives may be changed from another");
    assert_eq!(machine.mmu.statistics().unsynced, 1);
    assert_eq!(machine.write(0, FIRST[2]), FaultAction::Resume);
    assert!(!machine.is_shadowed(FIRST[3]));
    assert!(machine.mmu.mmu.lock().unsynced.is_empty());
}

#[test]
fn a_table_of_the_last_level_that_nothing_leads_to_goes_with_the_first_write() {
    let mut machine = Machine::new();
    machine.enter(0, FIRST);
    machine.enter(0, SECOND);
    assert_eq!(machine.write(0, FIRST[2]), FaultAction::Resume);
    assert!(machine.is_shadowed(FIRST[3]), "it may be found again");
    assert_eq!(machine.write(0, FIRST[3]), FaultAction::Resume);
    assert!(!machine.is_shadowed(FIRST[3]));
    assert_eq!(machine.mmu.statistics().unsynced, 0);
}

/// A table that is kept leads to one that is out of sync; what was invalidated while nothing led
/// there must not be back when something does.
#[test]
fn what_is_found_again_is_brought_up_to_date() {
    const CHANGED: u64 = 20;
    let mut machine = Machine::new();
    machine.enter(0, FIRST);
    let mapped = |machine: &Machine| {
        let mmu = machine.mmu.mmu.lock();
        let table = mmu.first_of(Gfn(FIRST[3])).unwrap();
        mmu.arena.read(mmu.arena.entry_id(table, CHANGED as usize).unwrap()).unwrap()
    };
    assert_eq!(machine.write(0, CHANGED), FaultAction::Resume);
    assert_eq!(machine.write(0, FIRST[3]), FaultAction::Resume);
    assert!(mapped(&machine).rights().write);
    // The table between the root and the others goes, as by eviction.
    {
        let mut mmu = machine.mmu.mmu.lock();
        let between = mmu.first_of(Gfn(FIRST[1])).unwrap();
        mmu.zap(between).unwrap();
        mmu.flush();
    }
    let read_only = (CHANGED * PAGE_SIZE) | (MAPS & !2);
    machine.memory.write_u64(entry(FIRST[3], CHANGED), read_only).unwrap();
    machine.enter(0, FIRST);
    assert!(!mapped(&machine).rights().write, "the guest has taken the right back");
}

/// Each of the 512 entries of each table leads to the next: the last has 2^27 ways to the root.
#[test]
fn a_table_with_many_ways_to_it_is_soon_found() {
    let mut machine = Machine::new();
    for index in 1..512 {
        for pair in FIRST.windows(2) {
            let link = (pair[1] * PAGE_SIZE) | MAPS;
            machine.memory.write_u64(entry(pair[0], index), link).unwrap();
        }
    }
    machine.enter(0, FIRST);
    for level in 1..4 {
        for index in 1..512_u64 {
            let address = index << (12 + 9 * level);
            let canonical = ((address << 16) as i64 >> 16) as u64;
            let touched = machine.access(0, canonical, AccessKind::Read);
            assert_eq!(touched, FaultAction::Resume);
        }
    }
    machine.enter(0, SECOND);
    let begin = Instant::now();
    assert_eq!(machine.write(0, FIRST[3]), FaultAction::Resume);
    // Whether this root leads to the table is asked at each load.
    machine.enter(0, SECOND);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
