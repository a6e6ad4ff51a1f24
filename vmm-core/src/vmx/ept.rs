// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended page tables (Intel SDM vol. 3, 28.3).

use host_iface::HostPhysAddr;

use super::{
    capability::Capabilities,
    instruction::{InvalidationDescriptor, invalidation, invept},
};
use crate::paging::NestedEntries;

/// The format of EPT entries.
pub struct EptEntries;

impl EptEntries {
    const READ: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
    const EXECUTE: u64 = 1 << 2;
    const ACCESS: u64 = Self::READ | Self::WRITE | Self::EXECUTE;
    const WRITE_BACK: u64 = 6 << 3;
    /// The type above holds whatever the guest's PAT says: all that is mapped is memory, of
    /// which the host has a write-back mapping, too.
    const IGNORE_PAT: u64 = 1 << 6;
    const LARGE: u64 = 1 << 7;
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

impl NestedEntries for EptEntries {
    fn table(address: HostPhysAddr) -> u64 {
        address.as_u64() | Self::ACCESS
    }

    fn leaf(address: HostPhysAddr, large: bool) -> u64 {
        let size = if large { Self::LARGE } else { 0 };
        address.as_u64() | Self::ACCESS | Self::WRITE_BACK | Self::IGNORE_PAT | size
    }

    fn without_write(leaf: u64) -> u64 {
        leaf & !Self::WRITE
    }

    fn read_only_page(address: HostPhysAddr) -> u64 {
        address.as_u64() | Self::READ | Self::WRITE_BACK | Self::IGNORE_PAT
    }

    fn address(entry: u64) -> HostPhysAddr {
        HostPhysAddr::new(entry & Self::ADDRESS)
    }

    fn is_present(entry: u64) -> bool {
        entry & Self::ACCESS != 0
    }
}

/// The EPT pointer to tables of four levels in write-back memory, whose accessed and dirty
/// flags are not used (Intel SDM vol. 3, 24.6.11).
pub const fn pointer(root: HostPhysAddr) -> u64 {
    const WRITE_BACK: u64 = 6;
    const FOUR_LEVELS: u64 = 3 << 3;
    root.as_u64() | WRITE_BACK | FOUR_LEVELS
}

/// Drops what the calling CPU has cached of the tables at `pointer`.
///
/// # Safety
/// The CPU is in VMX operation.
pub unsafe fn invalidate(capabilities: &Capabilities, pointer: u64) {
    let kind = match capabilities.msrs.ept.invept_single() {
        true => invalidation::SINGLE_CONTEXT,
        false => invalidation::ALL_CONTEXTS,
    };
    // SAFETY: the caller's promise; probing made sure of one of the two kinds.
    unsafe { invept(kind, &InvalidationDescriptor([pointer, 0])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_the_manual() {
        let address = HostPhysAddr::new(0x1234_5000);
        assert_eq!(EptEntries::table(address), 0x1234_5007);
        assert_eq!(EptEntries::leaf(address, false), 0x1234_5077);
        assert_eq!(EptEntries::leaf(HostPhysAddr::new(0x20_0000), true), 0x20_00F7);
        assert_eq!(EptEntries::without_write(EptEntries::leaf(address, false)), 0x1234_5075);
        assert_eq!(EptEntries::read_only_page(address), 0x1234_5071);
        assert_eq!(EptEntries::address(0x1234_5077), address);
        assert!(EptEntries::is_present(4) && !EptEntries::is_present(0x1234_5070));
        assert_eq!(pointer(address), 0x1234_501E);
    }
}
