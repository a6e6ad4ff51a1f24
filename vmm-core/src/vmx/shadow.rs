// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests on shadow tables, without EPT.
//!
//! The CPU's CR3 is the VMM's, and EFER is what the format of the shadow tables asks for. What the
//! guest believes to be in CR0 and CR4 is in their read shadows; its CR3 is only written and read
//! with an exit, as is its EFER. Without EPT the VMCS does not hold the page-directory pointers of
//! PAE paging, either (Intel SDM vol. 3, 24.4.2): an entry loads those of the shadow tables from
//! memory, and the guest's are kept here.

use host_iface::HostPhysAddr;

use crate::{paging::shadow::on_shadow_tables, state::ControlRegisters};

/// What a guest on shadow tables has that no field holds.
pub struct ShadowPaging {
    /// Root of the tables that the CPU walks.
    pub root: HostPhysAddr,
    /// The page-directory pointers that the guest loaded.
    pub pointers: [u64; 4],
}

impl ShadowPaging {
    /// Before the first root was set.
    pub const fn new() -> Self {
        Self { root: HostPhysAddr::new(0), pointers: [0; 4] }
    }

    /// The registers with which a guest runs that believes in `guest`.
    pub const fn instead_of(&self, guest: ControlRegisters) -> ControlRegisters {
        ControlRegisters { cr3: self.root.as_u64(), ..on_shadow_tables(guest) }
    }
}
