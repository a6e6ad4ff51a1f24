// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host pages that give themselves back.

use core::ptr::NonNull;

use host_iface::{Host, HostError, HostPhysAddr, PAGE_SIZE, PageRequest, PageRun};

/// A run of host pages, owned: dropping it returns them to the host.
pub struct OwnedPages {
    host: &'static dyn Host,
    run: PageRun,
    /// Where the CPU finds the first byte: asked for once, since every access to a control block
    /// or to guest memory needs it.
    first: NonNull<u8>,
}

// SAFETY: the pages belong to the handle alone and carry no thread affinity; all access to
// them goes through raw pointers whose users argue their own synchronisation.
unsafe impl Send for OwnedPages {}
// SAFETY: as above; a shared reference gives out addresses only.
unsafe impl Sync for OwnedPages {}

impl OwnedPages {
    /// Allocates pages with undefined content.
    ///
    /// # Errors
    /// What the host answers.
    pub fn allocate(host: &'static dyn Host, request: PageRequest) -> Result<Self, HostError> {
        let run = host.allocate_pages(request)?;
        Ok(Self { host, run, first: host.phys_to_virt(run.start) })
    }

    /// Allocates pages filled with zeroes.
    ///
    /// # Errors
    /// What the host answers.
    pub fn zeroed(host: &'static dyn Host, request: PageRequest) -> Result<Self, HostError> {
        let pages = Self::allocate(host, request)?;
        pages.fill(0);
        Ok(pages)
    }

    /// Fills all pages with `byte`.
    pub fn fill(&self, byte: u8) {
        // SAFETY: the run is ours, mapped whole and contiguous by `phys_to_virt`'s contract.
        unsafe { self.as_ptr().write_bytes(byte, self.bytes()) }
    }

    /// Physical address of the first byte.
    #[inline]
    pub fn address(&self) -> HostPhysAddr {
        self.run.start
    }

    /// Length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        (self.run.pages * PAGE_SIZE) as usize
    }

    /// The first byte as the CPU reaches it; valid for [`bytes`](Self::bytes) while the
    /// handle lives.
    #[inline]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.first
    }
}

impl Drop for OwnedPages {
    fn drop(&mut self) {
        self.host.release_pages(self.run);
    }
}
