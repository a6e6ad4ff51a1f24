// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults: whose they are, and how those of the shadow tables are mended.

use super::{
    arena::{PageHandle, StaleHandle},
    chain::Target,
    entry::ShadowEntry,
    guest_entry::{Meaning, Piece, meaning, split},
    link::{plain_rights, supervisor_write_rights},
    mmu::{Mmu, ROOM},
    protect::{Roots, WritePermit},
    role::{Gfn, Level, Role},
};
use crate::{
    GuestPhysAddr, GuestVirtAddr,
    memory::GuestMemory,
    paging::walk::{
        Access, AccessKind, AddressSpace, Privilege, Rights, TranslateError, translate,
    },
    state::{cr0, cr4},
};

/// How often a fault is looked at anew because something changed under it.
const MAX_ATTEMPTS: usize = 16;

/// What a vCPU does about a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultAction {
    /// Enter the guest again.
    Resume,
    /// Give the guest its page fault, with this error code.
    Forward(u32),
    /// Emulate the access: there is no memory at this address, or a ROM and it is a write.
    Device(GuestPhysAddr),
    /// Emulate the access, a write to a guest table, and tell the MMU of it.
    TableWrite(GuestPhysAddr),
    /// Emulate the access: no shadow entry can express what is allowed here.
    Emulate,
    /// The budget holds too few tables to go on.
    NoRoom,
    /// A paging mode that no processor model here offers.
    UnsupportedMode,
}

/// One attempt at mending a fault.
enum Attempt {
    Done(FaultAction),
    /// Guest tables may have changed, or tables were given up: look again.
    Again,
}

impl Attempt {
    /// The walk passed an entry that now lacks its accessed or dirty bit. Somebody took the bit
    /// away; or, if the walk led through tables in a ROM, it was never there.
    fn unmarked(from_rom: bool) -> Self {
        if from_rom { Self::Done(FaultAction::Emulate) } else { Self::Again }
    }
}

/// What is to be translated.
struct Request {
    address: u64,
    access: Access,
    /// What the guest's tables say.
    frame: Gfn,
}

impl Mmu {
    /// Finds out whose page fault the access to `address` is, and mends it if it is not the
    /// guest's.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn fault(
        &mut self,
        memory: &GuestMemory,
        space: &AddressSpace,
        address: u64,
        access: Access,
    ) -> Result<FaultAction, StaleHandle> {
        for _ in 0..MAX_ATTEMPTS {
            if !self.make_room(ROOM)? {
                return Ok(FaultAction::NoRoom);
            }
            // What the last attempt took back.
            self.flush();
            if self.root_is_outdated(memory, space, address)? {
                self.load_root(memory, space)?;
                continue;
            }
            let translation = translate(memory, space, GuestVirtAddr::new(address), access);
            let frame = match translation {
                Ok(translation) => Gfn::of(translation.address),
                Err(TranslateError::PageFault(code)) => return Ok(FaultAction::Forward(code)),
                Err(TranslateError::UnsupportedMode) => return Ok(FaultAction::UnsupportedMode),
                Err(TranslateError::Contended | TranslateError::NonCanonical) => break,
            };
            let to_rom = access.kind == AccessKind::Write && self.frames.is_rom(frame);
            if to_rom || self.frames.find(frame).is_none() {
                let offset = address % crate::PAGE_SIZE;
                let at = GuestPhysAddr::new(frame.address().as_u64() + offset);
                return Ok(FaultAction::Device(at));
            }
            let request = Request { address, access, frame };
            if let Attempt::Done(action) = self.mend(memory, space, &request)? {
                self.flush();
                return Ok(action);
            }
        }
        self.flush();
        Ok(FaultAction::Resume)
    }

    /// Goes down the shadow tables, makes those that are missing, and maps the page.
    fn mend(
        &mut self,
        memory: &GuestMemory,
        space: &AddressSpace,
        request: &Request,
    ) -> Result<Attempt, StaleHandle> {
        // A root that is no memory reads as all ones.
        let Some(mut handle) = self.top(request.address) else {
            return Ok(Attempt::Done(FaultAction::Emulate));
        };
        let mut from_rom = false;
        loop {
            let page = self.arena.get_mut(handle)?;
            page.touched = true;
            page.writes = 0;
            let role = page.role;
            let index = role.level.index(request.address);
            from_rom |= role.source.is_guest_table() && self.frames.is_rom(page.gfn);
            let (gfn, below) = match meaning(memory, self.features, page, index) {
                None => return Ok(Attempt::unmarked(from_rom)),
                Some(Meaning::Table(gfn, below)) => (gfn, Some(below)),
                Some(Meaning::Memory(piece)) => {
                    let large = role.level == Level::Two && self.can_be_large(&piece);
                    if large || role.level == Level::One {
                        return self.map_piece(space, request, handle, &piece, from_rom);
                    }
                    (piece.gfn, split(&role, &piece))
                }
            };
            let Some(below) = below else { return Ok(Attempt::Again) };
            if below.source.is_guest_table() && self.frames.find(gfn).is_none() {
                return Ok(Attempt::Done(FaultAction::Emulate));
            }
            handle = self.descend(memory, handle, index, gfn, below)?;
            // The guest could write a table unseen until it was shadowed, and by translations that
            // are cached it can until now. What is read of it before may be out of date for good.
            self.flush();
        }
    }

    fn can_be_large(&self, piece: &Piece) -> bool {
        piece.gfn == piece.gfn.large_base() && self.frames.find_large(piece.gfn).is_some()
    }

    /// The table that entry `index` leads to; it is put there if it is another, or none.
    fn descend(
        &mut self,
        memory: &GuestMemory,
        handle: PageHandle,
        index: usize,
        gfn: Gfn,
        role: Role,
    ) -> Result<PageHandle, StaleHandle> {
        let entry = self.arena.entry_id(handle, index)?;
        if self.arena.read(entry)?.is_present()
            && let Target::Table(child) = self.arena.note(entry)?.target
        {
            let page = self.arena.get(child)?;
            if page.gfn == gfn && page.role == role {
                return Ok(child);
            }
        }
        self.unmap(entry)?;
        let (child, new) = self.obtain(memory, gfn, role)?;
        if !new && role.level != Level::One {
            // What was invalidated while the root did not lead there was not looked at below it.
            self.resync_below(memory, Roots::Table(child))?;
        }
        self.link(entry, child)?;
        Ok(child)
    }

    /// Maps the page, as far as the access and the tables' protection allow.
    fn map_piece(
        &mut self,
        space: &AddressSpace,
        request: &Request,
        handle: PageHandle,
        piece: &Piece,
        from_rom: bool,
    ) -> Result<Attempt, StaleHandle> {
        let Role { level, switches, .. } = self.arena.get(handle)?.role;
        let large = level == Level::Two;
        let first = if large { request.frame.large_base() } else { request.frame };
        let found = if large { self.frames.find_large(first) } else { self.frames.find(first) };
        let Some((frame, host)) = found.filter(|_| first == piece.gfn) else {
            return Ok(Attempt::Again);
        };
        let write = request.access.kind == AccessKind::Write;
        let supervisor = request.access.privilege != Privilege::User;
        let mut rights = plain_rights(piece);
        if write && supervisor && !piece.rights.write {
            let Some(instead) = supervisor_write_rights(piece, &switches) else {
                return Ok(Attempt::Done(FaultAction::Emulate));
            };
            rights = instead;
        }
        rights.write &= !self.frames.is_rom(first);
        let mut action = FaultAction::Resume;
        if !large && self.is_protected(first)? {
            if !write {
                rights.write = false;
            } else {
                match self.permit_write(first)? {
                    WritePermit::Granted => {}
                    WritePermit::Emulate => {
                        rights.write = false;
                        action = FaultAction::TableWrite(first.address());
                    }
                }
            }
        }
        if write && !rights.write && action == FaultAction::Resume {
            return Ok(Attempt::unmarked(from_rom));
        }
        let value = ShadowEntry::page(host, rights, large, piece.global);
        let target = if large { Target::Large(frame) } else { Target::Page(frame) };
        let entry = self.arena.entry_id(handle, level.index(request.address))?;
        let changed = self.map(entry, target, value)?;
        if !changed && action == FaultAction::Resume {
            action = self.unexplained(space, request, piece.rights);
        }
        Ok(Attempt::Done(action))
    }

    /// The shadow tables already allow the access. The vCPU may have had an older translation
    /// cached, which goes now. If the same fault comes again although no entry was changed since,
    /// it was not that: the CPU accessed a system structure on its own behalf, which CR4.SMAP
    /// forbids in user pages even while RFLAGS.AC lifts it for instructions.
    fn unexplained(
        &mut self,
        space: &AddressSpace,
        request: &Request,
        rights: Rights,
    ) -> FaultAction {
        self.stale = true;
        let prevented = space.control.cr0 & cr0::PG != 0 && space.control.cr4 & cr4::SMAP != 0;
        let lifted = prevented && space.alignment_check && rights.user;
        let explicit = request.access.privilege == Privilege::Supervisor
            && request.access.kind != AccessKind::Fetch;
        let this = (request.address, self.arena.changes());
        let again = self.root_mut().unexplained.replace(this) == Some(this);
        if !(lifted && explicit && again) {
            return FaultAction::Resume;
        }
        self.root_mut().unexplained = None;
        let access = Access { privilege: Privilege::ImplicitSupervisor, ..request.access };
        FaultAction::Forward(space.protection_fault(access))
    }

    /// The guest invalidates the translation of `address`: its entry is brought up to date.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn invalidate(
        &mut self,
        memory: &GuestMemory,
        address: u64,
    ) -> Result<(), StaleHandle> {
        self.statistics.invalidations += 1;
        let mut next = self.top(address);
        while let Some(handle) = next {
            let page = self.arena.get(handle)?;
            let (unsynced, index) = (page.unsynced, page.role.level.index(address));
            let target = self.arena.note(self.arena.entry_id(handle, index)?)?.target;
            if unsynced {
                self.revalidate(memory, handle, index)?;
            }
            next = match target {
                Target::Table(child) => Some(child),
                _ => None,
            };
        }
        self.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{sync::Arc, vec::Vec};

    use host_iface::PageRequest;
    use host_mock::MockHost;

    use super::*;
    use crate::{
        Doorbell, VcpuLink,
        memory::OwnedPages,
        paging::shadow::tests::long,
        state::{ControlRegisters, cr0},
    };

    /// RAM up to here, then a ROM of as much.
    const ROM: u64 = 0x20_0000;
    const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;

    fn memory() -> (&'static MockHost, GuestMemory) {
        let host = MockHost::leak(1);
        let mut memory = GuestMemory::new();
        for start in [0, ROM] {
            let request = PageRequest::contiguous(512).aligned_to(ROM);
            let pages = OwnedPages::zeroed(host, request).unwrap();
            memory.add(GuestPhysAddr::new(start), pages).unwrap();
        }
        (host, memory)
    }

    /// Tables from `base` on that map the first 4 KiB pages to `frames`.
    fn write_tables(memory: &GuestMemory, base: u64, frames: &[u64], marks: u64) {
        let put = |at: u64, value: u64| {
            memory.write_u64(GuestPhysAddr::new(base + at), value | PRESENT | WRITE).unwrap();
        };
        for pair in TABLES.windows(2) {
            put(pair[0], (base + pair[1]) | marks);
        }
        for (index, frame) in frames.iter().enumerate() {
            put(TABLES[3] + index as u64 * 8, frame | marks);
        }
    }

    /// Below the table at `root`, or without paging.
    fn space(root: Option<u64>) -> AddressSpace {
        let mut space = long::space(root.unwrap_or(0));
        if root.is_none() {
            space.control = ControlRegisters { cr0: cr0::PE, ..ControlRegisters::default() };
        }
        space
    }

    /// Makes the ROM one, and accesses pages one after the other.
    fn accesses(
        (host, mut memory): (&'static MockHost, GuestMemory),
        space: &AddressSpace,
        list: &[(u64, AccessKind)],
    ) -> Vec<FaultAction> {
        memory.make_rom(GuestPhysAddr::new(ROM)).unwrap();
        let doorbells = alloc::vec![Doorbell::new(host, Arc::<VcpuLink>::default())];
        let mut mmu = Mmu::new(host, &memory, 64, space.features, true, doorbells).unwrap();
        let mut access = |&(address, kind): &(u64, AccessKind)| {
            let action = mmu.fault(&memory, space, address, long::access(kind)).unwrap();
            let first = Gfn::of(GuestPhysAddr::new(ROM)).0;
            for gfn in first..first + 512 {
                let (frame, _) = mmu.frames.find(Gfn(gfn)).unwrap();
                let mut next = mmu.frames.head(frame);
                while let Some(entry) = next {
                    next = mmu.arena.note(entry).unwrap().next;
                    assert!(!mmu.arena.read(entry).unwrap().rights().write, "{gfn:#x}");
                }
            }
            action
        };
        list.iter().map(&mut access).collect()
    }

    #[test]
    fn roms_are_mapped_but_never_writable() {
        use AccessKind::{Fetch, Read, Write};
        let written = FaultAction::Device(GuestPhysAddr::new(ROM + 0x10));
        let list = [(ROM, Fetch), (ROM + 0x10, Write), (ROM, Read), (0x5000, Write)];
        let expected = [FaultAction::Resume, written, FaultAction::Resume, FaultAction::Resume];
        assert_eq!(accesses(memory(), &space(None), &list), expected, "in 2 MiB pages");

        let made = memory();
        write_tables(&made.1, 0, &[ROM, 0x5000], ACCESSED | DIRTY);
        let list = [(0, Read), (0x10, Write), (0, Fetch), (0x1000, Write)];
        assert_eq!(accesses(made, &space(Some(TABLES[0])), &list), expected, "in 4 KiB pages");
    }

    #[test]
    fn tables_in_a_rom_are_used_as_far_as_they_are_marked() {
        use AccessKind::{Read, Write};
        let list = [(0, Read), (0, Write), (0x1000, Read)];
        let (resume, emulate) = (FaultAction::Resume, FaultAction::Emulate);
        for (marks, expected) in [
            (ACCESSED | DIRTY, [resume, resume, resume]),
            (ACCESSED, [resume, emulate, resume]),
            (0, [emulate, emulate, emulate]),
        ] {
            let made = memory();
            write_tables(&made.1, ROM, &[0x5000, ROM], marks);
            let space = space(Some(ROM + TABLES[0]));
            assert_eq!(accesses(made, &space, &list), expected, "{marks:#x}");
        }
    }
}
