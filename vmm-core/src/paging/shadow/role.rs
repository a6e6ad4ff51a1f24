// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a shadow table stands for.
//!
//! Two shadow tables are interchangeable exactly if they shadow the same guest-physical frame in
//! the same role. Everything that decides what a shadow entry may say is part of the role, so
//! that no table is ever used for what it was not made for.

use crate::{
    GuestPhysAddr, PAGE_SIZE,
    paging::walk::Rights,
    state::{ControlRegisters, cr0, cr4, efer},
};

/// Number of a guest-physical 4 KiB frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gfn(pub u64);

impl Gfn {
    /// The frame that holds `address`.
    pub const fn of(address: GuestPhysAddr) -> Self {
        Self(address.as_u64() / PAGE_SIZE)
    }

    /// Address of its first byte.
    pub const fn address(self) -> GuestPhysAddr {
        GuestPhysAddr::new(self.0.wrapping_mul(PAGE_SIZE))
    }

    /// The first frame of the 2 MiB that it lies in.
    pub const fn large_base(self) -> Self {
        Self(self.0 & !(LARGE_FRAMES - 1))
    }
}

/// 4 KiB frames in a 2 MiB page.
pub const LARGE_FRAMES: u64 = 512;

/// Entries of a shadow table.
pub const ENTRIES: usize = 512;

/// Level of a shadow table: the last, whose entries map 4 KiB pages, is [`Level::One`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Page table.
    One,
    /// Page directory.
    Two,
    /// Page-directory-pointer table of 4-level paging.
    Three,
    /// The root of 4-level paging.
    Four,
}

impl Level {
    /// The level below; none below the last.
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::One => None,
            Self::Two => Some(Self::One),
            Self::Three => Some(Self::Two),
            Self::Four => Some(Self::Three),
        }
    }

    /// Its number, as the page walker counts: from the last level, 1, upwards.
    pub const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
        }
    }

    const fn shift(self) -> u32 {
        match self {
            Self::One => 12,
            Self::Two => 21,
            Self::Three => 30,
            Self::Four => 39,
        }
    }

    /// Frames that one entry covers.
    pub const fn entry_frames(self) -> u64 {
        1 << (self.shift() - 12)
    }

    /// The entry that translates `address`.
    pub const fn index(self, address: u64) -> usize {
        (address >> self.shift()) as usize % ENTRIES
    }
}

/// The guest's paging mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestMode {
    /// No paging: linear addresses are guest-physical.
    Unpaged,
    /// 32-bit paging; with CR4.PSE set, entries of the directory may map 4 MiB pages.
    Legacy {
        /// CR4.PSE.
        large_pages: bool,
    },
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Long,
}

impl GuestMode {
    /// The mode that `control` selects.
    pub const fn of(control: &ControlRegisters) -> Self {
        if control.cr0 & cr0::PG == 0 {
            return Self::Unpaged;
        }
        if control.efer & efer::LMA != 0 {
            return Self::Long;
        }
        if control.cr4 & cr4::PAE != 0 {
            return Self::Pae;
        }
        Self::Legacy { large_pages: control.cr4 & cr4::PSE != 0 }
    }
}

/// What a shadow table is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// No guest table: a linear piece of guest-physical memory, as a large guest page or a guest
    /// without paging sees it. `dirty` is the large page's dirty bit.
    Linear {
        /// Writes need no further look at the guest's entry.
        dirty: bool,
    },
    /// A part of a table of 32-bit paging, which has twice as many entries and four times the
    /// reach: a half of a page table, or a quarter of a page directory.
    Legacy {
        /// Which part.
        part: u8,
        /// Entries of the directory may map 4 MiB pages.
        large_pages: bool,
    },
    /// A table of PAE paging.
    Pae,
    /// A table of 4-level paging.
    Long,
}

impl Source {
    /// True if a table of the guest lies behind it.
    pub const fn is_guest_table(self) -> bool {
        !matches!(self, Self::Linear { .. })
    }
}

/// Switches of the guest's control registers that change what entries may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switches {
    /// CR0.WP.
    pub write_protect: bool,
    /// EFER.NXE (and PAE or 4-level paging).
    pub no_execute: bool,
    /// CR4.SMEP, where it matters: with CR0.WP clear.
    pub smep: bool,
    /// CR4.SMAP, where it matters: with CR0.WP clear.
    pub smap: bool,
}

impl Switches {
    /// The switches as `control` has them.
    pub const fn of(control: &ControlRegisters) -> Self {
        let write_protect = control.cr0 & cr0::WP != 0;
        let pae = control.cr4 & cr4::PAE != 0;
        Self {
            write_protect,
            no_execute: pae && control.efer & efer::NXE != 0,
            smep: !write_protect && control.cr4 & cr4::SMEP != 0,
            smap: !write_protect && control.cr4 & cr4::SMAP != 0,
        }
    }
}

/// All rights: what is above the topmost table.
pub const ALL_RIGHTS: Rights = Rights { write: true, user: true, execute: true };

/// What a shadow table stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// Its level.
    pub level: Level,
    /// What it is made from.
    pub source: Source,
    /// Rights that the guest's entries above it leave.
    pub rights: Rights,
    /// The guest's switches.
    pub switches: Switches,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_the_control_registers() {
        let control = |cr0, cr4, efer| ControlRegisters { cr0, cr4, efer, ..Default::default() };
        let paged = cr0::PE | cr0::PG;
        assert_eq!(GuestMode::of(&control(cr0::PE, cr4::PAE, efer::LME)), GuestMode::Unpaged);
        assert_eq!(GuestMode::of(&control(paged, cr4::PAE, efer::LMA)), GuestMode::Long);
        assert_eq!(GuestMode::of(&control(paged, cr4::PAE, 0)), GuestMode::Pae);
        let legacy = GuestMode::of(&control(paged, cr4::PSE, 0));
        assert_eq!(legacy, GuestMode::Legacy { large_pages: true });
    }

    #[test]
    fn supervisor_protection_matters_without_write_protection_only() {
        let both = cr4::SMEP | cr4::SMAP | cr4::PAE;
        let with = |cr0| ControlRegisters { cr0, cr4: both, ..Default::default() };
        let protected = Switches::of(&with(cr0::WP));
        assert!(protected.write_protect && !protected.smep && !protected.smap);
        let open = Switches::of(&with(0));
        assert!(!open.write_protect && open.smep && open.smap);
    }

    #[test]
    fn levels_index_as_the_architecture_does() {
        let address = 0x0000_7F12_3456_7FFF;
        assert_eq!(Level::Four.index(address), 0xFE);
        assert_eq!(Level::One.index(address), 0x167);
        assert_eq!(Level::Three.entry_frames(), 512 * 512);
        assert_eq!(Level::Two.below(), Some(Level::One));
        assert_eq!(Gfn(0x3FF).large_base(), Gfn(0x200));
    }
}
