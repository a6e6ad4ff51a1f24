// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers of a guest on shadow tables: what it sees, and what the CPU runs with.
//!
//! The CPU always pages. It runs on tables of long mode if the guest is in long mode, else on
//! those of PAE, even if the guest does not page, or is in real mode.

use crate::state::{ControlRegisters, cr0, cr4, efer};

/// The registers with which a guest runs on shadow tables that believes in `guest`, but for CR3,
/// which is the root's address. What a vendor demands besides has to be added.
pub const fn on_shadow_tables(guest: ControlRegisters) -> ControlRegisters {
    ControlRegisters {
        cr0: real_cr0(guest.cr0),
        cr4: real_cr4(&guest),
        efer: real_efer(guest.efer),
        ..guest
    }
}

/// With WP the entries alone say what may be written. Caches stay on.
const fn real_cr0(guest: u64) -> u64 {
    (guest | cr0::PG | cr0::WP) & !(cr0::CD | cr0::NW)
}

/// Without paging there are neither user nor supervisor pages.
const fn real_cr4(guest: &ControlRegisters) -> u64 {
    let unpaged = if guest.cr0 & cr0::PG == 0 { cr4::SMEP | cr4::SMAP } else { 0 };
    (guest.cr4 | cr4::PAE) & !unpaged
}

/// Long mode is on or off as a whole. NXE makes page faults tell fetches from reads.
const fn real_efer(guest: u64) -> u64 {
    const LONG_MODE: u64 = efer::LME | efer::LMA;
    let long = if guest & efer::LMA != 0 { LONG_MODE } else { 0 };
    guest & !LONG_MODE | long | efer::NXE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_pages_whatever_the_guest_does() {
        let guest = ControlRegisters {
            cr0: cr0::ET | cr0::CD | cr0::NW,
            cr2: 7,
            cr3: 0x1000,
            cr4: cr4::SMEP | cr4::PSE,
            efer: 0,
        };
        let real = on_shadow_tables(guest);
        assert_eq!(real.cr0, cr0::ET | cr0::PG | cr0::WP);
        assert_eq!((real.cr2, real.cr4, real.efer), (7, cr4::PSE | cr4::PAE, efer::NXE));
        let paged = on_shadow_tables(ControlRegisters { cr0: cr0::PG, ..guest });
        assert_eq!(paged.cr4, cr4::PSE | cr4::PAE | cr4::SMEP);
    }

    #[test]
    fn long_mode_is_on_only_when_it_is_active() {
        let efer = |efer| on_shadow_tables(ControlRegisters { efer, ..Default::default() }).efer;
        assert_eq!(efer(efer::LME | efer::SCE), efer::SCE | efer::NXE);
        let active = efer::LME | efer::LMA;
        assert_eq!(efer(active), active | efer::NXE);
    }
}
