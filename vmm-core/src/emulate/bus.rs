// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest-physical address space and the I/O ports as the emulator sees them.

use crate::address::GuestPhysAddr;
use crate::paging::walk::{BusError, PhysicalMemory};

/// Width of a bus access or of an operand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum AccessSize {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes.
    Qword = 8,
}

impl AccessSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// The size in bits.
    pub const fn bits(self) -> u32 {
        self as u32 * 8
    }

    /// A mask of all bits of a value of this size.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The most significant bit of a value of this size.
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// `value`, of this size, sign-extended to 64 bits.
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        (((value << unused) as i64) >> unused) as u64
    }

    /// The size of `bytes` bytes: 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }
}

/// Result of an atomic compare-and-exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// The new value is in memory.
    Done,
    /// Memory held another value; nothing was written.
    Different,
    /// No atomic access is possible here (a device, or a misaligned address the bus does not
    /// do): the emulator reads and writes instead.
    NotAtomic,
}

/// Memory, devices and ports.
///
/// An access never crosses a 4 KiB page, but may be misaligned. Values are little-endian and
/// zero-extended. An address where nothing answers should read as all ones and drop writes;
/// an error ends the instruction with [`Outcome::BusError`](super::Outcome::BusError) and is
/// for what the VMM will not do, not for what the guest got wrong.
pub trait GuestBus: PhysicalMemory {
    /// Reads instruction bytes; `buffer` is at most 15 bytes and stays within one page.
    ///
    /// # Errors
    /// [`BusError`] if instructions cannot be fetched here.
    fn fetch(&mut self, address: GuestPhysAddr, buffer: &mut [u8]) -> Result<(), BusError>;

    /// Reads memory or a device.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn read(&mut self, address: GuestPhysAddr, size: AccessSize) -> Result<u64, BusError>;

    /// Writes memory or a device.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn write(
        &mut self,
        address: GuestPhysAddr,
        size: AccessSize,
        value: u64,
    ) -> Result<(), BusError>;

    /// Replaces `expected` by `new` atomically, for locked instructions.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn compare_exchange(
        &mut self,
        address: GuestPhysAddr,
        size: AccessSize,
        expected: u64,
        new: u64,
    ) -> Result<Exchange, BusError>;

    /// Replaces 16 bytes atomically, for a locked CMPXCHG16B; `address` is a multiple of 16.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn compare_exchange_u128(
        &mut self,
        address: GuestPhysAddr,
        expected: u128,
        new: u128,
    ) -> Result<Exchange, BusError>;

    /// Reads an I/O port; `size` is at most [`AccessSize::Dword`]. Nobody there: all ones.
    fn port_in(&mut self, port: u16, size: AccessSize) -> u32;

    /// Writes an I/O port; `size` is at most [`AccessSize::Dword`].
    fn port_out(&mut self, port: u16, size: AccessSize, value: u32);
}
