// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory while its VM runs.

use zerocopy::{Immutable, IntoBytes};

use super::{GuestMemory, MemoryError};
use crate::{
    AccessWidth, EndReason, GuestPhysAddr, PAGE_SIZE, VmControl,
    paging::shadow::{ShadowMmu, StaleHandle},
};

/// Bytes of the widest value that is replaced at once.
const QUADWORD: u64 = 8;

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
    /// [`MemoryError::OutOfRange`], also for a value that does not lie in an aligned quadword.
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
            _ if !address.is_aligned(width.bytes() as u64) => {
                self.replace_within(address, width, expected, new)?
            }
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

    /// The same in the quadword around it. False also if another part of that has changed.
    #[cold]
    fn replace_within(
        &self,
        address: GuestPhysAddr,
        width: AccessWidth,
        expected: u64,
        new: u64,
    ) -> Result<bool, MemoryError> {
        let (bytes, offset) = (width.bytes(), address.offset_in(QUADWORD));
        if offset + bytes as u64 > QUADWORD {
            return Err(MemoryError::OutOfRange { address, bytes });
        }
        let at = address.align_down(QUADWORD);
        let (mask, shift) = (width.all_ones() << (offset * 8), offset * 8);
        let whole = self.memory.read_u64(at)?;
        if (whole ^ expected << shift) & mask != 0 {
            return Ok(false);
        }
        let changed = whole & !mask | new << shift & mask;
        Ok(self.memory.compare_exchange_u64(at, whole, changed)?.is_ok())
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

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::*;
    use crate::memory::OwnedPages;

    #[test]
    fn unaligned_values_are_replaced_at_once_within_a_quadword() {
        const WHOLE: u64 = 0x8877_6655_4433_2211;
        let mut memory = GuestMemory::new();
        let pages = OwnedPages::zeroed(MockHost::leak(1), PageRequest::contiguous(1)).unwrap();
        memory.add(GuestPhysAddr::new(0), pages).unwrap();
        let live = LiveMemory::new(&memory, None);
        let at = |offset: u64| GuestPhysAddr::new(0x100 + offset);
        for (offset, width, old, new, whole) in [
            (1, AccessWidth::Word, 0x3322, 0xFFFF_ABCD, 0x8877_6655_44AB_CD11),
            (3, AccessWidth::Dword, 0x7766_5544, 0xABCD_EF01, 0x88AB_CDEF_0133_2211),
            (5, AccessWidth::Word, 0x7766, 0, 0x8800_0055_4433_2211),
        ] {
            memory.write_u64(at(0), WHOLE).unwrap();
            assert_eq!(live.compare_exchange(at(offset), width, old + 1, new), Ok(false));
            assert_eq!(memory.read_u64(at(0)), Ok(WHOLE));
            assert_eq!(live.compare_exchange(at(offset), width, old, new), Ok(true));
            assert_eq!(memory.read_u64(at(0)), Ok(whole), "at {offset}");
        }
        for (offset, width) in
            [(7, AccessWidth::Word), (6, AccessWidth::Dword), (1, AccessWidth::Qword)]
        {
            assert!(live.compare_exchange(at(offset), width, 0, 0).is_err(), "at {offset}");
        }
    }

    /// Two CPUs, each of which counts in a half of a doubleword that is not aligned.
    #[test]
    fn nothing_is_lost_that_another_cpu_writes_beside_it() {
        const COUNT: u16 = 2_000;
        let mut memory = GuestMemory::new();
        let pages = OwnedPages::zeroed(MockHost::leak(1), PageRequest::contiguous(1)).unwrap();
        memory.add(GuestPhysAddr::new(0), pages).unwrap();
        let count = |address: u64| {
            let (live, at) = (LiveMemory::new(&memory, None), GuestPhysAddr::new(address));
            for _ in 0..COUNT {
                while {
                    let old = u64::from(memory.read_u16(at).unwrap());
                    live.compare_exchange(at, AccessWidth::Word, old, old + 1) != Ok(true)
                } {}
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| count(0x101));
            count(0x103);
        });
        let counted = [0x101, 0x103].map(|at| memory.read_u16(GuestPhysAddr::new(at)));
        assert_eq!(counted, [Ok(COUNT); 2]);
    }
}
