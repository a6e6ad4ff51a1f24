// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory while its VM runs.

use zerocopy::{Immutable, IntoBytes};

use super::{GuestMemory, MemoryError};
use crate::{
    AccessWidth, EndReason, GuestPhysAddr, PAGE_SIZE, VmControl,
    paging::shadow::{ShadowMmu, StaleHandle},
};

/// Guest memory as the VMM changes it on behalf of a vCPU that is outside the guest. With shadow
/// paging the page that is written may hold a table of the guest: what was made from that goes.
/// All that the VMM writes while a VM runs, it writes here.
///
/// Not so the accessed and dirty bits that a page walk sets. They only permit more, and a shadow
/// entry that permits less costs a fault and is mended by it.
#[derive(Clone, Copy)]
pub struct LiveMemory<'a> {
    memory: &'a GuestMemory,
    shadow: Option<ShadowWatch<'a>>,
}

/// The shadow MMU of a VM, and on whose behalf it is told of writes.
#[derive(Clone, Copy)]
pub struct ShadowWatch<'a> {
    /// It.
    pub mmu: &'a ShadowMmu,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Ends the VM if the MMU finds a defect in itself.
    pub control: &'a VmControl,
}

impl<'a> LiveMemory<'a> {
    /// `memory`, whose writes `shadow` has to hear of, if there is shadow paging.
    #[inline]
    pub fn new(memory: &'a GuestMemory, shadow: Option<ShadowWatch<'a>>) -> Self {
        Self { memory, shadow }
    }

    /// The memory itself, to read.
    #[inline]
    pub fn memory(&self) -> &'a GuestMemory {
        self.memory
    }

    /// Writes the lower bytes of `value`; a naturally aligned one at once.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is written then.
    #[inline]
    pub fn write(
        &self,
        address: GuestPhysAddr,
        width: AccessWidth,
        value: u64,
    ) -> Result<(), MemoryError> {
        match width {
            AccessWidth::Byte => self.memory.write_u8(address, value as u8),
            AccessWidth::Word => self.memory.write_u16(address, value as u16),
            AccessWidth::Dword => self.memory.write_u32(address, value as u32),
            AccessWidth::Qword => self.memory.write_u64(address, value),
        }
        .map(|()| self.wrote(address, width.bytes() as u64))
    }

    /// Writes a plain value.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is written then.
    pub fn write_plain<T: IntoBytes + Immutable>(
        &self,
        address: GuestPhysAddr,
        value: &T,
    ) -> Result<(), MemoryError> {
        self.memory.write_plain(address, value)?;
        self.wrote(address, size_of::<T>() as u64);
        Ok(())
    }

    /// Replaces the lower bytes of `expected` by those of `new` at once; false if something else
    /// was there.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`], also for an unaligned address.
    #[inline]
    pub fn compare_exchange(
        &self,
        address: GuestPhysAddr,
        width: AccessWidth,
        expected: u64,
        new: u64,
    ) -> Result<bool, MemoryError> {
        let memory = self.memory;
        let replaced = match width {
            AccessWidth::Byte => {
                memory.compare_exchange_u8(address, expected as u8, new as u8)?.is_ok()
            }
            AccessWidth::Word => {
                memory.compare_exchange_u16(address, expected as u16, new as u16)?.is_ok()
            }
            AccessWidth::Dword => {
                memory.compare_exchange_u32(address, expected as u32, new as u32)?.is_ok()
            }
            AccessWidth::Qword => memory.compare_exchange_u64(address, expected, new)?.is_ok(),
        };
        if replaced {
            self.wrote(address, width.bytes() as u64);
        }
        Ok(replaced)
    }

    #[inline]
    fn wrote(&self, address: GuestPhysAddr, bytes: u64) {
        if let Some(shadow) = self.shadow {
            shadow.wrote(self.memory, address, bytes);
        }
    }
}

impl ShadowWatch<'_> {
    /// Tells of what was written, page by page.
    #[inline(never)]
    fn wrote(self, memory: &GuestMemory, address: GuestPhysAddr, bytes: u64) {
        let Self { mmu, vcpu, control } = self;
        let mut done = 0;
        while done < bytes
            && let Some(at) = address.checked_add(done)
        {
            let count = (bytes - done).min(PAGE_SIZE - at.offset_in(PAGE_SIZE));
            if mmu.wrote(vcpu, memory, at, count).is_err() {
                return control.end(EndReason::ShadowPaging { vcpu, why: StaleHandle::WHY });
            }
            done += count;
        }
    }
}
