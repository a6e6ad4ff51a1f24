// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making, judging and removing shadow entries.

use super::{
    arena::{PageHandle, StaleHandle},
    chain::{EntryId, Target},
    entry::ShadowEntry,
    guest_entry::{Meaning, Piece, meaning, split},
    mmu::Mmu,
    role::{Level, Switches},
};
use crate::{memory::GuestMemory, paging::walk::Rights};

/// True if `more` allows all that `less` does.
pub(super) const fn includes(more: Rights, less: Rights) -> bool {
    (more.write || !less.write) && (more.user || !less.user) && (more.execute || !less.execute)
}

/// What a page may be mapped with for user accesses and supervisor reads. It is writable only
/// once the guest's dirty bit is set.
pub(super) const fn plain_rights(piece: &Piece) -> Rights {
    Rights { write: piece.rights.write && piece.dirty, ..piece.rights }
}

/// What a page may be mapped with for supervisor writes that ignore its read-only right, as they
/// do with CR0.WP clear. The CPU runs with CR0.WP set, so the page is mapped writable, and to
/// keep user mode out, as a supervisor page; none if they do not ignore it, or if CR4.SMAP would
/// be lost with the user right.
pub(super) const fn supervisor_write_rights(piece: &Piece, switches: &Switches) -> Option<Rights> {
    let Rights { write, user, execute } = piece.rights;
    if switches.write_protect || write || switches.smap && user {
        return None;
    }
    let execute = execute && !(switches.smep && user);
    Some(Rights { write: piece.dirty, user: false, execute })
}

/// True if an entry with these `rights` gives no more than the guest's entry. A supervisor page
/// gives more than a user page where CR4.SMEP or CR4.SMAP is set.
fn is_admissible(rights: Rights, piece: &Piece, switches: &Switches) -> bool {
    rights.user == piece.rights.user && includes(plain_rights(piece), rights)
        || supervisor_write_rights(piece, switches).is_some_and(|most| includes(most, rights))
}

impl Mmu {
    /// Makes the empty `entry` lead to `child`.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn link(&mut self, entry: EntryId, child: PageHandle) -> Result<(), StaleHandle> {
        let address = self.arena.address(child)?;
        let head = self.arena.get(child)?.parents;
        let head = self.arena.chain(entry, Target::Table(child), head)?;
        self.arena.get_mut(child)?.parents = head;
        self.arena.write(entry, ShadowEntry::table(address))
    }

    /// Makes `entry` map a page. False if it did so already, in exactly this way.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn map(
        &mut self,
        entry: EntryId,
        target: Target,
        value: ShadowEntry,
    ) -> Result<bool, StaleHandle> {
        let (Target::Page(frame) | Target::Large(frame)) = target else { return Err(StaleHandle) };
        let old = self.arena.read(entry)?;
        let same_page = old.is_present() && self.arena.note(entry)?.target == target;
        if same_page {
            let only_more = includes(value.rights(), old.rights());
            self.stale |= !only_more || old.is_global() != value.is_global();
        } else {
            self.unmap(entry)?;
            let head = self.arena.chain(entry, target, self.frames.head(frame))?;
            self.frames.set_head(frame, head);
        }
        self.arena.write(entry, value)?;
        Ok(old != value || !same_page)
    }

    /// Empties `entry`, whatever it leads to.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn unmap(&mut self, entry: EntryId) -> Result<(), StaleHandle> {
        if !self.arena.read(entry)?.is_present() {
            return Ok(());
        }
        match self.arena.note(entry)?.target {
            Target::Table(child) => {
                let head = self.arena.get(child)?.parents;
                let head = self.arena.unchain(entry, head)?;
                self.arena.get_mut(child)?.parents = head;
            }
            Target::Page(frame) | Target::Large(frame) => {
                let head = self.arena.unchain(entry, self.frames.head(frame))?;
                self.frames.set_head(frame, head);
            }
            Target::Empty => return Err(StaleHandle),
        }
        self.stale = true;
        self.arena.write(entry, ShadowEntry::EMPTY)
    }

    /// Empties entry `index` of a table, unless the guest's entry still says what it was made
    /// from.
    ///
    /// # Errors
    /// [`StaleHandle`].
    pub(super) fn revalidate(
        &mut self,
        memory: &GuestMemory,
        handle: PageHandle,
        index: usize,
    ) -> Result<(), StaleHandle> {
        let entry = self.arena.entry_id(handle, index)?;
        let value = self.arena.read(entry)?;
        if !value.is_present() {
            return Ok(());
        }
        let page = self.arena.get(handle)?;
        let target = self.arena.note(entry)?.target;
        let valid = match (target, meaning(memory, self.features, page, index)) {
            (Target::Table(child), Some(Meaning::Table(gfn, role))) => {
                let child = self.arena.get(child)?;
                child.gfn == gfn && child.role == role
            }
            (Target::Table(child), Some(Meaning::Memory(piece))) => {
                let child = self.arena.get(child)?;
                child.gfn == piece.gfn && split(&page.role, &piece) == Some(child.role)
            }
            (Target::Page(frame) | Target::Large(frame), Some(Meaning::Memory(piece))) => {
                let large = matches!(target, Target::Large(_));
                self.frames.find(piece.gfn).is_some_and(|(found, _)| found == frame)
                    && large == (page.role.level == Level::Two)
                    && value.is_global() == piece.global
                    && is_admissible(value.rights(), &piece, &page.role.switches)
            }
            _ => false,
        };
        if valid { Ok(()) } else { self.unmap(entry) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::role::{ALL_RIGHTS, Gfn},
        *,
    };

    const OPEN: Switches =
        Switches { write_protect: false, no_execute: true, smep: false, smap: false };

    fn piece(write: bool, user: bool, dirty: bool) -> Piece {
        let rights = Rights { write, user, execute: true };
        Piece { gfn: Gfn(1), rights, dirty, global: false }
    }

    #[test]
    fn nothing_is_writable_before_it_is_dirty() {
        assert!(!plain_rights(&piece(true, true, false)).write);
        assert!(plain_rights(&piece(true, true, true)).write);
        let read_only = piece(false, true, false);
        assert!(!supervisor_write_rights(&read_only, &OPEN).unwrap().write);
    }

    #[test]
    fn supervisor_writes_lock_user_mode_out() {
        let read_only = piece(false, true, true);
        let rights = supervisor_write_rights(&read_only, &OPEN).unwrap();
        assert_eq!(rights, Rights { user: false, ..ALL_RIGHTS });
        let smep = Switches { smep: true, ..OPEN };
        assert!(!supervisor_write_rights(&read_only, &smep).unwrap().execute);
        assert!(supervisor_write_rights(&piece(false, false, true), &smep).unwrap().execute);
        assert_eq!(supervisor_write_rights(&read_only, &Switches { smap: true, ..OPEN }), None);
        let protected = Switches { write_protect: true, ..OPEN };
        assert_eq!(supervisor_write_rights(&read_only, &protected), None);
        assert_eq!(supervisor_write_rights(&piece(true, true, true), &OPEN), None);
    }

    #[test]
    fn entries_may_give_less_but_not_more() {
        let read_only = piece(false, true, true);
        let supervisor = Rights { user: false, ..ALL_RIGHTS };
        assert!(is_admissible(
            Rights { write: false, user: true, execute: false },
            &read_only,
            &OPEN
        ));
        assert!(is_admissible(supervisor, &read_only, &OPEN));
        assert!(!is_admissible(ALL_RIGHTS, &read_only, &OPEN));
        let protected = Switches { write_protect: true, ..OPEN };
        assert!(!is_admissible(supervisor, &read_only, &protected));
        let user = piece(true, true, true);
        assert!(!is_admissible(supervisor, &user, &OPEN), "SMEP and SMAP would be lost");
    }
}
