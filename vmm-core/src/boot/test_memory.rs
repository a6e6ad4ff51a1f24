// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's memory and its map, for the loaders' tests.

use core::ops::Range;

use host_iface::PageRequest;
use host_mock::MockHost;

use super::{BootImages, MemoryKind, MemoryRange, Module, Start};
use crate::{
    GuestPhysAddr, PAGE_SIZE,
    memory::{GuestMemory, OwnedPages},
};

/// Memory from address zero, with the usual hole below 1 MiB in the map.
pub(crate) struct TestGuest {
    pub(crate) memory: GuestMemory,
    pub(crate) map: Vec<MemoryRange>,
}

impl TestGuest {
    pub(crate) fn with_mib(mib: u64) -> Self {
        let request = PageRequest::contiguous((mib << 20) / PAGE_SIZE);
        let pages = OwnedPages::zeroed(MockHost::leak(1), request).unwrap();
        let mut memory = GuestMemory::new();
        memory.add(GuestPhysAddr::new(0), pages).unwrap();
        let range = |start, end, kind| MemoryRange {
            start: GuestPhysAddr::new(start),
            bytes: end - start,
            kind,
        };
        let mut map = vec![
            range(0, 0x9_FC00, MemoryKind::Usable),
            range(0x9_FC00, 0x10_0000, MemoryKind::Reserved),
        ];
        if mib > 1 {
            map.push(range(0x10_0000, mib << 20, MemoryKind::Usable));
        }
        Self { memory, map }
    }

    pub(crate) fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read(GuestPhysAddr::new(at), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn u32(&self, at: u64) -> u32 {
        self.memory.read_u32(GuestPhysAddr::new(at)).unwrap()
    }

    pub(crate) fn u64(&self, at: u64) -> u64 {
        self.memory.read_u64(GuestPhysAddr::new(at)).unwrap()
    }
}

impl<'a> BootImages<'a> {
    /// A kernel and nothing else.
    pub(crate) fn of(kernel: &'a [u8], memory_map: &'a [MemoryRange]) -> Self {
        let (start, modules) = (Start::Detect, &[][..]);
        Self { kernel, start, modules, command_line: "", memory_map, rsdp: None }
    }
}

/// Modules without texts.
pub(crate) fn modules<'a>(contents: &[&'a [u8]]) -> Vec<Module<'a>> {
    contents.iter().map(|content| Module { content, command_line: "" }).collect()
}

/// Fills memory with what a loader must not rely on being zero.
pub(crate) fn garbage(memory: &GuestMemory, range: Range<u64>) {
    let bytes = vec![0xA5; (range.end - range.start) as usize];
    memory.write(GuestPhysAddr::new(range.start), &bytes).unwrap();
}
