// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shadow MMU against a model of a guest and of the CPUs it runs on.
//!
//! A sequence is the life of a VM: the guest makes tables, changes them, uses them for something
//! else, and loads its control registers, all at random, on two vCPUs and with a budget that
//! forces eviction; then the VM ends. After every step every entry of every shadow table is
//! looked at ([`invariants`]). Where the architecture leaves no room for old translations, what an
//! access comes to is compared with what the guest's tables say.

mod cpu;
#[cfg(test)]
mod ended;
mod guest;
mod invariants;
mod legality;
#[cfg(test)]
pub mod long;
#[cfg(test)]
mod racing;
#[cfg(test)]
mod relinking;
#[cfg(test)]
mod shootdown;

use host_mock::MockHost;

use crate::{
    Doorbell, PAGE_SIZE,
    memory::GuestMemory,
    paging::{
        shadow::{ShadowConfig, ShadowMmu, ShadowStatistics, mmu::ROOM},
        tests::dice::Dice,
        walk::{Access, AccessKind, PagingFeatures, Privilege},
    },
};
use cpu::{Cpu, Outcome};
use guest::{Entries, Guest};
use legality::Fresh;

const VCPUS: u32 = 2;
/// Sequences of each test; there are four.
#[cfg(test)]
const SEQUENCES: u64 = 2_500;
/// Four roots for each vCPU, the tables below one of them, and what a fault may need. That is
/// less than a VM is given, so that few tables are too many.
const LEAST_TABLES: u64 = 4 * VCPUS as u64 + 4 + ROOM as u64;

struct Machine<'a> {
    guest: Guest<'a>,
    mmu: ShadowMmu,
    cpus: [Cpu; VCPUS as usize],
    /// By vCPU: where it may use no old translations.
    fresh: [Fresh; VCPUS as usize],
    /// By vCPU: where the last access was.
    last: [u64; VCPUS as usize],
    dice: Dice,
}

impl<'a> Machine<'a> {
    fn new(host: &'static MockHost, guest: Guest<'a>, keeps_pointers: bool, dice: Dice) -> Self {
        let mut dice = dice;
        let tables = LEAST_TABLES + dice.roll(16);
        let config =
            ShadowConfig { budget_bytes: Some(tables * PAGE_SIZE), cache: !dice.one_in(8) };
        let doorbells = vec![Doorbell::disconnected(); VCPUS as usize];
        let features = PagingFeatures {
            physical_address_bits: dice.pick(&[32, 40, 52]),
            gigabyte_pages: dice.one_in(2),
            table_global_reserved: dice.one_in(2),
        };
        let mmu = ShadowMmu::new(host, guest.memory, config, features, doorbells).unwrap();
        let cpus = [0, 1].map(|number| {
            let mut cpu = Cpu::new(number, features, keeps_pointers);
            cpu.write_control(&guest, &mmu, &mut dice);
            cpu
        });
        Self { guest, mmu, cpus, fresh: [Fresh::All, Fresh::All], last: [0; 2], dice }
    }

    /// An address for an access, often that of the last one, or near it.
    fn address(&mut self, number: usize) -> u64 {
        let last = self.last[number];
        self.last[number] = match self.dice.roll(4) {
            0 => last,
            1 | 2 => self.guest.neighbour(last, &mut self.dice),
            _ => self.new_address(number),
        };
        self.last[number]
    }

    /// Mostly one that a page table decides about: to which the upper tables lead.
    fn new_address(&mut self, number: usize) -> u64 {
        let Self { guest, cpus, dice, .. } = self;
        let cpu = &cpus[number];
        let attempts = 1 + dice.roll(4);
        let mut addresses = (0..attempts).map(|_| guest.address(cpu.mode(), dice));
        let first = addresses.next().unwrap_or_default();
        let mut rest = core::iter::once(first).chain(addresses);
        rest.find(|address| cpu.last_entry(guest, *address).is_some()).unwrap_or(first)
    }

    fn step(&mut self) {
        let number = self.dice.roll(u64::from(VCPUS)) as usize;
        match self.dice.roll(18) {
            0..=3 => self.change_entry(number),
            4 => self.wipe_table(number),
            5..=7 => self.load_control(number),
            8..=10 => {
                let address = self.address(number);
                self.invalidate(number, address);
                self.access(number, address);
            }
            _ => {
                let address = self.address(number);
                self.access(number, address);
            }
        }
        self.check();
    }

    fn check(&self) {
        let mmu = self.mmu.mmu.lock();
        invariants::check(&mmu, self.guest.memory);
        for (vcpu, (cpu, fresh)) in self.cpus.iter().zip(&self.fresh).enumerate() {
            legality::check(&mmu, cpu, &self.guest, fresh);
            if matches!(fresh, Fresh::All) {
                invariants::check_settled(&mmu, self.guest.memory, vcpu);
            }
        }
    }

    fn invalidate(&mut self, number: usize, address: u64) {
        self.cpus[number].invalidate(&self.guest, &self.mmu, address);
        if self.cpus[number].invalidation_is_exact() {
            self.fresh[number].invalidated(address);
        }
    }

    fn load_control(&mut self, number: usize) {
        let Self { guest, mmu, cpus, dice, .. } = self;
        if dice.one_in(6) {
            cpus[number].write_control(guest, mmu, dice);
            self.last[number] = 0;
        } else {
            cpus[number].load_cr3(guest, mmu, dice);
        }
        self.fresh[number] = Fresh::All;
    }

    fn access(&mut self, number: usize, address: u64) {
        let Self { guest, mmu, cpus, fresh, dice, .. } = self;
        let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
        let privileges = [Privilege::User, Privilege::Supervisor, Privilege::ImplicitSupervisor];
        let access = Access { kind: dice.pick(&kinds), privilege: dice.pick(&privileges) };
        let cpu = &mut cpus[number];
        cpu.space.alignment_check = dice.one_in(2);
        let (outcome, emulated) = cpu.access(guest, mmu, dice, (address, access));
        if fresh[number].covers(address) && cpu.root_is_as_loaded(guest) {
            let expected = cpu.settled(guest, address, access);
            assert_eq!(outcome, expected, "{access:?} of {address:#x}, with {:x?}", cpu.space);
        }
        if let Outcome::Memory(at) = outcome
            && emulated
            && access.kind == AccessKind::Write
        {
            // The access writes what is there already.
            mmu.wrote(number as u32, guest.memory, at, 1).unwrap();
        }
    }

    fn store(&mut self, number: usize, table: u64, slot: u64, value: u64) {
        let at = table * PAGE_SIZE + slot * self.guest.entries.bytes();
        self.cpus[number].store(&self.guest, &self.mmu, &mut self.dice, at, value);
        self.fresh.iter_mut().for_each(Fresh::tables_changed);
    }

    fn change_entry(&mut self, number: usize) {
        let used = self.cpus[number].last_entry(&self.guest, self.last[number]);
        let (table, slot) = match used.filter(|_| self.dice.one_in(2)) {
            Some(used) => used,
            None => {
                let table = self.guest.table(&mut self.dice);
                (table, self.dice.pick(&self.guest.free_slots(table)))
            }
        };
        let value = self.guest.entry(table, &mut self.dice);
        self.store(number, table, slot, value);
    }

    fn wipe_table(&mut self, number: usize) {
        let table = self.guest.table(&mut self.dice);
        for slot in self.guest.free_slots(table) {
            self.store(number, table, slot, 0);
            self.check();
        }
    }

    /// The VM ends.
    fn end(self) -> ShadowStatistics {
        let statistics = self.mmu.statistics();
        let mut mmu = self.mmu.mmu.lock();
        mmu.zap_all().unwrap();
        for vcpu in 0..VCPUS as usize {
            mmu.current = vcpu;
            mmu.release_root().unwrap();
        }
        mmu.flush();
        assert_eq!(mmu.arena.in_use(), 0, "a shadow table was left behind");
        assert!(mmu.frames.is_idle() && mmu.index.is_empty() && mmu.unsynced.is_empty());
        drop(mmu);
        statistics
    }
}

/// Plays one sequence and ends the VM.
fn play(
    host: &'static MockHost,
    memory: &GuestMemory,
    (entries, keeps_pointers): (Entries, bool),
    mut dice: Dice,
) -> ShadowStatistics {
    let guest = Guest::new(memory, entries, keeps_pointers, &mut dice);
    let mut machine = Machine::new(host, guest, keeps_pointers, dice);
    let steps = 8 + machine.dice.roll(32);
    for _ in 0..steps {
        machine.step();
    }
    machine.end()
}

thread_local! {
    /// A host, and memory on it that sequences take one after the other.
    static GUEST_MEMORY: (&'static MockHost, GuestMemory) = {
        let host = MockHost::leak(1);
        (host, guest::memory(host))
    };
}

/// Plays the sequence that `bytes` describe.
///
/// # Panics
/// If something does not hold, or memory is left behind.
pub fn check_sequence(bytes: &[u8]) {
    let mut dice = Dice::of(bytes);
    let kind =
        dice.pick(&[(Entries::Eight, false), (Entries::Eight, true), (Entries::Four, false)]);
    GUEST_MEMORY.with(|(host, memory)| {
        let before = host.live_runs();
        play(host, memory, kind, dice);
        assert_eq!(host.live_runs(), before, "memory was left behind");
    });
}

/// Says which sequence failed.
#[cfg(test)]
struct Seed(u64);

#[cfg(test)]
impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the sequence with seed {}", self.0);
        }
    }
}

#[cfg(test)]
fn sequences(entries: Entries, keeps_pointers: bool, first_seed: u64) {
    let host = MockHost::leak(1);
    let memory = guest::memory(host);
    let before = host.live_runs();
    let mut total = ShadowStatistics::default();
    for seed in first_seed..first_seed + SEQUENCES {
        let seed = Seed(seed);
        let statistics = play(host, &memory, (entries, keeps_pointers), Dice::new(seed.0));
        assert_eq!(host.live_runs(), before, "memory was left behind");
        total.evicted += statistics.evicted;
        total.flooded += statistics.flooded;
        total.resynced += statistics.resynced;
        total.table_writes += statistics.table_writes;
        total.faults_forwarded += statistics.faults_forwarded;
    }
    let ShadowStatistics { evicted, flooded, resynced, table_writes, faults_forwarded, .. } = total;
    let rare = [evicted, flooded, resynced, table_writes, faults_forwarded];
    assert!(rare.iter().all(|count| *count > SEQUENCES / 50), "hardly tried: {rare:?}");
}

#[test]
fn tables_of_eight_bytes_whose_pointers_are_read_on_each_walk() {
    sequences(Entries::Eight, false, 0);
}

#[test]
fn tables_of_eight_bytes_whose_pointers_are_kept() {
    sequences(Entries::Eight, true, 1 << 32);
}

#[test]
fn tables_of_four_bytes() {
    sequences(Entries::Four, false, 2 << 32);
}

#[test]
fn tables_of_four_bytes_again() {
    sequences(Entries::Four, false, 3 << 32);
}
