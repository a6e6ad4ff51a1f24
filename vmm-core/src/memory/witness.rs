// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a place of guest memory again without looking for it.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use super::GuestMemory;
use crate::GuestPhysAddr;

/// A quadword of guest memory, and what it held when it was read.
#[derive(Clone, Copy)]
pub struct Witness {
    at: NonNull<AtomicU64>,
    value: u64,
}

// SAFETY: the quadword is reached by atomic reads alone, which any CPU may do.
unsafe impl Send for Witness {}
// SAFETY: as above.
unsafe impl Sync for Witness {}

/// Holds something else than [`Witness::LIAR`] says.
static NOTHING: AtomicU64 = AtomicU64::new(0);

impl Witness {
    /// One whose quadword never holds what was read.
    pub const LIAR: Self = Self { at: NonNull::from_ref(&NOTHING), value: 1 };

    /// Reads the naturally aligned eight bytes at `address`; `None` if they are not memory, or not
    /// aligned.
    pub fn of(memory: &GuestMemory, address: GuestPhysAddr) -> Option<Self> {
        let at = memory.quadword(address)?;
        // SAFETY: valid and aligned as `quadword` says, while `memory` is borrowed.
        let value = unsafe { at.as_ref() }.load(Ordering::Acquire);
        Some(Self { at, value })
    }

    /// What the quadword held.
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// True if the quadword holds now what it held.
    ///
    /// # Safety
    /// The memory that it was read from is still there.
    #[inline(always)]
    pub unsafe fn holds(&self) -> bool {
        // SAFETY: valid as long as the memory that it is in, and reached only by atomic or raw
        // accesses by everybody.
        unsafe { self.at.as_ref() }.load(Ordering::Acquire) == self.value
    }
}

#[cfg(test)]
mod tests {
    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::*;
    use crate::memory::OwnedPages;

    #[test]
    fn tells_of_every_change_and_of_nothing_else() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        for start in [0x8000, 0xA000] {
            let pages = OwnedPages::zeroed(host, PageRequest::contiguous(1)).unwrap();
            memory.add(GuestPhysAddr::new(start), pages).unwrap();
        }
        let at = GuestPhysAddr::new(0xAFF8);
        memory.write_u64(at, 7).unwrap();
        let witness = Witness::of(&memory, at).unwrap();
        assert_eq!(witness.value(), 7);
        // SAFETY: the memory lives until the end of this function.
        let holds = || unsafe { witness.holds() };
        assert!(holds());
        memory.write_u64(GuestPhysAddr::new(0xAFF0), 1).unwrap();
        assert!(holds());
        for byte in 0..8 {
            memory.write(GuestPhysAddr::new(0xAFF8 + byte), &[0x80]).unwrap();
            assert!(!holds(), "byte {byte}");
            memory.write_u64(at, 7).unwrap();
            assert!(holds());
        }
    }

    #[test]
    fn there_is_none_where_no_aligned_quadword_of_memory_is() {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        let pages = OwnedPages::zeroed(host, PageRequest::contiguous(1)).unwrap();
        memory.add(GuestPhysAddr::new(0x8000), pages).unwrap();
        for at in [0, 0x7FF8, 0x8001, 0x8FFC, 0x9000, u64::MAX, u64::MAX - 7] {
            assert!(Witness::of(&memory, GuestPhysAddr::new(at)).is_none(), "{at:#x}");
        }
        // SAFETY: it is in no guest's memory.
        assert!(!unsafe { Witness::LIAR.holds() });
    }
}
