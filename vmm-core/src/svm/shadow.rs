// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers with shadow paging: what the guest sees, and what the CPU runs with.
//!
//! The CPU always pages. It runs on tables of long mode if the guest is in long mode, else on
//! those of PAE, even if the guest does not page, or is in real mode (AMD APM vol. 2, 15.19,
//! "paged real mode").

use host_iface::HostPhysAddr;

use super::vmcb::{ControlArea, SaveArea};
use crate::state::{ControlRegisters, cr0, cr4, efer};

const PAGE_FAULT_VECTOR: u32 = 14;

/// What a guest with shadow paging believes to be in its control registers. CR2 is in the control
/// block.
#[derive(Clone, Copy, Debug)]
pub struct ShadowedRegisters {
    view: ControlRegisters,
    root: HostPhysAddr,
}

impl ShadowedRegisters {
    /// Before the first write.
    pub fn new() -> Self {
        Self { view: ControlRegisters::default(), root: HostPhysAddr::new(0) }
    }

    /// What the guest sees, with `cr2` from the control block.
    pub const fn view(&self, cr2: u64) -> ControlRegisters {
        ControlRegisters { cr2, ..self.view }
    }

    /// CR4 as the guest sees it.
    pub const fn cr4(&self) -> u64 {
        self.view.cr4
    }

    /// Takes the guest's new values, and sets what the CPU is to run with. Registers that the
    /// guest reads as they are do not exit when they are read.
    pub fn set(&mut self, value: ControlRegisters, save: &mut SaveArea, control: &mut ControlArea) {
        self.view = ControlRegisters { cr0: value.cr0 | cr0::ET, ..value };
        save.cr0 = real_cr0(self.view.cr0);
        save.cr4 = real_cr4(&self.view);
        save.efer = real_efer(self.view.efer);
        save.cr2 = value.cr2;
        let reads = |number: u16, differs: bool| u16::from(differs) << number;
        control.cr_reads = reads(0, save.cr0 != self.view.cr0)
            | reads(3, true)
            | reads(4, save.cr4 != self.view.cr4);
    }

    /// Sets the root of the tables. True if it is another than before.
    pub fn set_root(&mut self, root: HostPhysAddr, save: &mut SaveArea) -> bool {
        save.cr3 = root.as_u64();
        core::mem::replace(&mut self.root, root) != root
    }
}

/// What has to exit for the guest to believe that its page tables are used.
pub fn intercept(control: &mut ControlArea) {
    control.cr_writes |= 1 << 0 | 1 << 3 | 1 << 4;
    control.exceptions |= 1 << PAGE_FAULT_VECTOR;
    control.intercepts1.set_invlpg(true);
    // A switch of tasks loads CR3.
    control.intercepts1.set_task_switch(true);
}

const fn real_cr0(view: u64) -> u64 {
    (view | cr0::PG | cr0::WP) & !(cr0::CD | cr0::NW)
}

/// Without paging there are neither user nor supervisor pages.
const fn real_cr4(view: &ControlRegisters) -> u64 {
    let unpaged = if view.cr0 & cr0::PG == 0 { cr4::SMEP | cr4::SMAP } else { 0 };
    (view.cr4 | cr4::PAE) & !unpaged
}

/// Long mode is on or off as a whole. NXE makes page faults tell fetches from reads.
const fn real_efer(view: u64) -> u64 {
    const LONG_MODE: u64 = efer::LME | efer::LMA;
    let long = if view & efer::LMA != 0 { LONG_MODE } else { 0 };
    view & !LONG_MODE | long | efer::SVME | efer::NXE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_pages_whatever_the_guest_does() {
        assert_eq!(real_cr0(cr0::ET | cr0::CD | cr0::NW), cr0::ET | cr0::PG | cr0::WP);
        let unpaged = ControlRegisters { cr4: cr4::SMEP | cr4::PSE, ..Default::default() };
        assert_eq!(real_cr4(&unpaged), cr4::PSE | cr4::PAE);
        let paged = ControlRegisters { cr0: cr0::PG, ..unpaged };
        assert_eq!(real_cr4(&paged), cr4::PSE | cr4::PAE | cr4::SMEP);
    }

    #[test]
    fn long_mode_is_on_only_when_it_is_active() {
        assert_eq!(real_efer(efer::LME | efer::SCE), efer::SCE | efer::SVME | efer::NXE);
        let active = efer::LME | efer::LMA;
        assert_eq!(real_efer(active), active | efer::SVME | efer::NXE);
    }
}
