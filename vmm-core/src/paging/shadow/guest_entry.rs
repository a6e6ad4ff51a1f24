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
    paging::walk::{
        AddressSpace, Mode, PagingFeatures, PhysicalMemory, Rights,
        rules::{Architecture, Rules},
    },
    state::{ControlRegisters, cr4, efer},
};

const PRESENT: u64 = 1 << 0;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const GLOBAL: u64 = 1 << 8;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Bits 20 to 13 of an entry that maps 4 MiB are address bits 39 to 32.
const PSE_HIGH: u64 = 0x001F_E000;

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
pub fn meaning(
    memory: &GuestMemory,
    features: PagingFeatures,
    page: &ShadowPage,
    index: usize,
) -> Option<Meaning> {
    match page.role.source {
        Source::Linear { dirty } => Some(Meaning::Memory(linear(page, dirty, index))),
        Source::Legacy { part, .. } => legacy(memory, features, page, part, index),
        Source::Pae | Source::Long => wide(memory, features, page, index),
    }
}

/// Whether a walk passes an entry with this `value`, and whether it maps a page then: by the
/// page walker's own rules.
fn judge(role: &Role, features: PagingFeatures, value: u64) -> Option<bool> {
    let (mode, cr4) = match role.source {
        Source::Linear { .. } => return None,
        Source::Legacy { large_pages: true, .. } => (Mode::Legacy32, cr4::PSE),
        Source::Legacy { large_pages: false, .. } => (Mode::Legacy32, 0),
        Source::Pae => (Mode::Pae, cr4::PAE),
        Source::Long => (Mode::FourLevel, cr4::PAE),
    };
    let efer = if role.switches.no_execute { efer::NXE } else { 0 };
    let control = ControlRegisters { cr4, efer, ..ControlRegisters::default() };
    let (alignment_check, page_directory_pointers) = (false, None);
    let space = AddressSpace { control, alignment_check, features, page_directory_pointers };
    let level = role.level.number();
    let legal = value & Architecture::reserved(&space, mode, level, value) == 0;
    let used = value & (PRESENT | ACCESSED) == PRESENT | ACCESSED;
    (used && legal).then(|| Architecture::maps_page(&space, mode, level, value))
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

/// Entries of eight bytes.
fn wide(
    memory: &GuestMemory,
    features: PagingFeatures,
    page: &ShadowPage,
    index: usize,
) -> Option<Meaning> {
    let role = &page.role;
    let at = page.gfn.address().checked_add(index as u64 * 8)?;
    let value = PhysicalMemory::read_u64(memory, at).ok()?;
    if !judge(role, features, value)? {
        return table(role, value & ADDRESS, value, role.source);
    }
    let gfn = Gfn::of(GuestPhysAddr::new(value & ADDRESS)).0 & !(role.level.entry_frames() - 1);
    Some(Meaning::Memory(mapped(role, Gfn(gfn), value)))
}

/// Entries of four bytes.
fn legacy(
    memory: &GuestMemory,
    features: PagingFeatures,
    page: &ShadowPage,
    part: u8,
    index: usize,
) -> Option<Meaning> {
    let role = &page.role;
    let (index, part) = (index as u64, u64::from(part));
    let number = if role.level == Level::One { part * 512 + index } else { part * 256 + index / 2 };
    let at = page.gfn.address().checked_add(number * 4)?;
    let value = u64::from(PhysicalMemory::read_u32(memory, at).ok()?);
    let maps_page = judge(role, features, value)?;
    let address = value & 0xFFFF_F000;
    let half = index & 1;
    if role.level == Level::One {
        let gfn = Gfn::of(GuestPhysAddr::new(address));
        return Some(Meaning::Memory(mapped(role, gfn, value)));
    }
    if maps_page {
        let address = value & 0xFFC0_0000 | (value & PSE_HIGH) << 19;
        let gfn = Gfn::of(GuestPhysAddr::new(address)).0 + half * LARGE_FRAMES;
        return Some(Meaning::Memory(mapped(role, Gfn(gfn), value)));
    }
    let source = match role.source {
        Source::Legacy { large_pages, .. } => Source::Legacy { part: half as u8, large_pages },
        other => other,
    };
    table(role, address, value, source)
}

fn table(role: &Role, address: u64, value: u64, source: Source) -> Option<Meaning> {
    let rights = Architecture::combine(role.rights, value);
    let child = Role { level: role.level.below()?, source, rights, switches: role.switches };
    Some(Meaning::Table(Gfn::of(GuestPhysAddr::new(address)), child))
}

fn mapped(role: &Role, gfn: Gfn, value: u64) -> Piece {
    Piece {
        gfn,
        rights: Architecture::combine(role.rights, value),
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

    const FEATURES: PagingFeatures = PagingFeatures {
        physical_address_bits: 40,
        gigabyte_pages: true,
        table_global_reserved: true,
    };

    fn page(level: Level, source: Source) -> ShadowPage {
        let role = Role { level, source, rights: ALL_RIGHTS, switches: SWITCHES };
        ShadowPage::new(Gfn(1), role)
    }

    fn long(level: Level, value: u64) -> Option<Meaning> {
        let memory = memory();
        memory.write_u64(GuestPhysAddr::new(0x1018), value).unwrap();
        meaning(&memory, FEATURES, &page(level, Source::Long), 3)
    }

    #[test]
    fn only_used_and_legal_entries_say_anything() {
        for value in [0, 0x5001, 0x5020, 0x50A1, 0x5121, 1 << 40 | 0x5021] {
            assert_eq!(long(Level::Three, value), None, "{value:#x}");
        }
        assert_eq!(long(Level::Two, 0x20_20A1), None, "a reserved address bit");
        let Some(Meaning::Table(gfn, role)) = long(Level::Three, 1 << 63 | 0x5027) else {
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
        let Some(Meaning::Table(gfn, role)) = meaning(&memory, FEATURES, &directory, 2 * 44 + 1)
        else {
            panic!("a table")
        };
        assert_eq!((gfn, role.source), (Gfn(9), source));
        let table = page(Level::One, Source::Legacy { part: 0, large_pages: true });
        assert!(
            matches!(meaning(&memory, FEATURES, &table, 300), Some(Meaning::Memory(p)) if p.gfn == Gfn(9))
        );
        memory.write_u32(GuestPhysAddr::new(0x1000 + 4 * 300), 0x0080_20A3).unwrap();
        let upper = meaning(&memory, FEATURES, &directory, 2 * 44 + 1);
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
