// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host memory that the CPU walks as a table: the one place where shadow entries are written.

use core::sync::atomic::{AtomicU64, Ordering};

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};

use super::{entry::ShadowEntry, role::ENTRIES};
use crate::memory::OwnedPages;

/// A page that holds a table.
pub(super) struct TableMemory(OwnedPages);

impl TableMemory {
    /// A table without entries, in one page.
    ///
    /// # Errors
    /// What the host answers.
    pub fn new(host: &'static dyn Host, request: PageRequest) -> Result<Self, HostError> {
        OwnedPages::zeroed(host, request).map(Self)
    }

    /// Where it lies in the host.
    pub fn address(&self) -> HostPhysAddr {
        self.0.address()
    }

    fn entries(&self) -> &[AtomicU64; ENTRIES] {
        // SAFETY: the page is ours, was zeroed when it was allocated, is aligned, and as large as
        // the array; everybody, the CPUs that walk it included, reaches it by aligned accesses of
        // eight bytes only.
        unsafe { self.0.as_ptr().cast().as_ref() }
    }

    /// Entry `index`, modulo the number of entries.
    pub fn read(&self, index: usize) -> ShadowEntry {
        ShadowEntry(self.entries()[index % ENTRIES].load(Ordering::Relaxed))
    }

    /// The first entry in use from entry `from` on.
    pub fn first_in_use(&self, from: usize) -> Option<usize> {
        let entries = self.entries().get(from..)?;
        let in_use = |entry: &AtomicU64| ShadowEntry(entry.load(Ordering::Relaxed)).is_present();
        let found = entries.iter().position(in_use)?;
        Some(from + found)
    }

    /// Replaces that entry and returns the old one; CPUs that walk the table see one of the two.
    pub fn write(&mut self, index: usize, entry: ShadowEntry) -> ShadowEntry {
        ShadowEntry(self.entries()[index % ENTRIES].swap(entry.0, Ordering::Release))
    }
}
