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
    /// Set from the start, which saves the CPU from writing them; ignored by CPUs that keep no
    /// such flags.
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

impl NestedEntries for EptEntries {
    fn table(address: HostPhysAddr) -> u64 {
        address.as_u64() | Self::ACCESS | Self::ACCESSED
    }

    fn leaf(address: HostPhysAddr, large: bool) -> u64 {
        let size = if large { Self::LARGE } else { 0 };
        let flags = Self::ACCESSED | Self::DIRTY | Self::WRITE_BACK | Self::IGNORE_PAT | size;
        address.as_u64() | Self::ACCESS | flags
    }

    fn without_write(leaf: u64) -> u64 {
        leaf & !Self::WRITE
    }

    fn read_only_page(address: HostPhysAddr) -> u64 {
        let flags = Self::ACCESSED | Self::DIRTY | Self::WRITE_BACK | Self::IGNORE_PAT;
        address.as_u64() | Self::READ | flags
    }

    fn address(entry: u64) -> HostPhysAddr {
        HostPhysAddr::new(entry & Self::ADDRESS)
    }

    fn is_leaf(entry: u64) -> bool {
        entry & Self::LARGE != 0
    }

    fn is_present(entry: u64) -> bool {
        entry & Self::ACCESS != 0
    }
}

/// The EPT pointer to tables of four levels in write-back memory, with accessed and dirty flags
/// if the CPU keeps them (Intel SDM vol. 3, 24.6.11).
pub fn pointer(capabilities: &Capabilities, root: HostPhysAddr) -> u64 {
    const WRITE_BACK: u64 = 6;
    const FOUR_LEVELS: u64 = 3 << 3;
    const ACCESSED_AND_DIRTY: u64 = 1 << 6;
    let flags = if capabilities.msrs.ept.accessed_dirty() { ACCESSED_AND_DIRTY } else { 0 };
    root.as_u64() | WRITE_BACK | FOUR_LEVELS | flags
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
    use crate::vmx::capability::samples::TIGER_LAKE;

    #[test]
    fn entries_are_those_of_the_manual() {
        let address = HostPhysAddr::new(0x1234_5000);
        assert_eq!(EptEntries::table(address), 0x1234_5107);
        assert_eq!(EptEntries::leaf(address, false), 0x1234_5377);
        assert_eq!(EptEntries::leaf(HostPhysAddr::new(0x20_0000), true), 0x20_03F7);
        assert_eq!(EptEntries::without_write(EptEntries::leaf(address, false)), 0x1234_5375);
        assert_eq!(EptEntries::read_only_page(address), 0x1234_5371);
        assert_eq!(EptEntries::address(0x1234_5377), address);
        assert!(EptEntries::is_present(4) && !EptEntries::is_present(0x1234_5370));
        assert!(EptEntries::is_leaf(0x20_03F7) && !EptEntries::is_leaf(0x1234_5107));
    }

    #[test]
    fn accessed_and_dirty_flags_are_used_where_they_are_kept() {
        let root = HostPhysAddr::new(0x1234_5000);
        let mut msrs = TIGER_LAKE;
        assert_eq!(pointer(&Capabilities::new(msrs).unwrap(), root), 0x1234_505E);
        msrs.ept = msrs.ept.with_accessed_dirty(false);
        assert_eq!(pointer(&Capabilities::new(msrs).unwrap(), root), 0x1234_501E);
    }
}
