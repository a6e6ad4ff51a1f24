// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an entry of a guest table says, by the guest's format.
//!
//! A shadow entry is made, and stays, only for a guest entry that a walk has passed: one that is
//! present and accessed and breaks no rule of its format. Everything else says nothing here; the
//! walker alone decides about faults. Another CPU may change an entry between the walk and the
//! look at it, so the rules are applied again.

use super::{
    arena::ShadowPage,
    role::{Gfn, LARGE_FRAMES, Level, Role, Source},
};
use crate::{
    GuestPhysAddr,
    memory::GuestMemory,
    paging::walk::{PhysicalMemory, Rights},
};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Bits 62 to 52, which PAE paging reserves.
const PAE_RESERVED: u64 = 0x7FF0_0000_0000_0000;
/// Address bits 20 to 13 of an entry that maps 2 MiB; bit 12 is its PAT bit.
const BELOW_2M: u64 = 0x001F_E000;
/// Address bits 29 to 13 of an entry that maps 1 GiB.
const BELOW_1G: u64 = 0x3FFF_E000;
/// Bits 20 to 13 of an entry that maps 4 MiB are address bits 39 to 32.
const PSE_HIGH: u64 = 0x001F_E000;
const PSE_RESERVED: u64 = 1 << 21;

/// A piece of guest memory that is mapped: as much as one entry of the shadow table covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its first frame.
    pub gfn: Gfn,
    /// Rights of all levels combined.
    pub rights: Rights,
    /// The guest's dirty bit.
    pub dirty: bool,
    /// The guest's global bit.
    pub global: bool,
}

/// What an entry of a shadow table is to lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The shadow of another table of the guest.
    Table(Gfn, Role),
    /// A piece of memory.
    Memory(Piece),
}

/// Reads what entry `index` of the shadow table `page` stands for; none if the guest's entry
/// says nothing.
pub fn meaning(memory: &GuestMemory, page: &ShadowPage, index: usize) -> Option<Meaning> {
    match page.role.source {
        Source::Linear { dirty } => Some(Meaning::Memory(linear(page, dirty, index))),
        Source::Legacy { part, large_pages } => legacy(memory, page, part, large_pages, index),
        Source::Pae | Source::Long => wide(memory, page, index),
    }
}

/// The first and last entries of `page` that depend on the bytes from `first` to `last` of the
/// guest's table; none if none does.
pub fn affected(role: &Role, first: u64, last: u64) -> Option<(usize, usize)> {
    let (first, last) = match role.source {
        Source::Linear { .. } => return None,
        Source::Pae | Source::Long => (first / 8, last / 8),
        Source::Legacy { part, .. } => {
            // Each shadow table has its part of the guest's entries; in a directory two shadow
            // entries belong to each.
            let (entries, each) = if role.level == Level::One { (512, 1) } else { (256, 2) };
            let from = u64::from(part) * entries;
            let (first, last) = (first / 4, last / 4);
            if last < from || first >= from + entries {
                return None;
            }
            let (first, last) = (first.saturating_sub(from), (last - from).min(entries - 1));
            (first * each, last * each + each - 1)
        }
    };
    Some((first as usize, last as usize))
}

fn linear(page: &ShadowPage, dirty: bool, index: usize) -> Piece {
    let gfn = Gfn(page.gfn.0.wrapping_add(index as u64 * page.role.level.entry_frames()));
    Piece { gfn, rights: page.role.rights, dirty, global: false }
}

fn combined(above: Rights, value: u64) -> Rights {
    Rights {
        write: above.write && value & WRITE != 0,
        user: above.user && value & USER != 0,
        execute: above.execute && value & NO_EXECUTE == 0,
    }
}

const fn is_used(value: u64) -> bool {
    value & (PRESENT | ACCESSED) == PRESENT | ACCESSED
}

/// Entries of eight bytes.
fn wide(memory: &GuestMemory, page: &ShadowPage, index: usize) -> Option<Meaning> {
    let role = &page.role;
    let at = page.gfn.address().checked_add(index as u64 * 8)?;
    let value = PhysicalMemory::read_u64(memory, at).ok()?;
    let reserved = if role.source == Source::Pae { PAE_RESERVED } else { 0 };
    let reserved = if role.switches.no_execute { reserved } else { reserved | NO_EXECUTE };
    if !is_used(value) || value & reserved != 0 {
        return None;
    }
    let large = value & LARGE != 0;
    let frames = match role.level {
        Level::One => 1,
        Level::Two if large && value & BELOW_2M == 0 => LARGE_FRAMES,
        Level::Three if large && value & BELOW_1G == 0 => LARGE_FRAMES * LARGE_FRAMES,
        _ if large => return None,
        _ => return table(role, value & ADDRESS, value, role.source),
    };
    let gfn = Gfn::of(GuestPhysAddr::new(value & ADDRESS)).0 & !(frames - 1);
    Some(Meaning::Memory(mapped(role, Gfn(gfn), value)))
}

/// Entries of four bytes.
fn legacy(
    memory: &GuestMemory,
    page: &ShadowPage,
    part: u8,
    large_pages: bool,
    index: usize,
) -> Option<Meaning> {
    let role = &page.role;
    let (index, part) = (index as u64, u64::from(part));
    let number = if role.level == Level::One { part * 512 + index } else { part * 256 + index / 2 };
    let at = page.gfn.address().checked_add(number * 4)?;
    let value = u64::from(PhysicalMemory::read_u32(memory, at).ok()?);
    if !is_used(value) {
        return None;
    }
    let address = value & 0xFFFF_F000;
    let half = index & 1;
    if role.level == Level::One {
        let gfn = Gfn::of(GuestPhysAddr::new(address));
        return Some(Meaning::Memory(mapped(role, gfn, value)));
    }
    if large_pages && value & LARGE != 0 {
        let address = value & 0xFFC0_0000 | (value & PSE_HIGH) << 19;
        let gfn = Gfn::of(GuestPhysAddr::new(address)).0 + half * LARGE_FRAMES;
        let piece = mapped(role, Gfn(gfn), value);
        return (value & PSE_RESERVED == 0).then_some(Meaning::Memory(piece));
    }
    table(role, address, value, Source::Legacy { part: half as u8, large_pages })
}

fn table(role: &Role, address: u64, value: u64, source: Source) -> Option<Meaning> {
    let rights = combined(role.rights, value);
    let child = Role { level: role.level.below()?, source, rights, switches: role.switches };
    Some(Meaning::Table(Gfn::of(GuestPhysAddr::new(address)), child))
}

fn mapped(role: &Role, gfn: Gfn, value: u64) -> Piece {
    Piece {
        gfn,
        rights: combined(role.rights, value),
        dirty: value & DIRTY != 0,
        global: value & GLOBAL != 0,
    }
}

/// The role of the linear table that maps `piece` in smaller pages, below `role`.
pub fn split(role: &Role, piece: &Piece) -> Option<Role> {
    let source = Source::Linear { dirty: piece.dirty };
    let level = role.level.below()?;
    Some(Role { level, source, rights: piece.rights, switches: role.switches })
}

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::{
        super::role::{ALL_RIGHTS, Switches},
        *,
    };
    use crate::memory::OwnedPages;

    const SWITCHES: Switches =
        Switches { write_protect: true, no_execute: true, smep: false, smap: false };

    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::new();
        let pages = OwnedPages::zeroed(MockHost::leak(1), PageRequest::contiguous(16)).unwrap();
        memory.add(GuestPhysAddr::new(0), pages).unwrap();
        memory
    }

    fn page(level: Level, source: Source) -> ShadowPage {
        let role = Role { level, source, rights: ALL_RIGHTS, switches: SWITCHES };
        ShadowPage::new(Gfn(1), role)
    }

    fn long(level: Level, value: u64) -> Option<Meaning> {
        let memory = memory();
        memory.write_u64(GuestPhysAddr::new(0x1018), value).unwrap();
        meaning(&memory, &page(level, Source::Long), 3)
    }

    #[test]
    fn only_used_and_legal_entries_say_anything() {
        for value in [0, 0x5001, 0x5020, 0x50A1] {
            assert_eq!(long(Level::Three, value), None, "{value:#x}");
        }
        assert_eq!(long(Level::Two, 0x20_20A1), None, "a reserved address bit");
        let Some(Meaning::Table(gfn, role)) = long(Level::Three, NO_EXECUTE | 0x5027) else {
            panic!("a table")
        };
        assert_eq!((gfn, role.level, role.rights.execute), (Gfn(5), Level::Two, false));
        let Some(Meaning::Memory(piece)) = long(Level::Two, 0x20_11E3) else { panic!("a page") };
        assert_eq!((piece.gfn, piece.dirty, piece.global), (Gfn(0x200), true, true));
        assert_eq!(piece.rights, Rights { user: false, ..ALL_RIGHTS });
    }

    #[test]
    fn tables_of_32_bits_are_shadowed_in_parts() {
        let memory = memory();
        memory.write_u32(GuestPhysAddr::new(0x1000 + 4 * 300), 0x9027).unwrap();
        let source = Source::Legacy { part: 1, large_pages: true };
        let directory = page(Level::Two, source);
        let Some(Meaning::Table(gfn, role)) = meaning(&memory, &directory, 2 * 44 + 1) else {
            panic!("a table")
        };
        assert_eq!((gfn, role.source), (Gfn(9), source));
        let table = page(Level::One, Source::Legacy { part: 0, large_pages: true });
        assert!(
            matches!(meaning(&memory, &table, 300), Some(Meaning::Memory(p)) if p.gfn == Gfn(9))
        );
        memory.write_u32(GuestPhysAddr::new(0x1000 + 4 * 300), 0x0080_20A3).unwrap();
        let upper = meaning(&memory, &directory, 2 * 44 + 1);
        assert!(matches!(upper, Some(Meaning::Memory(p)) if p.gfn == Gfn(0x10_0A00)));
    }

    #[test]
    fn writes_affect_the_entries_they_touch() {
        let role = |level, source| Role { level, source, rights: ALL_RIGHTS, switches: SWITCHES };
        let long = role(Level::One, Source::Long);
        assert_eq!(affected(&long, 8, 15), Some((1, 1)));
        assert_eq!(affected(&long, 4, 8), Some((0, 1)));
        let part = |part| Source::Legacy { part, large_pages: false };
        let (first, second) = (role(Level::One, part(0)), role(Level::One, part(1)));
        assert_eq!((affected(&first, 4, 7), affected(&second, 4, 7)), (Some((1, 1)), None));
        assert_eq!(affected(&second, 2044, 2055), Some((0, 1)));
        assert_eq!(affected(&first, 2044, 2055), Some((511, 511)));
        let directory = role(Level::Two, part(3));
        assert_eq!(affected(&directory, 4095, 4095), Some((510, 511)));
        assert_eq!(affected(&role(Level::Two, Source::Linear { dirty: true }), 0, 7), None);
    }
}
