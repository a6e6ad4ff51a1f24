// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots: what the CPU's CR3 holds while the guest runs.
//!
//! A guest in long mode runs on shadow tables of four levels, whose root shadows the table at the
//! guest's CR3. Every other guest runs on PAE tables: four page directories, to which four entries
//! lead that are no shadow of anything, for with PAE paging CR3 holds 32 bits, so the table that
//! it points to must lie below 4 GiB. Each vCPU has a page there for them.

use host_iface::{Host, HostError, HostPhysAddr, PageRequest};

use super::{
    arena::{PageHandle, StaleHandle},
    entry::ShadowEntry,
    mmu::Mmu,
    protect::Roots,
    role::{ALL_RIGHTS, Gfn, GuestMode, LARGE_FRAMES, Level, Role, Source, Switches},
    table_memory::TableMemory,
};
use crate::{
    GuestPhysAddr,
    memory::GuestMemory,
    paging::walk::{
        AddressSpace, Mode,
        rules::{Architecture, Rules},
    },
};

const FOUR_GIB: u64 = 1 << 32;
const PRESENT: u64 = 1;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// CR3 outside long mode.
const CR3_LEGACY: u64 = 0xFFFF_F000;
const CR3_PAE: u64 = 0xFFFF_FFE0;
/// Level of the entries at the root of PAE paging.
const POINTER_LEVEL: u8 = 3;

/// The root of one vCPU.
pub(super) struct Root {
    /// Four entries for PAE paging; all empty, it is a root of either format that maps nothing.
    pointers: TableMemory,
    mode: GuestMode,
    /// The root, or with PAE tables the page directories.
    directories: [Option<PageHandle>; 4],
    address: HostPhysAddr,
    /// Where the last fault was for which there was nothing to do, and how often the shadow tables
    /// had been changed by then.
    pub(super) unexplained: Option<(u64, u64)>,
}

impl Root {
    /// A root that maps nothing.
    ///
    /// # Errors
    /// When the host has no memory below 4 GiB.
    pub(super) fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let pointers = TableMemory::new(host, PageRequest::contiguous(1).below(FOUR_GIB))?;
        let address = pointers.address();
        let (mode, directories) = (GuestMode::Unpaged, [None; 4]);
        Ok(Self { pointers, mode, directories, address, unexplained: None })
    }

    /// What the CPU's CR3 has to hold.
    pub(super) const fn address(&self) -> HostPhysAddr {
        self.address
    }

    /// True if the table is the root, or one of the page directories.
    pub(super) fn holds(&self, handle: PageHandle) -> bool {
        self.directories.contains(&Some(handle))
    }

    /// How often the table is the root, or one of the page directories.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn uses(&self, handle: PageHandle) -> usize {
        self.directories.iter().filter(|directory| **directory == Some(handle)).count()
    }

    /// One of the four entries of PAE paging.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn pointer(&self, slot: usize) -> ShadowEntry {
        self.pointers.read(slot)
    }

    const fn slot(&self, address: u64) -> usize {
        match self.mode {
            GuestMode::Long => 0,
            _ => (address >> 30) as usize & 3,
        }
    }
}

/// What the guest's CR3 leads to in entry `slot`, if it is memory.
fn directory(
    memory: &GuestMemory,
    space: &AddressSpace,
    mode: GuestMode,
    slot: usize,
) -> Option<(Gfn, Role)> {
    let cr3 = space.control.cr3;
    let switches = Switches::of(&space.control);
    let role = |level, source| Role { level, source, rights: ALL_RIGHTS, switches };
    let frame = |address| Gfn::of(GuestPhysAddr::new(address));
    let (gfn, role) = match mode {
        GuestMode::Long if slot == 0 => (frame(cr3 & ADDRESS), role(Level::Four, Source::Long)),
        GuestMode::Long => return None,
        GuestMode::Unpaged => {
            let gfn = Gfn(slot as u64 * LARGE_FRAMES * LARGE_FRAMES);
            return Some((gfn, role(Level::Two, Source::Linear { dirty: true })));
        }
        GuestMode::Legacy { large_pages } => {
            let source = Source::Legacy { part: slot as u8, large_pages };
            (frame(cr3 & CR3_LEGACY), role(Level::Two, source))
        }
        GuestMode::Pae => {
            let pointer = match space.page_directory_pointers {
                Some(kept) => kept[slot],
                None => {
                    let at = GuestPhysAddr::new((cr3 & CR3_PAE) + slot as u64 * 8);
                    memory.read_u64(at).unwrap_or(u64::MAX)
                }
            };
            let reserved = Architecture::reserved(space, Mode::Pae, POINTER_LEVEL, pointer);
            if pointer & PRESENT == 0 || pointer & reserved != 0 {
                return None;
            }
            (frame(pointer & ADDRESS), role(Level::Two, Source::Pae))
        }
    };
    memory.contains(gfn.address()).then_some((gfn, role))
}

impl Mmu {
    /// The root of the current vCPU.
    pub(super) fn root(&self) -> &Root {
        // There is one for each vCPU, and `current` is one of them.
        &self.roots[self.current]
    }

    pub(super) fn root_mut(&mut self) -> &mut Root {
        &mut self.roots[self.current]
    }

    /// The topmost table that translates `address`.
    pub(super) fn top(&self, address: u64) -> Option<PageHandle> {
        let root = self.root();
        root.directories.get(root.slot(address)).copied().flatten()
    }

    /// Loads the root that the guest's control registers ask for, and brings up to date what it
    /// leads to. There is room.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn load_root(
        &mut self,
        memory: &GuestMemory,
        space: &AddressSpace,
    ) -> Result<(), StaleHandle> {
        self.release_root()?;
        let mode = GuestMode::of(&space.control);
        self.root_mut().mode = mode;
        for slot in 0..4 {
            let Some((gfn, role)) = directory(memory, space, mode, slot) else { continue };
            let (handle, _) = self.obtain(memory, gfn, role)?;
            let address = self.arena.address(handle)?;
            let page = self.arena.get_mut(handle)?;
            page.roots += 1;
            page.touched = true;
            let root = self.root_mut();
            root.directories[slot] = Some(handle);
            if mode == GuestMode::Long {
                root.address = address;
            } else {
                root.pointers.write(slot, ShadowEntry::pae_pointer(address));
            }
        }
        self.resync_below(memory, Roots::Current)
    }

    /// Gives the root back; the vCPU is outside the guest.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn release_root(&mut self) -> Result<(), StaleHandle> {
        if self.root().mode != GuestMode::Long {
            // The next root has the same address, so that the CPU does not see that it is another.
            self.shootdown.outdate(self.current);
        }
        for slot in 0..4 {
            let root = self.root_mut();
            root.pointers.write(slot, ShadowEntry::EMPTY);
            root.address = root.pointers.address();
            let Some(handle) = root.directories[slot].take() else { continue };
            let page = self.arena.get_mut(handle)?;
            page.roots -= 1;
            if page.roots == 0 && page.obsolete {
                self.stale = true;
                self.arena.remove(handle)?;
            }
        }
        Ok(())
    }

    /// True if the current root is no longer what the guest's control registers ask for at
    /// `address`: its table was given up, or an entry that PAE paging loads CR3 with was changed.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn root_is_outdated(
        &self,
        memory: &GuestMemory,
        space: &AddressSpace,
        address: u64,
    ) -> Result<bool, StaleHandle> {
        let root = self.root();
        let slot = root.slot(address);
        let wanted = directory(memory, space, root.mode, slot);
        let Some(handle) = root.directories[slot] else { return Ok(wanted.is_some()) };
        let page = self.arena.get(handle)?;
        Ok(page.obsolete || wanted != Some((page.gfn, page.role)))
    }
}
