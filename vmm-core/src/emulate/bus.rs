// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest-physical address space and the I/O ports as the emulator sees them.

use crate::access::AccessWidth;
use crate::address::GuestPhysAddr;
use crate::paging::walk::{BusError, PhysicalMemory};

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
    fn read(&mut self, address: GuestPhysAddr, size: AccessWidth) -> Result<u64, BusError>;

    /// Writes memory or a device.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn write(
        &mut self,
        address: GuestPhysAddr,
        size: AccessWidth,
        value: u64,
    ) -> Result<(), BusError>;

    /// Replaces `expected` by `new` atomically, for locked instructions.
    ///
    /// # Errors
    /// [`BusError`] if the bus refuses the access.
    fn compare_exchange(
        &mut self,
        address: GuestPhysAddr,
        size: AccessWidth,
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

    /// Reads an I/O port; `size` is at most [`AccessWidth::Dword`]. Nobody there: all ones.
    fn port_in(&mut self, port: u16, size: AccessWidth) -> u32;

    /// Writes an I/O port; `size` is at most [`AccessWidth::Dword`].
    fn port_out(&mut self, port: u16, size: AccessWidth, value: u32);
}
