// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sparse guest-physical memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::GuestPhysAddr;
use crate::paging::walk::{BusError, PhysicalMemory};

/// Memory in 4-byte cells; a cell that was never stored does not exist.
#[derive(Clone, Default, Debug)]
pub struct Sparse {
    pub cells: RefCell<BTreeMap<u64, u32>>,
    /// Addresses where writes are refused.
    pub rom: Range<u64>,
    /// So many exchanges fail because another CPU was faster; it clears the entry then.
    pub races: Cell<u32>,
}

impl Sparse {
    pub fn store(&self, address: u64, bytes: u64, value: u64) {
        let mut cells = self.cells.borrow_mut();
        cells.insert(address, value as u32);
        if bytes == 8 {
            cells.insert(address + 4, (value >> 32) as u32);
        }
    }

    pub fn load(&self, address: u64, bytes: u64) -> Option<u64> {
        let cells = self.cells.borrow();
        let low = u64::from(*cells.get(&address)?);
        if bytes == 4 {
            return Some(low);
        }
        Some(low | u64::from(*cells.get(&(address + 4))?) << 32)
    }

    /// Sets bits of an entry, if it exists and can be written.
    pub fn mark(&self, address: u64, bytes: u64, bits: u64) {
        if let Some(value) = self.load(address, bytes)
            && !self.rom.contains(&address)
        {
            self.store(address, bytes, value | bits);
        }
    }

    fn exchange(&self, address: u64, bytes: u64, old: u64, new: u64) -> Result<bool, BusError> {
        if self.rom.contains(&address) {
            return Err(BusError);
        }
        if self.races.get() > 0 {
            self.races.set(self.races.get() - 1);
            self.store(address, bytes, 0);
        }
        let same = self.load(address, bytes).ok_or(BusError)? == old;
        if same {
            self.store(address, bytes, new);
        }
        Ok(same)
    }
}

impl PhysicalMemory for Sparse {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        assert!(address.is_aligned(4));
        self.load(address.as_u64(), 4).map(|value| value as u32).ok_or(BusError)
    }
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        assert!(address.is_aligned(8));
        self.load(address.as_u64(), 8).ok_or(BusError)
    }
    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        old: u32,
        new: u32,
    ) -> Result<bool, BusError> {
        self.exchange(address.as_u64(), 4, old.into(), new.into())
    }
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        old: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        self.exchange(address.as_u64(), 8, old, new)
    }
}
