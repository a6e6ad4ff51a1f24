// SPDX-License-Identifier: MIT OR Apache-2.0
//! EFER.LME that the CPU must not see while it would cost the host its paging; see
//! [`Capabilities::loses_paging`](super::capability::Capabilities::loses_paging).
//!
//! Without paging the bit does nothing (AMD APM vol. 2, 14.6), and every write to EFER or CR4 exits,
//! so the guest cannot tell, but for one case: paging switched on with LME and without CR4.PAE
//! raises no #GP, and gives the guest 32-bit paging in place of it.

use crate::state::{ControlRegisters, cr0, cr4, efer};

/// Whether LME of a guest with these registers is kept from the CPU.
pub const fn is_hidden(value: &ControlRegisters) -> bool {
    value.efer & efer::LME != 0 && value.cr0 & cr0::PG == 0 && value.cr4 & cr4::PAE == 0
}

/// EFER as the guest sees it, of what the control block holds.
pub const fn seen(held: &ControlRegisters, hidden: bool) -> u64 {
    let stays = hidden && held.cr0 & cr0::PG == 0;
    held.efer | if stays { efer::LME } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(cr0: u64, cr4: u64, efer: u64) -> ControlRegisters {
        ControlRegisters { cr0, cr4, efer, ..ControlRegisters::default() }
    }

    #[test]
    fn only_the_fatal_combination_is_hidden() {
        assert!(is_hidden(&registers(cr0::PE, 0, efer::LME)));
        assert!(!is_hidden(&registers(cr0::PE, 0, efer::NXE)));
        assert!(!is_hidden(&registers(cr0::PE, cr4::PAE, efer::LME)));
        assert!(!is_hidden(&registers(cr0::PE | cr0::PG, cr4::PAE, efer::LME | efer::LMA)));
    }

    #[test]
    fn the_guest_reads_what_it_wrote() {
        let held = registers(cr0::PE, 0, efer::NXE);
        assert_eq!(seen(&held, true), efer::NXE | efer::LME);
        assert_eq!(seen(&held, false), efer::NXE);
        // The CPU let it have 32-bit paging: what follows must be a state that can be entered.
        assert_eq!(seen(&registers(cr0::PE | cr0::PG, 0, efer::NXE), true), efer::NXE);
    }
}
