// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults in the VMCS, one for each group of checks that a CPU makes at entry (Intel SDM vol. 3,
//! 26.2 to 26.4).

use x86::vmx::vmcs::control;

use super::{field::Field, instruction, permission::X2ApicMsrs, segment, vcpu::VmxVcpu};
use crate::state::{cr0, cr4, efer, rflags};

/// What is done to a field.
#[derive(Clone, Copy)]
enum Spoil {
    Put(u64),
    Set(u64),
    Clear(u64),
}

use Spoil::{Clear, Put, Set};

const NOT_CANONICAL: u64 = 1 << 63;

/// Faults by name.
const FAULTS: &[(&str, &[(Field, Spoil)])] = &[
    ("pin-controls", &[(Field::PinControls, Put(0))]),
    ("primary-controls", &[(Field::PrimaryControls, Put(0))]),
    ("secondary-controls", &[(Field::SecondaryControls, Set(1 << 30))]),
    ("exit-controls", &[(Field::ExitControls, Put(0))]),
    ("entry-controls", &[(Field::EntryControls, Put(0))]),
    ("io-bitmaps", &[(Field::IoBitmapA, Set(1))]),
    ("ept-pointer", &[(Field::EptPointer, Put(0))]),
    ("entry-event", &[(Field::EntryEvent, Put(1 << 31 | 1 << 8))]),
    ("host-control-registers", &[(Field::HostCr0, Put(0))]),
    ("host-selectors", &[(Field::HostTr, Put(0))]),
    ("host-addresses", &[(Field::HostFsBase, Put(NOT_CANONICAL))]),
    ("cr0", &[(Field::GuestCr0, Clear(cr0::NE))]),
    (
        "paging-without-protection",
        &[(Field::GuestCr0, Set(cr0::PG)), (Field::GuestCr0, Clear(cr0::PE))],
    ),
    ("cr4", &[(Field::GuestCr4, Clear(cr4::VMXE))]),
    ("cr3", &[(Field::GuestCr3, Set(1 << 60))]),
    ("debug-controls", &[(Field::GuestDr7, Set(1 << 40))]),
    ("sysenter", &[(Field::SysenterEip, Put(NOT_CANONICAL))]),
    ("pat", &[(Field::GuestPat, Put(2))]),
    ("efer", &[(Field::GuestEfer, Clear(efer::LMA))]),
    ("selectors", &[(Field::TrSelector, Set(4))]),
    ("segment-bases", &[(Field::GsBase, Put(NOT_CANONICAL))]),
    // In protected mode, before long mode.
    ("virtual-8086", &[(Field::GuestRflags, Set(rflags::VM))]),
    ("code-segment", &[(Field::CsRights, Set(0x60))]),
    ("stack-segment", &[(Field::SsRights, Put(0xC091))]),
    ("data-segments", &[(Field::DsRights, Put(0xC099))]),
    ("system-segments", &[(Field::TrRights, Put(0x89))]),
    ("unusable-task-register", &[(Field::TrRights, Set(segment::UNUSABLE))]),
    ("descriptor-tables", &[(Field::IdtrLimit, Set(0x1_0000))]),
    // Before long mode.
    ("rip", &[(Field::GuestRip, Set(1 << 32))]),
    ("rflags", &[(Field::GuestRflags, Clear(rflags::FIXED))]),
    ("activity", &[(Field::GuestActivity, Put(4))]),
    ("interruptibility", &[(Field::Interruptibility, Set(1 << 8))]),
    ("pending-debug", &[(Field::PendingDebug, Set(1 << 5))]),
    ("link-pointer", &[(Field::LinkPointer, Put(1))]),
    // In protected mode without paging, before long mode.
    (
        "page-directory-pointers",
        &[
            (Field::GuestCr0, Set(cr0::PG)),
            (Field::GuestCr4, Set(cr4::PAE)),
            (Field::Pdpte0, Put(0b11)),
        ],
    ),
];

/// MSRs to load at entry that no CPU loads.
const MSR_LOADING: &str = "msr-loading";

impl VmxVcpu {
    /// Spoils the VMCS, which is current, for the next entry.
    pub(super) fn spoil(&mut self, name: &str) -> bool {
        if name == MSR_LOADING {
            return self.spoil_msr_loading();
        }
        let Some((_, fields)) = FAULTS.iter().find(|(known, _)| *known == name) else {
            return false;
        };
        for (field, spoil) in *fields {
            let old = self.vmcs.read(*field);
            let new = match spoil {
                Put(value) => *value,
                Set(bits) => old | bits,
                Clear(bits) => old & !bits,
            };
            self.vmcs.write(*field, new);
        }
        true
    }

    /// The MSR bitmap is taken for the area with the MSRs: its ones are in the reserved bits of
    /// an entry, too (Intel SDM vol. 3, 26.4).
    fn spoil_msr_loading(&mut self) -> bool {
        let area = self.shared.maps.msr_address(X2ApicMsrs::None).as_u64();
        // SAFETY: the VMCS is current. The CPU only reads the area, which is a page of ours.
        let written = unsafe { instruction::vmwrite(control::VMENTRY_MSR_LOAD_ADDR_FULL, area) };
        self.vmcs.write(Field::EntryMsrLoadCount, 1);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: alloc::vec::Vec<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
        names.push(MSR_LOADING);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
