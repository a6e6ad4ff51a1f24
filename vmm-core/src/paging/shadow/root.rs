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
    role::{ALL_RIGHTS, ENTRIES, Gfn, GuestMode, LARGE_FRAMES, Level, Role, Source, Switches},
    table_memory::TableMemory,
};
use crate::{GuestPhysAddr, memory::GuestMemory, paging::walk::AddressSpace};

const FOUR_GIB: u64 = 1 << 32;
const PRESENT: u64 = 1;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// CR3 outside long mode.
const CR3_LEGACY: u64 = 0xFFFF_F000;
const CR3_PAE: u64 = 0xFFFF_FFE0;
/// Entries at the root of PAE paging.
const POINTERS: usize = 4;
/// So often do they fit into a page.
const PLACES: usize = ENTRIES / POINTERS;

/// The root of one vCPU.
pub(super) struct Root {
    /// Places for the four entries of PAE paging. The first stays empty: a root of either format
    /// that maps nothing.
    pointers: TableMemory,
    /// The place that was used last.
    place: usize,
    mode: GuestMode,
    /// The root, or with PAE tables the page directories.
    directories: [Option<PageHandle>; 4],
    address: HostPhysAddr,
    /// Where the last fault was for which there was nothing to do.
    pub(super) unexplained: Option<u64>,
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
        Ok(Self { pointers, place: 0, mode, directories, address, unexplained: None })
    }

    /// What the CPU's CR3 has to hold.
    pub(super) const fn address(&self) -> HostPhysAddr {
        self.address
    }

    /// True if the table is the root, or one of the page directories.
    pub(super) fn holds(&self, handle: PageHandle) -> bool {
        self.directories.contains(&Some(handle))
    }

    /// Takes the next place for a root of PAE paging.
    fn next_place(&mut self) {
        self.place = self.place % (PLACES - 1) + 1;
        let offset = (self.place * POINTERS * size_of::<ShadowEntry>()) as u64;
        self.address = HostPhysAddr::new(self.pointers.address().as_u64() + offset);
    }

    /// Replaces entry `slot` of the place that is used.
    fn set_pointer(&mut self, slot: usize, pointer: ShadowEntry) {
        self.pointers.write(self.place * POINTERS + slot, pointer);
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
            if pointer & PRESENT == 0 {
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
        let root = self.root_mut();
        root.mode = mode;
        if mode != GuestMode::Long {
            root.next_place();
        }
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
                root.set_pointer(slot, ShadowEntry::pae_pointer(address));
            }
        }
        self.resync_reachable(memory)
    }

    /// Gives the root back; the vCPU is outside the guest.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn release_root(&mut self) -> Result<(), StaleHandle> {
        for slot in 0..4 {
            let root = self.root_mut();
            root.set_pointer(slot, ShadowEntry::EMPTY);
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

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::{
        Doorbell, PAGE_SIZE,
        memory::OwnedPages,
        paging::walk::PagingFeatures,
        state::{ControlRegisters, cr0, cr4, efer},
    };

    const BYTES: u64 = 1 << 20;

    fn machine() -> (GuestMemory, Mmu) {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        let pages = OwnedPages::zeroed(host, PageRequest::contiguous(BYTES / PAGE_SIZE)).unwrap();
        memory.add(GuestPhysAddr::new(0), pages).unwrap();
        let mmu = Mmu::new(host, &memory, 64, true, alloc::vec![Doorbell::disconnected()]);
        (memory, mmu.unwrap())
    }

    fn space(efer: u64, pointers: Option<[u64; 4]>) -> AddressSpace {
        let control = ControlRegisters {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: 0x1000,
            cr4: cr4::PAE,
            efer,
            cr2: 0,
        };
        AddressSpace {
            control,
            alignment_check: false,
            features: PagingFeatures {
                physical_address_bits: 40,
                gigabyte_pages: false,
                table_global_reserved: false,
            },
            page_directory_pointers: pointers,
        }
    }

    fn pointers(root: &Root) -> [u64; 4] {
        let offset = root.address().as_u64() - root.pointers.address().as_u64();
        assert_eq!(offset % 32, 0);
        let first = offset as usize / 8;
        core::array::from_fn(|slot| root.pointers.read(first + slot).0)
    }

    #[test]
    fn each_load_of_pae_paging_gives_another_root() {
        let (memory, mut mmu) = machine();
        let empty = mmu.root().address();
        let mut last = empty;
        for turn in 0..2 * PLACES as u64 {
            let kept = [0x2001 + (turn & 1) * 0x1000, 0, 0, 0x8001];
            mmu.load_root(&memory, &space(0, Some(kept))).unwrap();
            let root = mmu.root();
            assert!(root.address() != last && root.address() != empty);
            let [first, second, third, fourth] = pointers(root);
            assert!(first & 1 == 1 && fourth & 1 == 1 && (second, third) == (0, 0));
            last = root.address();
        }
        mmu.release_root().unwrap();
        assert_eq!((mmu.root().address(), pointers(mmu.root())), (empty, [0; 4]));
        assert!((0..ENTRIES).all(|entry| !mmu.root().pointers.read(entry).is_present()));
    }

    #[test]
    fn the_pointers_that_the_processor_keeps_count_not_those_in_memory() {
        let (memory, mut mmu) = machine();
        memory.write_u64(GuestPhysAddr::new(0x1000), 0x5001).unwrap();
        mmu.load_root(&memory, &space(0, Some([0; 4]))).unwrap();
        assert_eq!(pointers(mmu.root()), [0; 4]);
        mmu.load_root(&memory, &space(0, None)).unwrap();
        assert!(pointers(mmu.root())[0] & 1 == 1);
        assert!(!mmu.root_is_outdated(&memory, &space(0, None), 0).unwrap());
        assert!(mmu.root_is_outdated(&memory, &space(0, Some([0; 4])), 0).unwrap());
    }

    #[test]
    fn a_table_of_long_mode_has_one_root() {
        let (memory, mut mmu) = machine();
        mmu.load_root(&memory, &space(efer::LME | efer::LMA, None)).unwrap();
        let root = mmu.root().address();
        mmu.load_root(&memory, &space(0, Some([0x2001, 0, 0, 0]))).unwrap();
        assert_ne!(mmu.root().address(), root);
        mmu.load_root(&memory, &space(efer::LME | efer::LMA, None)).unwrap();
        assert_eq!(mmu.root().address(), root, "it was kept");
    }
}
