// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small guest in 64-bit mode, for tests that follow single steps.

use host_iface::PageRequest;
use host_mock::MockHost;

use crate::{
    GuestPhysAddr,
    memory::{GuestMemory, OwnedPages},
    paging::walk::{Access, AccessKind, AddressSpace, PagingFeatures, Privilege},
    state::{ControlRegisters, cr0, cr4, efer},
};

/// An entry that is present, writable, accessed and dirty.
pub const MAPS: u64 = 0x63;

/// The first `frames` frames of guest-physical space. If that is less than 2 MiB, nothing is mapped
/// by large pages.
pub fn memory(frames: u64) -> (&'static MockHost, GuestMemory) {
    let host = MockHost::leak(1);
    let mut memory = GuestMemory::new();
    let pages = OwnedPages::zeroed(host, PageRequest::contiguous(frames)).unwrap();
    memory.add(GuestPhysAddr::new(0), pages).unwrap();
    (host, memory)
}

/// The address space below the table at `root`.
pub fn space(root: u64) -> AddressSpace {
    AddressSpace {
        control: ControlRegisters {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: root,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA,
            ..ControlRegisters::default()
        },
        alignment_check: false,
        features: PagingFeatures {
            physical_address_bits: 40,
            gigabyte_pages: true,
            table_global_reserved: false,
        },
        page_directory_pointers: None,
    }
}

/// An access of the kernel.
pub fn access(kind: AccessKind) -> Access {
    Access { kind, privilege: Privilege::Supervisor }
}
