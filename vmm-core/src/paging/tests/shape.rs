// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random table shapes: a few tables that lead to each other in every way, or into ROM, or to
//! where nothing is, and accesses through them.

use super::dice::Dice;
use super::memory::Sparse;
use crate::paging::walk::{Access, AccessKind, AddressSpace, PagingFeatures, Privilege};
use crate::state::{ControlRegisters, cr0, cr4, efer};

/// Tables of a shape, at 0x1000, 0x2000, …; the last lies in ROM.
const TABLES: usize = 7;
/// Entries of each table that are filled in; the others do not exist.
const SLOTS: usize = 4;
/// Accesses to each shape.
const ACCESSES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Legacy,
    Pae,
    Long,
}

impl Mode {
    fn levels(self) -> usize {
        match self {
            Self::Legacy => 2,
            Self::Pae => 3,
            Self::Long => 4,
        }
    }

    fn entry_size(self) -> u64 {
        if self == Self::Legacy { 4 } else { 8 }
    }

    /// The entries that are filled in, the same in each table.
    fn slots(self) -> [u64; SLOTS] {
        match self {
            Self::Legacy => [0, 1, 512, 1023],
            Self::Pae => [0, 1, 2, 3],
            Self::Long => [0, 1, 255, 511],
        }
    }
}

/// Tables, control registers, processor model and accesses.
#[derive(Clone, Debug)]
pub struct Shape {
    pub memory: Sparse,
    pub space: AddressSpace,
    /// Address, access, RFLAGS.AC.
    pub accesses: Vec<(u64, Access, bool)>,
}

/// Draws a shape.
pub fn draw(dice: &mut Dice) -> Shape {
    let mode = dice.pick(&[Mode::Legacy, Mode::Pae, Mode::Long]);
    let space = space(dice, mode);
    let accesses = (0..ACCESSES).map(|_| access(dice, mode)).collect();
    Shape { memory: memory(dice, mode), space, accesses }
}

fn space(dice: &mut Dice, mode: Mode) -> AddressSpace {
    let mut on = |value: u64| if dice.one_in(2) { value } else { 0 };
    let paging = match mode {
        Mode::Legacy => (0, 0),
        Mode::Pae => (cr4::PAE, 0),
        Mode::Long => (cr4::PAE, efer::LME | efer::LMA),
    };
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::PG | on(cr0::WP),
        cr2: 0,
        cr3: 0x1000 | on(0x18),
        cr4: paging.0 | on(cr4::PSE) | on(cr4::SMEP) | on(cr4::SMAP) | on(cr4::PGE),
        efer: paging.1 | on(efer::NXE) | on(efer::SCE),
    };
    let features = PagingFeatures {
        physical_address_bits: [32, 36, 39, 40, 48, 52][dice.roll(6) as usize],
        gigabyte_pages: dice.one_in(2),
        table_global_reserved: dice.one_in(2),
    };
    let kept = mode == Mode::Pae && dice.one_in(2);
    let page_directory_pointers = kept.then(|| [(); 4].map(|()| entry(dice, mode, 0)));
    AddressSpace { control, alignment_check: false, features, page_directory_pointers }
}

fn access(dice: &mut Dice, mode: Mode) -> (u64, Access, bool) {
    let mut slot = || mode.slots()[dice.roll(SLOTS as u64) as usize];
    let mut address = match mode {
        Mode::Legacy => slot() << 22 | slot() << 12,
        Mode::Pae => slot() << 30 | slot() << 21 | slot() << 12,
        Mode::Long => (slot() << 39 | slot() << 30 | slot() << 21 | slot() << 12) << 16,
    };
    if mode == Mode::Long {
        address = (address as i64 >> 16) as u64;
        address ^= dice.bit_if(32, 47);
    } else {
        address |= dice.bit_if(4, 32);
    }
    let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Fetch];
    let privileges = [Privilege::User, Privilege::Supervisor, Privilege::ImplicitSupervisor];
    let access =
        Access { kind: kinds[dice.roll(3) as usize], privilege: privileges[dice.roll(3) as usize] };
    (address | dice.roll(0x1000), access, dice.one_in(2))
}

fn memory(dice: &mut Dice, mode: Mode) -> Sparse {
    let rom = TABLES as u64 * 0x1000;
    let memory = Sparse { rom: rom..rom + 0x1000, ..Sparse::default() };
    for table in 0..TABLES {
        for slot in mode.slots() {
            let at = (table as u64 + 1) * 0x1000 + slot * mode.entry_size();
            memory.store(at, mode.entry_size(), entry(dice, mode, table));
        }
    }
    memory
}

/// An entry of a table. Tables are used at every level, but usually the first as the top one, the
/// second below it, and so on.
fn entry(dice: &mut Dice, mode: Mode, table: usize) -> u64 {
    let is_pointer = mode == Mode::Pae && table == 0;
    let level = mode.levels().saturating_sub(table).max(1);
    let large = level > 1 && dice.one_in(4);
    let mut value = 1 ^ dice.bit_if(16, 0);
    if !is_pointer || dice.one_in(8) {
        value |= (2 ^ dice.bit_if(4, 1)) | (4 ^ dice.bit_if(4, 2));
        value |= dice.bit_if(2, 5) | dice.bit_if(2, 6) | dice.bit_if(6, 8);
        value |= u64::from(large) << 7 | dice.bit_if(8, 63);
    }
    value |= dice.roll(4) << 3 | dice.roll(8) << 9;
    // Spoilt by one bit, reserved or not.
    if dice.one_in(6) {
        value |= 1 << dice.roll(64);
    }
    if large && dice.one_in(8) {
        value |= 1 << (12 + dice.roll(10));
    }
    value |= match dice.roll(16) {
        // Anywhere, down to where no memory is.
        0 => dice.roll(1 << 20) << 12,
        // Any of the tables, also upwards and to itself.
        1..=3 => (dice.roll(TABLES as u64) + 1) * 0x1000,
        _ if large => (dice.roll(3) + 1) << 30,
        _ => (table as u64 % (TABLES as u64 - 1) + 2) * 0x1000,
    };
    if mode == Mode::Legacy { value % (1 << 32) } else { value }
}
