// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests on shadow tables, without EPT.
//!
//! The CPU's CR3 is the VMM's, and EFER is what the format of the shadow tables asks for. What the
//! guest believes to be in CR0 and CR4 is in their read shadows; its CR3 is only written and read
//! with an exit, as is its EFER. Without EPT the VMCS does not hold the page-directory pointers of
//! PAE paging, either (Intel SDM vol. 3, 24.4.2): an entry loads those of the shadow tables from
//! memory, and the guest's are kept here.

use host_iface::HostPhysAddr;

use crate::{paging::shadow::on_shadow_tables, state::ControlRegisters};

/// What a guest on shadow tables has that no field holds.
pub struct ShadowPaging {
    /// Root of the tables that the CPU walks.
    pub root: HostPhysAddr,
    /// The page-directory pointers that the guest loaded.
    pub pointers: [u64; 4],
}

impl ShadowPaging {
    /// Before the first root was set.
    pub const fn new() -> Self {
        Self { root: HostPhysAddr::new(0), pointers: [0; 4] }
    }

    /// The registers with which a guest runs that believes in `guest`.
    pub const fn instead_of(&self, guest: ControlRegisters) -> ControlRegisters {
        ControlRegisters { cr3: self.root.as_u64(), ..on_shadow_tables(guest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::{ApicSetup, Translation, VcpuBackend, VcpuSetup},
        state::{cr0, cr4, efer},
        vmx::{
            capability::samples::{PENRYN, TIGER_LAKE},
            cpu::Shared,
            field::Field,
            vcpu::VmxVcpu,
        },
    };

    const ROOT: HostPhysAddr = HostPhysAddr::new(0x7000);
    const LONG_MODE: ControlRegisters = ControlRegisters {
        cr0: cr0::PE | cr0::PG | cr0::ET,
        cr2: 0,
        cr3: 0x1234_5000,
        cr4: cr4::PAE | cr4::PGE,
        efer: efer::LME | efer::LMA | efer::SCE,
    };

    /// A vCPU on shadow tables, on a CPU without EPT and on one with it.
    fn vcpus() -> impl Iterator<Item = VmxVcpu> {
        [PENRYN, TIGER_LAKE].into_iter().map(|msrs| {
            let setup = VcpuSetup {
                translation: Translation::Shadow,
                tsc_offset: 0,
                apic: ApicSetup::Emulated,
                has_siblings: false,
            };
            VmxVcpu::new(Shared::sample(msrs), setup).unwrap()
        })
    }

    #[test]
    fn the_guest_sees_its_registers_and_the_cpu_others() {
        for mut vcpu in vcpus() {
            vcpu.set_control_registers(LONG_MODE);
            vcpu.set_shadow_root(ROOT);
            assert_eq!(vcpu.control_registers(), LONG_MODE);
            let real = |field| vcpu.vmcs.read(field);
            assert_eq!(real(Field::GuestCr3), ROOT.as_u64());
            assert_eq!(real(Field::GuestCr0) & (cr0::WP | cr0::NE), cr0::WP | cr0::NE);
            assert_eq!(real(Field::GuestEfer), LONG_MODE.efer | efer::NXE);
            assert_eq!(real(Field::EntryControls) >> 9 & 1, 1, "IA-32e mode");
            assert_eq!(real(Field::ExceptionBitmap) >> 14 & 1, 1, "page faults");
            assert_eq!(real(Field::PageFaultMask) | real(Field::PageFaultMatch), 0);
        }
    }

    #[test]
    fn without_long_mode_the_cpu_runs_on_pae_tables() {
        for mut vcpu in vcpus() {
            for (cr0, cr4) in [(cr0::PE, 0), (cr0::PE | cr0::PG, 0), (cr0::PE, cr4::PAE)] {
                let cr0 = cr0 | cr0::ET;
                let guest = ControlRegisters { cr0, cr4, efer: efer::LME, ..LONG_MODE };
                vcpu.set_control_registers(guest);
                assert_eq!(vcpu.control_registers(), guest);
                let real = |field| vcpu.vmcs.read(field);
                let paged = cr0::PE | cr0::PG;
                assert_eq!(real(Field::GuestCr0) & paged, paged);
                assert_eq!(real(Field::GuestCr4) & cr4::PAE, cr4::PAE);
                assert_eq!(real(Field::GuestEfer), efer::NXE);
                assert_eq!(real(Field::EntryControls) >> 9 & 1, 0);
            }
        }
    }

    #[test]
    fn another_root_drops_the_translations_of_the_old_one() {
        for mut vcpu in vcpus() {
            vcpu.set_shadow_root(ROOT);
            assert!(core::mem::take(&mut vcpu.flush_wanted));
            vcpu.set_shadow_root(ROOT);
            vcpu.set_control_registers(LONG_MODE);
            assert!(!vcpu.flush_wanted);
            assert_eq!(vcpu.vmcs.read(Field::GuestCr3), ROOT.as_u64());
        }
    }

    #[test]
    fn page_directory_pointers_are_kept() {
        for mut vcpu in vcpus() {
            let pointers = [0x1001, 0, 0x3001, 0];
            vcpu.set_page_directory_pointers(pointers);
            vcpu.vmcs.guest_exited();
            assert_eq!(vcpu.page_directory_pointers(), Some(pointers));
        }
    }

    #[test]
    fn real_mode_is_interpreted() {
        for vcpu in vcpus() {
            assert!(!vcpu.can_enter(), "whatever the CPU could do with EPT");
        }
    }
}
