// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual machine control structure, with what is known of it kept in ordinary memory.
//!
//! VMREAD and VMWRITE are slow, and work only on the CPU where the structure is current. So a
//! value is read at most once between two entries, written at most once and only if it
//! changed, and all of it stays at hand while the structure is on no CPU.

use core::cell::Cell;

use host_iface::{Host, HostError, PageRequest};

use super::{
    field::{Class, Field, FieldSet},
    instruction,
};
use crate::memory::OwnedPages;

/// A VMCS.
pub struct Vmcs {
    region: OwnedPages,
    values: [Cell<u64>; Field::ALL.len()],
    /// Fields whose value here is that of the guest's next entry.
    known: Cell<FieldSet>,
    /// Fields whose value here is not yet in the structure.
    dirty: FieldSet,
    /// Fields that this CPU model has.
    existing: FieldSet,
    is_current: bool,
    is_launched: bool,
    accesses: Cell<u64>,
}

impl Vmcs {
    /// A structure for CPUs with this revision and these fields, all of them zero.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(
        host: &'static dyn Host,
        revision: u32,
        existing: FieldSet,
    ) -> Result<Self, HostError> {
        let region = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
        write_revision(&region, revision);
        Ok(Self {
            region,
            values: [const { Cell::new(0) }; Field::ALL.len()],
            known: Cell::new(!Field::set_of(Class::Exit)),
            dirty: !Field::set_of(Class::Exit),
            existing,
            is_current: false,
            is_launched: false,
            accesses: Cell::new(0),
        })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.region.bytes()
    }

    /// VMREADs and VMWRITEs so far.
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// True once the guest was entered on this CPU: it has to be resumed, not launched.
    pub fn is_launched(&self) -> bool {
        self.is_launched
    }

    /// Makes the structure current on the calling CPU; false if the CPU refuses it.
    ///
    /// # Safety
    /// The CPU is in VMX operation, and the structure is current on no CPU.
    pub unsafe fn load(&mut self) -> bool {
        let address = self.region.address().as_u64();
        // SAFETY: the caller's promise. Clearing brings a new structure into its initial
        // state, and changes nothing of one that was cleared before.
        self.is_current = unsafe { instruction::vmclear(address) && instruction::vmptrld(address) };
        self.is_launched = false;
        self.is_current
    }

    /// Takes the structure off the calling CPU, where it is current.
    pub fn put(&mut self) {
        let missing = Field::set_of(Class::Guest) & !self.known.get();
        for_each(missing, |field| {
            self.read(field);
        });
        self.write_back();
        // SAFETY: `load` made it current here, so the CPU is in VMX operation.
        unsafe { instruction::vmclear(self.region.address().as_u64()) };
        self.is_current = false;
        self.is_launched = false;
    }

    /// The value of `field`.
    #[inline]
    pub fn read(&self, field: Field) -> u64 {
        let value = &self.values[field as usize];
        if self.known.get() & field.bit() == 0 && self.is_current {
            self.accesses.set(self.accesses.get() + 1);
            // SAFETY: the structure is current on this CPU. A field that does not exist keeps
            // its last value.
            if let Some(read) = unsafe { instruction::vmread(field.encoding()) } {
                value.set(read);
            }
            self.known.set(self.known.get() | field.bit());
        }
        value.get()
    }

    /// Gives `field` a value, at the next entry.
    #[inline]
    pub fn write(&mut self, field: Field, value: u64) {
        let known = self.known.get() & field.bit() != 0;
        if known && self.values[field as usize].get() == value {
            return;
        }
        self.values[field as usize].set(value);
        self.known.set(self.known.get() | field.bit());
        self.dirty |= field.bit();
    }

    /// Notes that the CPU has given `field` this value.
    #[inline]
    pub fn note(&mut self, field: Field, value: u64) {
        self.values[field as usize].set(value);
        self.known.set(self.known.get() | field.bit());
        self.dirty &= !field.bit();
    }

    /// Notes that the CPU may have changed `field`, of the class [`Class::Kept`], so that the
    /// next value is written whatever it is.
    #[inline]
    pub fn forget(&mut self, field: Field) {
        self.known.set(self.known.get() & !field.bit());
    }

    /// Brings all new values into the structure, which is current.
    #[inline]
    pub fn write_back(&mut self) {
        for_each(self.dirty & self.existing, |field| {
            self.accesses.set(self.accesses.get() + 1);
            let value = self.values[field as usize].get();
            // SAFETY: the structure is current on this CPU. That its values keep the guest
            // inside is argued where the guest is entered.
            unsafe { instruction::vmwrite(field.encoding(), value) };
        });
        self.dirty = 0;
    }

    /// The guest was entered and has exited: what it or the CPU may have changed is unknown.
    #[inline]
    pub fn guest_exited(&mut self) {
        self.is_launched = true;
        self.exit_information_changed();
        self.known.set(self.known.get() & !Field::set_of(Class::Guest));
        // The CPU takes back the request to deliver an event (SDM vol. 3, 27.2).
        self.values[Field::EntryEvent as usize].set(0);
    }

    /// The CPU refused an entry and says why.
    pub fn entry_failed(&mut self) {
        self.exit_information_changed();
    }

    fn exit_information_changed(&self) {
        self.known.set(self.known.get() & !Field::set_of(Class::Exit));
    }
}

/// Writes the revision that the CPU expects in the first word of a VMCS or VMXON region.
pub fn write_revision(region: &OwnedPages, revision: u32) {
    // SAFETY: the region is a page of ours that no CPU has been told of yet.
    unsafe { region.as_ptr().cast::<u32>().write_volatile(revision) }
}

#[inline]
fn for_each(mut set: FieldSet, mut action: impl FnMut(Field)) {
    while set != 0 {
        let number = set.trailing_zeros() as usize;
        set &= set - 1;
        if let Some(field) = Field::ALL.get(number) {
            action(*field);
        }
    }
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;

    fn current() -> Vmcs {
        let mut vmcs = Vmcs::new(MockHost::leak(1), 0x12, !0).unwrap();
        // SAFETY: in tests the instructions work on ordinary memory.
        assert!(unsafe { vmcs.load() });
        vmcs.write_back();
        vmcs
    }

    fn hardware(field: Field) -> u64 {
        // SAFETY: as above.
        unsafe { instruction::vmread(field.encoding()) }.unwrap()
    }

    fn set_hardware(field: Field, value: u64) {
        // SAFETY: as above.
        unsafe { instruction::vmwrite(field.encoding(), value) };
    }

    #[test]
    fn reads_each_field_once_for_each_exit() {
        let mut vmcs = current();
        set_hardware(Field::GuestRip, 0x1000);
        vmcs.guest_exited();
        let before = vmcs.accesses();
        assert_eq!(vmcs.read(Field::GuestRip), 0x1000);
        assert_eq!(vmcs.read(Field::GuestRip), 0x1000);
        assert_eq!(vmcs.accesses(), before + 1);
        set_hardware(Field::GuestRip, 0x2000);
        vmcs.guest_exited();
        assert_eq!(vmcs.read(Field::GuestRip), 0x2000);
    }

    #[test]
    fn writes_only_what_changed_and_at_entry() {
        let mut vmcs = current();
        let before = vmcs.accesses();
        vmcs.write(Field::PrimaryControls, 0);
        vmcs.write_back();
        assert_eq!(vmcs.accesses(), before);
        vmcs.write(Field::PrimaryControls, 4);
        assert_eq!(hardware(Field::PrimaryControls), 0);
        vmcs.write(Field::PrimaryControls, 8);
        vmcs.write_back();
        assert_eq!((hardware(Field::PrimaryControls), vmcs.accesses()), (8, before + 1));
    }

    #[test]
    fn an_injected_event_is_gone_after_the_exit() {
        let mut vmcs = current();
        vmcs.write(Field::EntryEvent, 0x8000_0020);
        vmcs.write_back();
        set_hardware(Field::EntryEvent, 0x20);
        vmcs.guest_exited();
        let before = vmcs.accesses();
        assert_eq!(vmcs.read(Field::EntryEvent), 0);
        vmcs.write(Field::EntryEvent, 0x8000_0020);
        vmcs.write_back();
        assert_eq!((hardware(Field::EntryEvent), vmcs.accesses()), (0x8000_0020, before + 1));
    }

    #[test]
    fn what_the_cpu_changed_is_noted_without_an_access() {
        let mut vmcs = current();
        let before = vmcs.accesses();
        vmcs.note(Field::InterruptStatus, 0x3000);
        vmcs.write(Field::InterruptStatus, 0x3000);
        vmcs.write_back();
        assert_eq!(vmcs.accesses(), before);
        vmcs.forget(Field::InterruptStatus);
        vmcs.write(Field::InterruptStatus, 0x3000);
        vmcs.write_back();
        assert_eq!((hardware(Field::InterruptStatus), vmcs.accesses()), (0x3000, before + 1));
    }

    #[test]
    fn everything_is_at_hand_while_it_is_on_no_cpu() {
        let mut vmcs = current();
        set_hardware(Field::GuestRsp, 0x7000);
        vmcs.guest_exited();
        vmcs.put();
        set_hardware(Field::GuestRsp, 0);
        assert_eq!(vmcs.read(Field::GuestRsp), 0x7000);
        assert!(!vmcs.is_launched());
    }

    #[test]
    fn fields_that_the_cpu_lacks_are_not_written() {
        let mut vmcs = Vmcs::new(MockHost::leak(1), 1, !Field::GuestPat.bit()).unwrap();
        set_hardware(Field::GuestPat, 99);
        // SAFETY: as above.
        assert!(unsafe { vmcs.load() });
        vmcs.write(Field::GuestPat, 7);
        vmcs.write_back();
        assert_eq!((hardware(Field::GuestPat), vmcs.read(Field::GuestPat)), (99, 7));
    }
}
