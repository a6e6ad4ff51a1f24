// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical addresses and the reader through which tables left by firmware are parsed.

use core::fmt;

/// Size of a page frame in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// A physical address of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Read access to physical memory that firmware or a boot loader filled.
pub trait PhysMemory {
    /// The `length` bytes at `address`, or `None` if they cannot be reached.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// The little-endian `u16` at `offset`, if it is inside `bytes`.
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset.checked_add(2)?)?.try_into().ok()?))
}

/// The little-endian `u32` at `offset`, if it is inside `bytes`.
pub(crate) fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

/// The little-endian `u64` at `offset`, if it is inside `bytes`.
pub(crate) fn read_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

/// Physical memory for tests: a few extents of bytes.
#[cfg(test)]
pub(crate) struct TestMemory(pub(crate) alloc::vec::Vec<(u64, alloc::vec::Vec<u8>)>);

#[cfg(test)]
impl PhysMemory for TestMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(length)?)
        })
    }
}
