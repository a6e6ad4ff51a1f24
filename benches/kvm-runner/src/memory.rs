// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's memory: one anonymous mapping, aligned so that huge pages can back it.

use std::ffi::c_void;
use std::ptr;

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Size of a huge page.
const ALIGNMENT: usize = 2 << 20;

/// Memory that is the guest's from address 0, mapped until the process ends.
#[derive(Debug)]
pub struct GuestMemory {
    start: *mut u8,
    size: usize,
}

impl GuestMemory {
    /// Reserves `size` bytes, of which none is touched.
    ///
    /// # Errors
    /// When the operating system has no room.
    pub fn allocate(size: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let mapped = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                size + ALIGNMENT,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let mapped: *mut c_void = mapped.context("cannot map the guest's memory")?;
        let padding = mapped.align_offset(ALIGNMENT);
        Ok(Self { start: mapped.cast::<u8>().wrapping_add(padding), size })
    }

    /// Where it is in this process.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// Copies `bytes` to the guest-physical address `to`.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn write(&mut self, to: u64, bytes: &[u8]) -> Result<()> {
        let offset = usize::try_from(to)?;
        offset
            .checked_add(bytes.len())
            .filter(|&end| end <= self.size)
            .with_context(|| format!("{} bytes at {to:#x} exceed the memory", bytes.len()))?;
        // SAFETY: the range was checked to be in the mapping, which no reference leads to; no
        // guest runs while a `GuestMemory` can be changed.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len()) };
        Ok(())
    }
}

#[cfg(test)]
impl GuestMemory {
    /// A copy of what is in it.
    pub fn read(&self, from: u64, length: usize) -> Option<Vec<u8>> {
        let offset = usize::try_from(from).ok()?;
        offset.checked_add(length).filter(|&end| end <= self.size)?;
        let mut bytes = vec![0; length];
        // SAFETY: the range was checked to be in the mapping, which nothing writes to meanwhile.
        unsafe { ptr::copy_nonoverlapping(self.start.add(offset), bytes.as_mut_ptr(), length) };
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stay_inside() {
        let mut memory = GuestMemory::allocate(ALIGNMENT).unwrap();
        assert_eq!(memory.address() % ALIGNMENT as u64, 0);
        memory.write(memory.size() - 2, &[1, 2]).unwrap();
        assert!(memory.write(memory.size() - 1, &[1, 2]).is_err());
        assert!(memory.write(u64::MAX, &[1]).is_err());
    }
}
