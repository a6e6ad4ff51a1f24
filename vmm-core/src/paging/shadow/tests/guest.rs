// SPDX-License-Identifier: MIT OR Apache-2.0
//! The model's guest: its memory, and how it fills its page tables.
//!
//! Like the kernels that there are, it has a direct map: the first 2 MiB of its memory, in which
//! all tables lie, at the top of every address space, in small or in large pages. It changes its
//! tables through it. All else is random: tables lead to each other in every way and are used at
//! every level, though mostly in order, and entries map tables, plain memory, other memory, or
//! where nothing is.

use host_iface::PageRequest;
use host_mock::MockHost;

use crate::{
    GuestPhysAddr, PAGE_SIZE,
    memory::{GuestMemory, OwnedPages},
    paging::{shadow::role::GuestMode, tests::dice::Dice},
};

const PRESENT: u64 = 1;
const TABLE: u64 = 0x27;
/// A page of the direct map: writable, for the supervisor, accessed and dirty.
const DIRECT: u64 = 0x63;
const LARGE: u64 = 1 << 7;

/// What lies in which frame.
const LONG_ROOTS: [u64; 2] = [1, 2];
const DIRECT_POINTERS: u64 = 3;
const DIRECT_DIRECTORY: u64 = 4;
const DIRECT_TABLE: u64 = 5;
const PAE_ROOTS: [u64; 2] = [6, 7];
const LEGACY_ROOTS: [u64; 2] = [8, 9];
const LEGACY_DIRECT_TABLE: u64 = 10;
/// Tables that the guest uses as it likes, those of each level mostly for that one.
const POOL: [u64; 6] = [12, 13, 14, 15, 16, 17];
const LEVEL_THREE: &[u64] = &[12, 13];
const LEVEL_TWO: &[u64] = &[14, 15];
const LEVEL_ONE: &[u64] = &[16, 17];
const DATA: &[u64] = &[20, 21, 22, 23, 24, 25];
/// Frames that the direct map has in small pages.
pub const DIRECT_FRAMES: u64 = 32;

const SMALL_MEMORY: u64 = 4 << 20;
const SMALL_FRAMES: u64 = 8;
const LARGE_MEMORY: u64 = 6 << 20;
const NOTHING: u64 = 10 << 20;

/// Bytes of an entry in the guest's tables; a guest keeps to one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entries {
    Four,
    Eight,
}

impl Entries {
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Entries of the guest's tables that are used, the same at all levels.
    pub const fn slots(self) -> [u64; 3] {
        match self {
            Self::Four => [0, 1, 1023],
            Self::Eight => [0, 1, 511],
        }
    }

    /// Modes of paging with such entries.
    const fn modes(self) -> &'static [GuestMode] {
        match self {
            Self::Four => &[
                GuestMode::Legacy { large_pages: true },
                GuestMode::Legacy { large_pages: false },
                GuestMode::Unpaged,
            ],
            Self::Eight => &[GuestMode::Long, GuestMode::Pae, GuestMode::Unpaged],
        }
    }
}

/// Frames that entries of a table mostly lead to.
fn below(table: u64) -> &'static [u64] {
    match table {
        _ if LONG_ROOTS.contains(&table) => LEVEL_THREE,
        _ if LEVEL_THREE.contains(&table) => LEVEL_TWO,
        _ if LEVEL_TWO.contains(&table) || LEGACY_ROOTS.contains(&table) => LEVEL_ONE,
        _ => DATA,
    }
}

/// What the guest owns.
pub fn memory(host: &'static MockHost) -> GuestMemory {
    let mut memory = GuestMemory::new();
    let large = 2 << 20;
    for (start, pages, alignment) in
        [(0, 512, large), (SMALL_MEMORY, SMALL_FRAMES, PAGE_SIZE), (LARGE_MEMORY, 512, large)]
    {
        let request = PageRequest::contiguous(pages).aligned_to(alignment);
        let pages = OwnedPages::zeroed(host, request).unwrap();
        memory.add(GuestPhysAddr::new(start), pages).unwrap();
    }
    memory
}

/// A guest with its direct map.
pub struct Guest<'a> {
    pub memory: &'a GuestMemory,
    pub entries: Entries,
    /// The direct map uses a large page.
    pub large_direct: bool,
    /// The pointers of PAE paging are loaded with CR3, which refuses reserved bits in them.
    keeps_pointers: bool,
    /// It keeps to the mode with most levels, and its tables lead to each other in order, as those
    /// of the kernels that there are: so several roots share tables of all levels.
    orderly: bool,
}

impl<'a> Guest<'a> {
    pub fn new(
        memory: &'a GuestMemory,
        entries: Entries,
        keeps_pointers: bool,
        dice: &mut Dice,
    ) -> Self {
        for frame in 0..DIRECT_FRAMES {
            let empty = [0; PAGE_SIZE as usize];
            memory.write(GuestPhysAddr::new(frame * PAGE_SIZE), &empty).unwrap();
        }
        let (large_direct, orderly) = (dice.one_in(2), dice.one_in(2));
        let guest = Self { memory, entries, large_direct, keeps_pointers, orderly };
        guest.make_direct_map();
        let tables: &[_] = match entries {
            Entries::Four => &[LEGACY_ROOTS],
            Entries::Eight => &[LONG_ROOTS, PAE_ROOTS],
        };
        for table in tables.concat().into_iter().chain(POOL) {
            for slot in guest.free_slots(table) {
                guest.put(table, slot, guest.entry(table, dice));
            }
        }
        guest
    }

    fn put(&self, frame: u64, slot: u64, value: u64) {
        let at = GuestPhysAddr::new(frame * PAGE_SIZE + slot * self.entries.bytes());
        match self.entries {
            Entries::Four => self.memory.write_u32(at, value as u32).unwrap(),
            Entries::Eight => self.memory.write_u64(at, value).unwrap(),
        }
    }

    fn make_direct_map(&self) {
        let table = |frame: u64| (frame * PAGE_SIZE) | TABLE;
        let (table_frame, above): (_, &[(u64, u64, u64)]) = match self.entries {
            Entries::Four => (LEGACY_DIRECT_TABLE, &[]),
            Entries::Eight => (
                DIRECT_TABLE,
                &[
                    (LONG_ROOTS[0], 511, table(DIRECT_POINTERS)),
                    (LONG_ROOTS[1], 511, table(DIRECT_POINTERS)),
                    (DIRECT_POINTERS, 511, table(DIRECT_DIRECTORY)),
                    (PAE_ROOTS[0], 3, (DIRECT_DIRECTORY * PAGE_SIZE) | PRESENT),
                    (PAE_ROOTS[1], 3, (DIRECT_DIRECTORY * PAGE_SIZE) | PRESENT),
                ],
            ),
        };
        for &(frame, slot, value) in above {
            self.put(frame, slot, value);
        }
        let last = if self.large_direct { DIRECT | LARGE } else { table(table_frame) };
        match self.entries {
            Entries::Four => LEGACY_ROOTS.iter().for_each(|root| self.put(*root, 1023, last)),
            Entries::Eight => self.put(DIRECT_DIRECTORY, 511, last),
        }
        for frame in 0..DIRECT_FRAMES {
            self.put(table_frame, frame, (frame * PAGE_SIZE) | DIRECT);
        }
    }

    /// Where the direct map begins.
    pub const fn direct_map(mode: GuestMode) -> u64 {
        match mode {
            GuestMode::Unpaged => 0,
            GuestMode::Legacy { .. } => 0xFFC0_0000,
            GuestMode::Pae => 0xFFE0_0000,
            GuestMode::Long => 0xFFFF_FFFF_FFE0_0000,
        }
    }

    /// Modes of paging that this guest uses.
    pub fn modes(&self) -> &'static [GuestMode] {
        let modes = self.entries.modes();
        if self.orderly { &modes[..1] } else { modes }
    }

    /// A value for CR3.
    pub fn root(mode: GuestMode, dice: &mut Dice) -> u64 {
        let frame = match mode {
            GuestMode::Long => dice.pick(&LONG_ROOTS),
            GuestMode::Pae => dice.pick(&PAE_ROOTS),
            GuestMode::Legacy { .. } | GuestMode::Unpaged => dice.pick(&LEGACY_ROOTS),
        };
        frame * PAGE_SIZE
    }

    /// A table that the guest may change.
    pub fn table(&self, dice: &mut Dice) -> u64 {
        let roots: &[u64] = match self.entries {
            Entries::Four => &LEGACY_ROOTS,
            Entries::Eight => &[LONG_ROOTS[0], LONG_ROOTS[1], PAE_ROOTS[0], PAE_ROOTS[1]],
        };
        if dice.one_in(4) { dice.pick(roots) } else { dice.pick(&POOL) }
    }

    /// Entries of that table that are not the direct map's.
    pub fn free_slots(&self, table: u64) -> Vec<u64> {
        if PAE_ROOTS.contains(&table) {
            return vec![0, 1, 2];
        }
        let roots = LONG_ROOTS.contains(&table) || LEGACY_ROOTS.contains(&table);
        let [first, second, last] = self.entries.slots();
        if roots { vec![first, second] } else { vec![first, second, last] }
    }

    /// The page table of the guest, and the entry in it, that decides about `address` below
    /// `root`; none if there is none of those that the guest uses as it likes.
    pub fn last_entry(&self, mode: GuestMode, root: u64, address: u64) -> Option<(u64, u64)> {
        let (levels, index_bits) = match mode {
            GuestMode::Unpaged => return None,
            GuestMode::Legacy { .. } => (2, 10),
            GuestMode::Pae => (3, 9),
            GuestMode::Long => (4, 9),
        };
        let slot = |level: u32| (address >> (12 + index_bits * level)) % (1 << index_bits);
        let mut table = root / PAGE_SIZE;
        for level in (1..levels).rev() {
            let at = GuestPhysAddr::new(table * PAGE_SIZE + slot(level) * self.entries.bytes());
            let entry = match self.entries {
                Entries::Four => self.memory.read_u32(at).map(u64::from),
                Entries::Eight => self.memory.read_u64(at),
            };
            table = entry.ok().filter(|entry| entry & PRESENT != 0)? / PAGE_SIZE;
        }
        let usable = POOL.contains(&table) && self.free_slots(table).contains(&slot(0));
        usable.then_some((table, slot(0)))
    }

    /// Another address that the page table of `address` decides about.
    pub fn neighbour(&self, address: u64, dice: &mut Dice) -> u64 {
        let index = self.entries.slots()[2] * PAGE_SIZE;
        (address & !index) | (dice.pick(&self.entries.slots()) * PAGE_SIZE)
    }

    /// A new entry for `table`.
    pub fn entry(&self, table: u64, dice: &mut Dice) -> u64 {
        if dice.one_in(6) {
            return 0;
        }
        if PAE_ROOTS.contains(&table) {
            let spoilt = !self.keeps_pointers && dice.one_in(6);
            let reserved = if spoilt { 1 << dice.roll(64) } else { 0 };
            return (dice.pick(LEVEL_TWO) * PAGE_SIZE) ^ PRESENT ^ reserved;
        }
        let mut value = PRESENT | (2 ^ dice.bit_if(4, 1)) | (4 ^ dice.bit_if(4, 2));
        value |= dice.bit_if(2, 5) | dice.bit_if(2, 6) | dice.bit_if(8, 8);
        value |= dice.bit_if(10, 63) | dice.bit_if(24, 0);
        let target = if self.orderly { 0 } else { dice.roll(16) };
        value |= match target {
            0..=9 => dice.pick(below(table)) * PAGE_SIZE,
            10 => dice.pick(DATA) * PAGE_SIZE,
            11 => self.table(dice) * PAGE_SIZE,
            12 => SMALL_MEMORY + dice.roll(SMALL_FRAMES) * PAGE_SIZE,
            13 => LARGE_MEMORY | LARGE,
            14 => dice.bit_if(2, 22) | LARGE,
            _ => NOTHING + dice.roll(4) * PAGE_SIZE,
        };
        // Spoilt by one bit, reserved or not.
        value ^= if !self.orderly && dice.one_in(12) { 1 << dice.roll(64) } else { 0 };
        if self.entries == Entries::Four { value % (1 << 32) } else { value }
    }

    /// An address that may be translated.
    pub fn address(&self, mode: GuestMode, dice: &mut Dice) -> u64 {
        let slots = self.entries.slots();
        let page = match mode {
            GuestMode::Unpaged => match dice.roll(4) {
                0 | 1 => dice.roll(DIRECT_FRAMES) * PAGE_SIZE,
                2 => SMALL_MEMORY + dice.roll(SMALL_FRAMES + 1) * PAGE_SIZE,
                _ => dice.pick(&[LARGE_MEMORY, LARGE_MEMORY + PAGE_SIZE, NOTHING]),
            },
            GuestMode::Legacy { .. } => dice.pick(&slots) << 22 | dice.pick(&slots) << 12,
            GuestMode::Pae => {
                dice.roll(4) << 30 | dice.pick(&slots) << 21 | dice.pick(&slots) << 12
            }
            GuestMode::Long => {
                let mut indexes = || dice.pick(&slots);
                let low = indexes() << 39 | indexes() << 30 | indexes() << 21 | indexes() << 12;
                ((low << 16) as i64 >> 16) as u64
            }
        };
        page | (dice.roll(PAGE_SIZE / 8) * 8)
    }
}
