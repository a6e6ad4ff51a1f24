// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model's CPU: it walks the shadow tables, keeps what it found in a TLB that never forgets
//! on its own account, and does on a fault what a vCPU does.

use std::collections::HashMap;

use host_iface::HostPhysAddr;

use super::guest::Guest;
use crate::{
    GuestPhysAddr, GuestVirtAddr, PAGE_SIZE,
    memory::GuestMemory,
    paging::{
        shadow::{
            FaultAction, ShadowMmu,
            arena::PageHandle,
            entry::ShadowEntry,
            link::includes,
            mmu::Mmu,
            role::{GuestMode, Level},
        },
        tests::dice::Dice,
        walk::{
            Access, AccessKind, AddressSpace, BusError, PagingFeatures, PhysicalMemory, Privilege,
            Rights, TranslateError, translate,
        },
    },
    state::{ControlRegisters, cr0, cr4, efer},
};

const LARGE: u64 = 1 << 7;
/// A fault may be looked at so often before the access comes through: for a stale TLB, and for
/// what the guest's tables were changed into meanwhile.
const MOST_FAULTS: usize = 4;
/// So often an instruction that writes a table is tried again without the table's shadow.
const MOST_RETRIES: usize = 2;

/// What came of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It reached memory there.
    Memory(GuestPhysAddr),
    /// There is nothing.
    Device(GuestPhysAddr),
    /// The guest got a page fault with this error code.
    Fault(u32),
}

/// A translation: of a linear page to a page of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    pub page: u64,
    pub rights: Rights,
}

/// Guest memory where nobody may have to set an accessed or dirty bit any more.
struct Settled<'a>(&'a GuestMemory);

impl PhysicalMemory for Settled<'_> {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        PhysicalMemory::read_u32(self.0, address)
    }
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        PhysicalMemory::read_u64(self.0, address)
    }
    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        old: u32,
        _: u32,
    ) -> Result<bool, BusError> {
        panic!("accessed or dirty is not set in {old:#x} at {address}")
    }
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        old: u64,
        _: u64,
    ) -> Result<bool, BusError> {
        panic!("accessed or dirty is not set in {old:#x} at {address}")
    }
}

/// One vCPU.
pub struct Cpu {
    number: u32,
    pub space: AddressSpace,
    tlb: HashMap<u64, Translated>,
    root: HostPhysAddr,
    /// The page-directory pointers are loaded with CR3.
    keeps_pointers: bool,
    /// What they were when CR3 was loaded.
    loaded_pointers: [u64; 4],
}

impl Cpu {
    pub fn new(number: u32, features: PagingFeatures, keeps_pointers: bool) -> Self {
        let space = AddressSpace {
            control: ControlRegisters::default(),
            alignment_check: false,
            features,
            page_directory_pointers: None,
        };
        let root = HostPhysAddr::new(0);
        Self { number, space, tlb: HashMap::new(), root, keeps_pointers, loaded_pointers: [0; 4] }
    }

    pub fn mode(&self) -> GuestMode {
        GuestMode::of(&self.space.control)
    }

    /// The entry of a page table of the guest's that decides about `address`.
    pub fn last_entry(&self, guest: &Guest<'_>, address: u64) -> Option<(u64, u64)> {
        guest.last_entry(self.mode(), self.space.control.cr3, address)
    }

    /// True if INVLPG brings everything up to date that decides about an address.
    pub fn invalidation_is_exact(&self) -> bool {
        self.mode() != GuestMode::Pae || self.keeps_pointers
    }

    /// Writes control registers: those of a random mode and with random switches.
    pub fn write_control(&mut self, guest: &Guest<'_>, mmu: &ShadowMmu, dice: &mut Dice) {
        let mode = dice.pick(guest.modes());
        let mut on = |value: u64| if dice.one_in(2) { value } else { 0 };
        let (paging, extension, long) = match mode {
            GuestMode::Unpaged => (0, on(cr4::PAE), 0),
            GuestMode::Legacy { large_pages: false } if !guest.large_direct => (cr0::PG, 0, 0),
            GuestMode::Legacy { .. } => (cr0::PG, cr4::PSE, 0),
            GuestMode::Pae => (cr0::PG, cr4::PAE | on(cr4::PSE), 0),
            GuestMode::Long => (cr0::PG, cr4::PAE | on(cr4::PSE), efer::LME | efer::LMA),
        };
        self.space.control = ControlRegisters {
            cr0: cr0::PE | paging | on(cr0::WP),
            cr2: 0,
            cr3: 0,
            cr4: extension | on(cr4::SMEP) | on(cr4::SMAP) | on(cr4::PGE),
            efer: long | on(efer::NXE),
        };
        self.load_cr3(guest, mmu, dice);
    }

    /// Loads CR3.
    pub fn load_cr3(&mut self, guest: &Guest<'_>, mmu: &ShadowMmu, dice: &mut Dice) {
        let cr3 = Guest::root(self.mode(), dice);
        self.space.control.cr3 = cr3;
        let loads = self.keeps_pointers && self.mode() == GuestMode::Pae;
        self.loaded_pointers = self.pointers(guest);
        self.space.page_directory_pointers = loads.then_some(self.loaded_pointers);
        let root = mmu.load_root(self.number, guest.memory, &self.space).unwrap();
        self.set_root(root);
    }

    fn pointers(&self, guest: &Guest<'_>) -> [u64; 4] {
        let at = |slot: u64| GuestPhysAddr::new(self.space.control.cr3 + slot * 8);
        [0, 1, 2, 3].map(|slot| guest.memory.read_u64(at(slot)).unwrap())
    }

    /// True if what CR3 leads to is as it was when it was loaded. Pointers of PAE paging that are
    /// also entries of a page table change when these are marked as used.
    pub fn root_is_as_loaded(&self, guest: &Guest<'_>) -> bool {
        self.invalidation_is_exact() || self.pointers(guest) == self.loaded_pointers
    }

    fn set_root(&mut self, root: HostPhysAddr) {
        if core::mem::replace(&mut self.root, root) != root {
            self.tlb.clear();
        }
    }

    /// INVLPG. The CPU's own is intercepted, so its TLB is as before.
    pub fn invalidate(&mut self, guest: &Guest<'_>, mmu: &ShadowMmu, address: u64) {
        mmu.invalidate(self.number, guest.memory, address).unwrap();
    }

    /// Goes inside and looks the address up, as the hardware does.
    fn look_up(&mut self, mmu: &ShadowMmu, address: u64) -> Option<Translated> {
        if mmu.enter(self.number) {
            self.tlb.clear();
        }
        let tables = mmu.mmu.lock();
        for (page, cached) in &self.tlb {
            let now = self.walk(&tables, page * PAGE_SIZE);
            let covered = now
                .is_some_and(|now| now.page == cached.page && includes(now.rights, cached.rights));
            assert!(covered, "{page:#x}000 is {now:x?}, and cached without a flush: {cached:x?}");
        }
        let page = address / PAGE_SIZE;
        let found = self.tlb.get(&page).copied().or_else(|| self.walk(&tables, address));
        self.tlb.extend(found.map(|found| (page, found)));
        drop(tables);
        mmu.leave(self.number);
        found
    }

    /// The shadow table that the hardware begins with, or finds by a pointer at the root.
    pub fn top(&self, mmu: &Mmu, address: u64) -> Option<PageHandle> {
        let root = &mmu.roots[self.number as usize];
        assert_eq!(root.address(), self.root, "the CPU uses another root than the MMU believes");
        let pointer = root.pointer((address >> 30) as usize & 3);
        match self.mode() {
            GuestMode::Long => table_at(mmu, self.root),
            _ if pointer.is_present() => Some(table_at(mmu, pointer.address()).unwrap()),
            _ => None,
        }
    }

    /// Walks the shadow tables.
    pub fn walk(&self, mmu: &Mmu, address: u64) -> Option<Translated> {
        let mut handle = self.top(mmu, address)?;
        loop {
            let level = mmu.arena.get(handle).unwrap().role.level;
            let id = mmu.arena.entry_id(handle, level.index(address)).unwrap();
            let entry = mmu.arena.read(id).unwrap();
            if !entry.is_present() {
                return None;
            }
            if level == Level::One || entry.0 & LARGE != 0 {
                return Some(translated(entry, level, address));
            }
            handle = table_at(mmu, entry.address()).expect("entries lead to tables that exist");
        }
    }

    /// True if the hardware lets the access through: it always runs with CR0.WP and EFER.NXE set.
    pub fn allows(&self, rights: Rights, access: Access) -> bool {
        let control = &self.space.control;
        let is_on = |bit| control.cr0 & cr0::PG != 0 && control.cr4 & bit != 0;
        let explicit = access.privilege == Privilege::Supervisor;
        let by_privilege = match access.kind {
            _ if access.privilege == Privilege::User => rights.user,
            _ if !rights.user => true,
            AccessKind::Fetch => !is_on(cr4::SMEP),
            _ => !is_on(cr4::SMAP) || explicit && self.space.alignment_check,
        };
        by_privilege
            && match access.kind {
                AccessKind::Read => true,
                AccessKind::Write => rights.write,
                AccessKind::Fetch => rights.execute,
            }
    }

    /// An access of the guest, and what becomes of it.
    pub fn access(
        &mut self,
        guest: &Guest<'_>,
        mmu: &ShadowMmu,
        dice: &mut Dice,
        (address, access): (u64, Access),
    ) -> (Outcome, bool) {
        for attempt in 0..=MOST_FAULTS {
            let found = self.look_up(mmu, address);
            if let Some(found) = found.filter(|found| self.allows(found.rights, access)) {
                let at = owner(guest.memory, found.page).expect("memory of the guest");
                return (Outcome::Memory(offset(at, address)), false);
            }
            let (action, root) =
                mmu.fault(self.number, guest.memory, &self.space, address, access).unwrap();
            self.set_root(root);
            match action {
                FaultAction::Resume => {}
                FaultAction::Forward(code) => return (Outcome::Fault(code), false),
                FaultAction::Device(at) => return (Outcome::Device(at), false),
                FaultAction::TableWrite(table) if attempt < MOST_RETRIES && dice.one_in(8) => {
                    mmu.unshadow(self.number, table).unwrap();
                }
                FaultAction::TableWrite(_) | FaultAction::Emulate => {
                    return (self.expected(guest, guest.memory, address, access), true);
                }
                FaultAction::NoRoom | FaultAction::UnsupportedMode => panic!("{action:?}"),
            }
        }
        panic!("{access:?} of {address:#x} gets nowhere, with {:x?}", self.space);
    }

    /// What the guest's tables say now; all accessed and dirty bits are set.
    pub fn settled(&self, guest: &Guest<'_>, address: u64, access: Access) -> Outcome {
        self.expected(guest, &Settled(guest.memory), address, access)
    }

    fn expected(
        &self,
        guest: &Guest<'_>,
        memory: &impl PhysicalMemory,
        address: u64,
        access: Access,
    ) -> Outcome {
        match translate(memory, &self.space, GuestVirtAddr::new(address), access) {
            Ok(found) if guest.memory.contains(found.address) => Outcome::Memory(found.address),
            Ok(found) => Outcome::Device(found.address),
            Err(TranslateError::PageFault(code)) => Outcome::Fault(code),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Writes through the direct map.
    pub fn store(
        &mut self,
        guest: &Guest<'_>,
        mmu: &ShadowMmu,
        dice: &mut Dice,
        at: u64,
        value: u64,
    ) {
        let address = Guest::direct_map(self.mode()).wrapping_add(at);
        let access = Access { kind: AccessKind::Write, privilege: Privilege::Supervisor };
        let (outcome, emulated) = self.access(guest, mmu, dice, (address, access));
        let to = GuestPhysAddr::new(at);
        assert_eq!(outcome, Outcome::Memory(to), "{:x?}", self.space);
        let bytes = guest.entries.bytes();
        guest.memory.write(to, &value.to_le_bytes()[..bytes as usize]).unwrap();
        if emulated {
            mmu.wrote(self.number, guest.memory, to, bytes).unwrap();
        }
    }
}

fn table_at(mmu: &Mmu, address: HostPhysAddr) -> Option<PageHandle> {
    let mut tables = (0..mmu.arena.slots()).filter_map(|slot| mmu.arena.in_slot(slot));
    tables.find(|table| mmu.arena.address(*table) == Ok(address))
}

fn translated(entry: ShadowEntry, level: Level, address: u64) -> Translated {
    let offset = if level == Level::One { 0 } else { address % (2 << 20) / PAGE_SIZE * PAGE_SIZE };
    // Bit 12 of an entry that maps a large page is its PAT bit, which shadow entries do not use.
    Translated { page: entry.address().as_u64() + offset, rights: entry.rights() }
}

fn offset(page: GuestPhysAddr, address: u64) -> GuestPhysAddr {
    GuestPhysAddr::new(page.as_u64() + address % PAGE_SIZE)
}

/// The guest's page that lies at `host`, if it is one.
pub fn owner(memory: &GuestMemory, host: u64) -> Option<GuestPhysAddr> {
    memory.regions().iter().find_map(|region| {
        let offset = host.checked_sub(region.host_address().as_u64())?;
        (offset < region.bytes()).then(|| GuestPhysAddr::new(region.start().as_u64() + offset))
    })
}
