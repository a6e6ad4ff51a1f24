// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chains of shadow entries.
//!
//! Every shadow entry that is in use is in exactly one chain: that of the guest frame it maps, or
//! that of the shadow table it leads to. So everything that refers to a frame or a table is found
//! without a search, and nothing has to be allocated when a fault is fixed. The links of an entry
//! lie beside its table; what an entry leads to is noted with them, typed.

use alloc::boxed::Box;
use core::num::NonZeroU32;

use super::{arena::PageHandle, frame::Frame, role::ENTRIES};

/// Names an entry: a slot of the arena and an index in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryId(NonZeroU32);

impl EntryId {
    /// The entry `index` of the table in `slot`, which is below 2^22.
    pub fn new(slot: u32, index: usize) -> Option<Self> {
        let number = slot.checked_mul(ENTRIES as u32)?.checked_add(index as u32)?;
        NonZeroU32::new(number.checked_add(1)?).map(Self)
    }

    /// The slot.
    pub const fn slot(self) -> u32 {
        (self.0.get() - 1) / ENTRIES as u32
    }

    /// The index in the table.
    pub const fn index(self) -> usize {
        (self.0.get() - 1) as usize % ENTRIES
    }
}

/// What a shadow entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// Nothing.
    #[default]
    Empty,
    /// Another shadow table.
    Table(PageHandle),
    /// A 4 KiB page of guest memory.
    Page(Frame),
    /// 2 MiB of guest memory, from this frame on.
    Large(Frame),
}

/// What is kept for each shadow entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryNote {
    /// What the entry leads to.
    pub target: Target,
    /// Its neighbours in the chain.
    pub previous: Option<EntryId>,
    /// See `previous`.
    pub next: Option<EntryId>,
}

/// The notes of one table.
pub type Notes = Box<[EntryNote; ENTRIES]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bounded() {
        let first = EntryId::new(0, 0).unwrap();
        assert_eq!((first.slot(), first.index()), (0, 0));
        let some = EntryId::new(7, 511).unwrap();
        assert_eq!((some.slot(), some.index()), (7, 511));
        assert_eq!(EntryId::new(u32::MAX, 0), None);
    }

    #[test]
    fn notes_stay_small() {
        assert!(size_of::<EntryNote>() <= 20);
        assert_eq!(size_of::<Option<EntryId>>(), 4);
    }
}
