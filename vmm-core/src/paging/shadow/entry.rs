// SPDX-License-Identifier: MIT OR Apache-2.0
//! The format of shadow entries: that of long-mode and PAE tables (AMD APM vol. 2, 5.2 and 5.3).
//!
//! Entries that lead to tables grant everything; those that map pages alone say what is allowed.
//! So an entry can be judged without a look at the ones above it. Memory is mapped with the
//! write-back type whatever the guest's entries and PAT say, for the host has a write-back
//! mapping of it, too.

use host_iface::HostPhysAddr;

use crate::paging::walk::Rights;

/// An entry of a shadow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ShadowEntry(pub u64);

impl ShadowEntry {
    const PRESENT: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const LARGE: u64 = 1 << 7;
    const GLOBAL: u64 = 1 << 8;
    const NO_EXECUTE: u64 = 1 << 63;
    #[cfg(any(test, feature = "test-support"))]
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

    /// Nothing is there.
    pub const EMPTY: Self = Self(0);

    /// Leads to the table at `address`.
    pub const fn table(address: HostPhysAddr) -> Self {
        Self(address.as_u64() | Self::PRESENT | Self::WRITE | Self::USER | Self::ACCESSED)
    }

    /// Leads from the four entries at the root of PAE paging to a page directory; the bits that
    /// are rights elsewhere are reserved there.
    pub const fn pae_pointer(address: HostPhysAddr) -> Self {
        Self(address.as_u64() | Self::PRESENT)
    }

    /// Maps the page at `address`. Accessed and dirty are set from the start, which saves the
    /// CPU from writing them: the guest's own bits are kept in the guest's entry.
    pub const fn page(address: HostPhysAddr, rights: Rights, large: bool, global: bool) -> Self {
        let mut bits = address.as_u64() | Self::PRESENT | Self::ACCESSED;
        if rights.write {
            bits |= Self::WRITE | Self::DIRTY;
        }
        if rights.user {
            bits |= Self::USER;
        }
        if !rights.execute {
            bits |= Self::NO_EXECUTE;
        }
        if large {
            bits |= Self::LARGE;
        }
        if global {
            bits |= Self::GLOBAL;
        }
        Self(bits)
    }

    /// True if it leads or maps anywhere.
    pub const fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// Where it leads, or what it maps.
    #[cfg(any(test, feature = "test-support"))]
    pub const fn address(self) -> HostPhysAddr {
        HostPhysAddr::new(self.0 & Self::ADDRESS)
    }

    /// What an entry that maps a page allows.
    pub const fn rights(self) -> Rights {
        Rights {
            write: self.0 & Self::WRITE != 0,
            user: self.0 & Self::USER != 0,
            execute: self.0 & Self::NO_EXECUTE == 0,
        }
    }

    /// The translation stays when CR3 is loaded.
    pub const fn is_global(self) -> bool {
        self.0 & Self::GLOBAL != 0
    }

    /// The same without the right to write.
    pub const fn read_only(self) -> Self {
        Self(self.0 & !(Self::WRITE | Self::DIRTY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_the_manual() {
        let at = HostPhysAddr::new(0x1234_5000);
        assert_eq!(ShadowEntry::table(at).0, 0x1234_5027);
        assert_eq!(ShadowEntry::pae_pointer(at).0, 0x1234_5001);
        let all = Rights { write: true, user: true, execute: true };
        let page = ShadowEntry::page(at, all, false, false);
        assert_eq!(page.0, 0x1234_5067);
        assert_eq!((page.address(), page.rights()), (at, all));
        assert_eq!(page.read_only().0, 0x1234_5025);
        let none = Rights { write: false, user: false, execute: false };
        let large = ShadowEntry::page(HostPhysAddr::new(0x20_0000), none, true, true);
        assert_eq!(large.0, 0x8000_0000_0020_01A1);
        assert!(large.is_global() && large.is_present() && !ShadowEntry::EMPTY.is_present());
    }
}
