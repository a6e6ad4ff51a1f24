// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random tables.

use super::dice::Dice;
use super::tables::{self, COUNT, DATA, DATA_SIZE, LARGE};
use super::{Mode, Model};
use crate::rt::paging::{NO_EXECUTE, PAGE, PRESENT, UNOWNED, USER, WRITABLE};

/// Entries of the top table that accesses use; the first maps this program.
pub fn top_slots(mode: Mode) -> &'static [usize] {
    match mode {
        Mode::Legacy => &[1, 2, 512, 1023],
        Mode::Pae => &[1, 2, 3],
        Mode::Long => &[1, 2, 255, 511],
    }
}

/// Entries of the tables below that accesses use. The first two keep within the filled memory what
/// a page of 1 GiB at address 0 maps, the others lead to where no memory is.
pub fn slots(mode: Mode) -> &'static [usize] {
    match mode {
        Mode::Legacy => &[16, 17, 512, 1023],
        Mode::Pae | Mode::Long => &[16, 17, 255, 511],
    }
}

/// All entries in use of each table: any table may be walked as any other.
pub fn used(mode: Mode) -> impl Iterator<Item = (usize, usize)> {
    let own = top_slots(mode).iter().filter(move |slot| !slots(mode).contains(slot));
    let of_each = own.chain(slots(mode));
    (0..COUNT).flat_map(move |table| of_each.clone().map(move |&slot| (table, slot)))
}

/// Fills all tables anew.
pub fn build(dice: &mut Dice, mode: Mode, model: &Model) {
    for (table, slot) in used(mode) {
        tables::set(mode, table, slot, entry(dice, mode, model, table));
    }
}

/// An entry. Tables are used at every level, but usually the first as the top one, the second
/// below it, and so on.
fn entry(dice: &mut Dice, mode: Mode, model: &Model, table: usize) -> u64 {
    const ACCESSED: u32 = 5;
    const DIRTY: u32 = 6;
    const GLOBAL: u32 = 8;
    let level = mode.levels().saturating_sub(table).max(1);
    let pointer = mode == Mode::Pae && level == 3;
    let large = level > 1 && !pointer && dice.one_in(4);
    let mut value = PRESENT ^ dice.bit(24, 0);
    if !pointer || dice.one_in(8) {
        value |= (WRITABLE ^ dice.bit(6, 1)) | (USER ^ dice.bit(8, 2));
        value |= dice.bit(3, ACCESSED) | dice.bit(3, DIRTY) | dice.bit(6, GLOBAL);
        // In the last table this is a bit of the page's attributes.
        value |= if large || level == 1 && dice.one_in(4) { LARGE } else { 0 };
        value |= if dice.one_in(16) { NO_EXECUTE } else { 0 };
    }
    value |= dice.roll(4) << 3 | dice.roll(8) << 9;
    // Spoilt by one bit, reserved or not.
    if dice.one_in(12) {
        value |= 1 << dice.roll(64);
    }
    if large && dice.one_in(8) {
        value |= 1 << (12 + dice.roll(10));
    }
    value |= target(dice, mode, table, large, level);
    if pointer && model.tcg {
        value &= !0x1E6;
    }
    if pointer && !model.keeps_pointers {
        // The walker lets the bit through for QEMU's sake, other CPUs do not.
        value &= !(1 << ACCESSED);
    }
    if mode == Mode::Long && model.ignores_table_global && value & LARGE == 0 {
        value &= !(1 << GLOBAL);
    }
    if mode == Mode::Legacy { value & 0xFFFF_FFFF } else { value }
}

/// Where an entry leads.
fn target(dice: &mut Dice, mode: Mode, table: usize, large: bool, level: usize) -> u64 {
    const NOWHERE: [u64; 4] = [0x1000_0000, 0x4000_0000, UNOWNED, 1 << 36];
    let is_last = table + 1 >= mode.levels();
    match dice.roll(16) {
        0 => dice.pick(&NOWHERE).unwrap_or_default(),
        1 | 2 => tables::address(dice.roll(COUNT as u64) as usize),
        _ if large && level == 3 => dice.roll(2) << 30,
        _ if large && mode == Mode::Legacy => DATA,
        _ if large => DATA + (dice.roll(2) << 21),
        _ if is_last => DATA + dice.roll(DATA_SIZE / PAGE) * PAGE,
        _ => tables::address(table + 1),
    }
}
