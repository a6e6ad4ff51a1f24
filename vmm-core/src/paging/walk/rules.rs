// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the entries of the tables mean: reserved bits, rights, error codes, marks
//! (AMD APM vol. 2, 5.2 to 5.6; Intel SDM vol. 3, 4.3 to 4.8).

use super::space::{Access, AccessKind, AddressSpace, Mode, Privilege, Rights, page_fault};
use crate::state::{cr0, cr4};

/// Bits of page-table entries (AMD APM vol. 2, 5.4.1).
pub mod entry {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const GLOBAL: u64 = 1 << 8;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Address field of an 8-byte entry at its widest.
    pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

/// The rules that a walk follows.
///
/// Levels are counted from the page table, 1, upwards.
pub trait Rules {
    /// Whether a present entry of `level` maps a page and does not lead to a table.
    fn maps_page(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> bool {
        let large = match (mode, level) {
            (_, 1) => return true,
            (Mode::Legacy32, 2) => space.control.cr4 & cr4::PSE != 0,
            (Mode::Pae | Mode::FourLevel, 2) => true,
            (Mode::FourLevel, 3) => space.features.gigabyte_pages,
            _ => false,
        };
        large && value & entry::LARGE != 0
    }

    /// The bits that must be zero in a present entry of `level`.
    fn reserved(space: &AddressSpace, mode: Mode, level: u8, value: u64) -> u64 {
        let large = level > 1 && Self::maps_page(space, mode, level, value);
        if mode == Mode::Legacy32 {
            return if large { reserved_pse(space) } else { 0 };
        }
        let mut reserved = space.beyond_physical();
        if mode.is_pae_pointer(level) {
            // Bit 5 is let through: QEMU 7.2 marks these entries as accessed.
            return reserved | 0xFFF0_0000_0000_01C6;
        }
        if mode == Mode::Pae {
            reserved |= 0x7FF0_0000_0000_0000;
        }
        if !space.no_execute_enabled() {
            reserved |= entry::NO_EXECUTE;
        }
        let of_table = if space.features.table_global_reserved { entry::GLOBAL } else { 0 };
        match level {
            2 if large => reserved | 0x001F_E000,
            3 if large => reserved | 0x3FFF_E000,
            3 | 4 => reserved | of_table | entry::LARGE,
            _ => reserved,
        }
    }

    /// The rights that remain below an entry.
    fn combine(rights: Rights, value: u64) -> Rights {
        Rights {
            write: rights.write && value & entry::WRITE != 0,
            user: rights.user && value & entry::USER != 0,
            execute: rights.execute && value & entry::NO_EXECUTE == 0,
        }
    }

    /// Whether a page with `rights` may be accessed so (AMD APM vol. 2, 5.6).
    fn permits(space: &AddressSpace, rights: Rights, access: Access) -> bool {
        let control = &space.control;
        let supervisor = access.privilege != Privilege::User;
        if !supervisor && !rights.user {
            return false;
        }
        if access.kind == AccessKind::Fetch {
            let smep = supervisor && rights.user && control.cr4 & cr4::SMEP != 0;
            return rights.execute && !smep;
        }
        let lifted = space.alignment_check && access.privilege == Privilege::Supervisor;
        if supervisor && rights.user && control.cr4 & cr4::SMAP != 0 && !lifted {
            return false;
        }
        let ignores_read_only = supervisor && control.cr0 & cr0::WP == 0;
        access.kind != AccessKind::Write || rights.write || ignores_read_only
    }

    /// The error code of #PF for `access`; `cause` is what the walk found.
    fn error_code(space: &AddressSpace, access: Access, cause: u32) -> u32 {
        let mut code = cause;
        if access.kind == AccessKind::Write {
            code |= page_fault::WRITE;
        }
        if access.privilege == Privilege::User {
            code |= page_fault::USER;
        }
        let reports_fetch = space.no_execute_enabled() || space.control.cr4 & cr4::SMEP != 0;
        if access.kind == AccessKind::Fetch && reports_fetch {
            code |= page_fault::FETCH;
        }
        code
    }

    /// The accessed and dirty bits that a permitted access sets in an entry on its way.
    fn marks(mode: Mode, level: u8, is_page: bool, kind: AccessKind) -> u64 {
        if mode.is_pae_pointer(level) {
            0
        } else if is_page && kind == AccessKind::Write {
            entry::ACCESSED | entry::DIRTY
        } else {
            entry::ACCESSED
        }
    }
}

/// The rules of the architecture.
pub struct Architecture;

impl Rules for Architecture {}

/// A 4 MiB entry holds address bits 39–32 in its bits 20–13; bit 21 is reserved, and so are
/// those above the physical address width.
fn reserved_pse(space: &AddressSpace) -> u64 {
    let width = u32::from(space.features.physical_address_bits.clamp(32, 40));
    let usable = ((1 << (width - 32)) - 1) << 13;
    0x003F_E000 & !usable
}
