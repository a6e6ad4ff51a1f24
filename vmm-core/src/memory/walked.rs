// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory as page tables lie in it.

use super::{GuestMemory, MemoryError};
use crate::{
    GuestPhysAddr,
    paging::walk::{BusError, PhysicalMemory},
};

/// Page tables where there is no memory read as all ones, as the walker takes care of.
fn no_memory<T>(result: Result<T, MemoryError>) -> Result<T, BusError> {
    result.map_err(|_| BusError)
}

impl PhysicalMemory for GuestMemory {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        no_memory(self.read_u32(address))
    }

    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        no_memory(self.read_u64(address))
    }

    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        expected: u32,
        new: u32,
    ) -> Result<bool, BusError> {
        no_memory(self.compare_exchange_u32(address, expected, new)).map(|outcome| outcome.is_ok())
    }

    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        no_memory(self.compare_exchange_u64(address, expected, new)).map(|outcome| outcome.is_ok())
    }
}
