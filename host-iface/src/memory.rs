// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests for physical memory and what they yield.

use crate::HostPhysAddr;

/// Size of the smallest unit of physical memory a host hands out, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// A NUMA node of the host, numbered as the firmware does (ACPI SRAT proximity domain).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NumaNode(pub u32);

/// A request for physically contiguous memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// Number of 4 KiB pages; at least one.
    pub pages: u64,
    /// Alignment of the first page in bytes; a power of two, at least [`PAGE_SIZE`].
    pub alignment: u64,
    /// The run must end at or below this address, in bytes.
    pub below: u64,
    /// Node the memory should come from; a host without NUMA ignores it.
    pub node: Option<NumaNode>,
}

impl PageRequest {
    /// `pages` contiguous pages with page alignment from any node.
    pub const fn contiguous(pages: u64) -> Self {
        Self { pages, alignment: PAGE_SIZE, below: u64::MAX, node: None }
    }

    /// The same request with the first page aligned to `alignment` bytes.
    pub const fn aligned_to(self, alignment: u64) -> Self {
        Self { alignment, ..self }
    }

    /// The same request with the run ending at or below `below`, for hardware that has no room
    /// for a longer address.
    pub const fn below(self, below: u64) -> Self {
        Self { below, ..self }
    }
}

/// A run of contiguous physical pages that a host handed out.
///
/// It is a plain description: releasing it is a call to
/// [`Host::release_pages`](crate::Host::release_pages). The VMM wraps it in an owning handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// Address of the first byte; aligned as requested.
    pub start: HostPhysAddr,
    /// Number of 4 KiB pages.
    pub pages: u64,
}

impl PageRun {
    /// Length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }
}
