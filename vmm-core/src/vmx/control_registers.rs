// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers and EFER: what the guest believes in, and what it runs with.

use host_iface::HostPhysAddr;
use x86::vmx::vmcs::control::{EntryControls, PrimaryControls};

use super::{entry_check, field::Field, unpaged, vcpu::VmxVcpu};
use crate::state::{ControlRegisters, cr0, efer};

/// The top entries of PAE paging, which the hardware loads and saves while EPT is on.
const PAGE_DIRECTORY_POINTERS: [Field; 4] =
    [Field::Pdpte0, Field::Pdpte1, Field::Pdpte2, Field::Pdpte3];

impl VmxVcpu {
    /// The registers as the guest set them.
    pub(super) fn believed_registers(&self) -> ControlRegisters {
        let (cr3, efer) = self
            .hidden
            .unwrap_or_else(|| (self.vmcs.read(Field::GuestCr3), self.vmcs.read(Field::GuestEfer)));
        ControlRegisters {
            cr0: self.vmcs.read(Field::Cr0Shadow),
            cr2: self.context.cr2,
            cr3,
            cr4: self.vmcs.read(Field::Cr4Shadow),
            efer,
        }
    }

    /// Sets the registers as the guest sees them, and those that it runs with.
    pub(super) fn set_believed_registers(&mut self, value: ControlRegisters) {
        let instead = self.instead_of(value);
        self.hidden = instead.map(|_| (value.cr3, value.efer));
        if self.capabilities.needs_identity_map() {
            let cr3_exiting =
                PrimaryControls::CR3_LOAD_EXITING | PrimaryControls::CR3_STORE_EXITING;
            self.set_primary_controls(cr3_exiting, instead.is_some());
        }
        let real = instead.unwrap_or(value);
        let capabilities = &self.capabilities;
        let (real_cr0, real_cr4) =
            (capabilities.real_cr0(real.cr0), capabilities.real_cr4(real.cr4));
        let long_mode = u64::from(EntryControls::IA32E_MODE_GUEST.bits());
        let entry = self.vmcs.read(Field::EntryControls) & !long_mode;
        let is_long = real.efer & efer::LMA != 0;
        let mode = self.mode();
        for (field, value) in [
            (Field::GuestCr0, real_cr0),
            (Field::Cr0Shadow, value.cr0 | cr0::ET),
            (Field::GuestCr4, real_cr4),
            (Field::Cr4Shadow, value.cr4),
            (Field::GuestCr3, real.cr3),
            (Field::GuestEfer, real.efer),
            (Field::EntryControls, if is_long { entry | long_mode } else { entry }),
        ] {
            self.vmcs.write(field, value);
        }
        if let Some(areas) = &mut self.efer_areas {
            areas.set_guest(real.efer);
        }
        self.context.cr2 = value.cr2;
        // Of shadow tables it is known when translations go.
        self.flush_wanted |= self.shadow.is_none();
        if self.mode() != mode {
            self.enterable.set(None);
        }
    }

    /// The registers to run a guest with that believes in `guest`; `None` if these are the same.
    fn instead_of(&self, guest: ControlRegisters) -> Option<ControlRegisters> {
        match &self.shadow {
            Some(shadow) => Some(shadow.instead_of(guest)),
            None if self.capabilities.needs_identity_map() && guest.cr0 & cr0::PG == 0 => {
                Some(unpaged::on_identity_map(guest))
            }
            None => None,
        }
    }

    /// CR0.PE and the entry controls, on which it depends which segments the CPU accepts.
    fn mode(&self) -> (u64, u64) {
        (self.vmcs.read(Field::Cr0Shadow) & cr0::PE, self.vmcs.read(Field::EntryControls))
    }

    /// Can the CPU enter the guest as it is?
    #[inline]
    pub(super) fn fits_the_cpu(&self) -> bool {
        let capabilities = &self.capabilities;
        if capabilities.has_unrestricted_guest() {
            return true;
        }
        // What the guest itself does to its segments the CPU can enter again.
        self.enterable.get().unwrap_or_else(|| {
            let protected = self.vmcs.read(Field::Cr0Shadow) & cr0::PE != 0;
            let enterable = protected && entry_check::segments_fit(&self.vmcs, capabilities);
            self.enterable.set(Some(enterable));
            enterable
        })
    }

    /// Loads the top entries of PAE paging.
    pub(super) fn keep_pointers(&mut self, entries: [u64; 4]) {
        if let Some(shadow) = &mut self.shadow {
            shadow.pointers = entries;
            return;
        }
        for (field, entry) in PAGE_DIRECTORY_POINTERS.into_iter().zip(entries) {
            self.vmcs.write(field, entry);
        }
    }

    /// The top entries of PAE paging, as they were loaded last.
    pub(super) fn kept_pointers(&self) -> [u64; 4] {
        match &self.shadow {
            Some(shadow) => shadow.pointers,
            None => PAGE_DIRECTORY_POINTERS.map(|field| self.vmcs.read(field)),
        }
    }

    /// With shadow paging: runs the guest on the tables with this root.
    pub(super) fn run_on_shadow_root(&mut self, root: HostPhysAddr) {
        if let Some(shadow) = &mut self.shadow
            && shadow.root != root
        {
            shadow.root = root;
            self.vmcs.write(Field::GuestCr3, root.as_u64());
            self.flush_wanted = true;
        }
    }
}
