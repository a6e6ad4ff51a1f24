// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation of guest-virtual addresses through the guest's own page tables.
//!
//! Covers no paging, 32-bit paging (with PSE and PSE-36), PAE paging and 4-level paging
//! (AMD APM vol. 2, chapter 5; Intel SDM vol. 3, chapter 4). Accessed and dirty bits are set
//! atomically, and only when the access is allowed. Page-table entries where there is no
//! memory read as all ones, as a floating bus does.
//!
//! The four page-directory-pointer entries of PAE paging are those that the processor keeps, or
//! are read on each walk where it keeps none; see
//! [`AddressSpace::page_directory_pointers`].

mod pass;
mod probe;
pub(super) mod rules;
mod space;

pub use probe::probe;
pub use space::{Access, AccessKind, AddressSpace, PagingFeatures, Privilege, Rights, page_fault};

use crate::address::{GuestPhysAddr, GuestVirtAddr};
use pass::Pass;
use rules::{Architecture, Rules};
pub(super) use space::Mode;

/// Nothing answered at a guest-physical address, or it refused the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusError;

/// Guest-physical memory as the page walker needs it.
///
/// Addresses are aligned to the size of the access. Several virtual CPUs may walk at once.
pub trait PhysicalMemory {
    /// Reads 4 bytes.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory.
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError>;

    /// Reads 8 bytes.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory.
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError>;

    /// Replaces `expected` by `new` atomically; false if the value was another.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory or it cannot be written.
    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        expected: u32,
        new: u32,
    ) -> Result<bool, BusError>;

    /// Replaces `expected` by `new` atomically; false if the value was another.
    ///
    /// # Errors
    /// [`BusError`] where there is no memory or it cannot be written.
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError>;
}

/// Size of the page an address lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 4 MiB (32-bit paging with PSE).
    Size4M,
    /// 1 GiB.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size4M => 4 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

/// A successful translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The guest-physical address.
    pub address: GuestPhysAddr,
    /// The page it lies in. Without paging: 4 KiB.
    pub page_size: PageSize,
    /// Rights of the page.
    pub rights: Rights,
    /// The page's dirty bit after this access: while it is clear, a write must walk again.
    pub dirty: bool,
    /// The page's global bit.
    pub global: bool,
}

/// Why an address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TranslateError {
    /// #PF with this error code.
    PageFault(u32),
    /// The address is not canonical: #GP or #SS before any walk.
    NonCanonical,
    /// Another CPU kept changing the page tables; let the guest run and try again.
    Contended,
    /// 5-level paging or protection keys, which no processor model here offers.
    UnsupportedMode,
}

/// How often a walk restarts because an entry changed under it.
const MAX_RESTARTS: usize = 32;

/// Translates `address` for `access` and sets accessed and dirty bits as a processor would.
///
/// Outside 64-bit paging only the low 32 bits of `address` count.
///
/// # Errors
/// See [`TranslateError`]; a page fault carries the exact error code.
pub fn translate<M: PhysicalMemory + ?Sized>(
    memory: &M,
    space: &AddressSpace,
    address: GuestVirtAddr,
    access: Access,
) -> Result<Translation, TranslateError> {
    translate_by::<Architecture, M>(memory, space, address, access)
}

/// [`translate`] by other rules than the architecture's: tests break single rules to see that it
/// is noticed.
pub(super) fn translate_by<R: Rules, M: PhysicalMemory + ?Sized>(
    memory: &M,
    space: &AddressSpace,
    address: GuestVirtAddr,
    access: Access,
) -> Result<Translation, TranslateError> {
    let mode = space.mode()?;
    if mode == Mode::FourLevel && !address.is_canonical() {
        return Err(TranslateError::NonCanonical);
    }
    if mode == Mode::Unpaged {
        return Ok(Translation {
            address: GuestPhysAddr::new(address.as_u64() & 0xFFFF_FFFF),
            page_size: PageSize::Size4K,
            rights: Rights::ALL,
            dirty: true,
            global: false,
        });
    }
    for _ in 0..MAX_RESTARTS {
        let mut pass = Pass::<R, M>::new(memory, space, mode, address.as_u64(), access);
        pass.run().map_err(TranslateError::PageFault)?;
        if let Some(translation) = pass.finish() {
            return Ok(translation);
        }
    }
    Err(TranslateError::Contended)
}
