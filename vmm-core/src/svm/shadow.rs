// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control registers with shadow paging: what the guest sees, and what the CPU runs with.
//!
//! A guest that does not page, or is in real mode, runs with paging nevertheless (AMD APM vol. 2,
//! 15.19, "paged real mode").

use host_iface::HostPhysAddr;

use super::vmcb::{ControlArea, SaveArea};
use crate::{
    paging::shadow::on_shadow_tables,
    state::{ControlRegisters, cr0, efer},
};

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
    #[inline]
    pub const fn view(&self, cr2: u64) -> ControlRegisters {
        ControlRegisters { cr2, ..self.view }
    }

    /// CR4 as the guest sees it.
    #[inline]
    pub const fn cr4(&self) -> u64 {
        self.view.cr4
    }

    /// Takes the guest's new values, and sets what the CPU is to run with. Registers that the
    /// guest reads as they are do not exit when they are read.
    pub fn set(&mut self, value: ControlRegisters, save: &mut SaveArea, control: &mut ControlArea) {
        self.view = ControlRegisters { cr0: value.cr0 | cr0::ET, ..value };
        let real = on_shadow_tables(self.view);
        save.cr0 = real.cr0;
        save.cr4 = real.cr4;
        save.efer = real.efer | efer::SVME;
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
