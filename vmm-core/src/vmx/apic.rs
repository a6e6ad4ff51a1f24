// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which parts of APIC virtualization are switched on, and the VMCS fields that they use
//! (Intel SDM vol. 3, chapter 29).

use x86::vmx::vmcs::control::SecondaryControls;

use super::{
    controls::APIC_DELIVERY,
    field::Field,
    permission::X2ApicMsrs,
    vcpu::VmxVcpu,
    virtual_apic::{VirtualApic, interrupt_status},
};
use crate::{
    apic::{ApicMode, InterruptState},
    backend::{ApicRole, ApicSetup, ApicWindow},
};

/// Lowest bit of what the task-priority threshold compares.
const CLASS: u32 = 4;

/// What a vCPU knows of its local APIC.
pub struct ApicVirtualization {
    setup: ApicSetup,
    /// Shown to the CPU if it shadows the task priority.
    pub page: Option<VirtualApic>,
    /// Where there is no such page.
    task_priority: u8,
    /// What was chosen, and what for.
    chosen: Option<(ApicMode, bool)>,
    role: ApicRole,
}

/// The controls, bitmap and tables for one mode.
struct Choice {
    controls: SecondaryControls,
    msrs: X2ApicMsrs,
    window: Option<ApicWindow>,
}

impl ApicVirtualization {
    /// Nothing is chosen yet.
    pub fn new(setup: ApicSetup, page: Option<VirtualApic>) -> Self {
        Self { setup, page, task_priority: 0, chosen: None, role: ApicRole::default() }
    }

    /// The window, if the VM has one.
    pub fn window(&self) -> Option<ApicWindow> {
        match self.setup {
            ApicSetup::Hardware { window } => window,
            ApicSetup::Emulated => None,
        }
    }

    /// Size of the virtual-APIC page in bytes.
    pub fn bytes(&self) -> usize {
        self.page.as_ref().map_or(0, VirtualApic::bytes)
    }

    pub fn task_priority(&self) -> u8 {
        self.page.as_ref().map_or(self.task_priority, VirtualApic::task_priority)
    }

    pub fn set_task_priority(&mut self, priority: u8) {
        match &mut self.page {
            Some(page) => page.set_task_priority(priority),
            None => self.task_priority = priority,
        }
    }

    fn choose(&self, offered: SecondaryControls, mode: ApicMode, delivers: bool) -> Choice {
        let delivery = if delivers { offered & APIC_DELIVERY } else { SecondaryControls::empty() };
        let off =
            Choice { controls: SecondaryControls::empty(), msrs: X2ApicMsrs::None, window: None };
        let ApicSetup::Hardware { window } = self.setup else { return off };
        match (mode, window) {
            (ApicMode::XApic, Some(_)) if offered.contains(SecondaryControls::VIRTUALIZE_APIC) => {
                let controls = SecondaryControls::VIRTUALIZE_APIC | delivery;
                Choice { controls, window, ..off }
            }
            (ApicMode::X2Apic, _) if offered.contains(SecondaryControls::VIRTUALIZE_X2APIC) => {
                let controls = SecondaryControls::VIRTUALIZE_X2APIC | delivery;
                let msrs = match delivery.is_empty() {
                    true => X2ApicMsrs::TaskPriority,
                    false => X2ApicMsrs::Interrupts,
                };
                Choice { controls, msrs, ..off }
            }
            _ => off,
        }
    }
}

impl VmxVcpu {
    /// Switches on what serves a local APIC in `mode`; `delivers` is true if it is enabled.
    #[inline]
    pub(super) fn choose_apic(&mut self, mode: ApicMode, delivers: bool) -> ApicRole {
        if self.apic.chosen != Some((mode, delivers)) {
            self.apic.chosen = Some((mode, delivers));
            self.apic.role = self.switch_apic(mode, delivers);
        }
        self.apic.role
    }

    fn switch_apic(&mut self, mode: ApicMode, delivers: bool) -> ApicRole {
        let offered = self.capabilities.controls.apic;
        let Choice { controls, msrs, window } = self.apic.choose(offered, mode, delivers);
        let kept = self.vmcs.read(Field::SecondaryControls) & !u64::from(offered.bits());
        self.vmcs.write(Field::SecondaryControls, kept | u64::from(controls.bits()));
        self.vmcs.write(Field::MsrBitmap, self.shared.maps.msr_address(msrs).as_u64());
        let root = window.map(|window| window.nested_root).or(self.nested_root);
        self.vmcs.write(Field::EptPointer, self.ept_pointer(root));
        if let Some(window) = window {
            self.vmcs.write(Field::ApicAccessPage, window.page.as_u64());
        }
        self.flush_wanted = true;
        let delivers = controls.contains(APIC_DELIVERY);
        if delivers {
            // With virtual-interrupt delivery the threshold has no meaning.
            self.vmcs.write(Field::TprThreshold, 0);
        }
        ApicRole { delivers, shows_registers: delivers && mode == ApicMode::XApic }
    }

    pub(super) fn give_interrupts(&mut self, state: &InterruptState) {
        if self.shadow_ended && !state.requested.is_empty() {
            // The CPU would hold the interrupt back for another instruction, which may be the
            // CLI behind a HLT.
            self.end_shadow();
        }
        let Some(page) = &mut self.apic.page else { return };
        if !page.set_interrupts(state) {
            return;
        }
        self.vmcs.write(Field::InterruptStatus, interrupt_status(state));
        let bitmap = [Field::EoiExit0, Field::EoiExit1, Field::EoiExit2, Field::EoiExit3];
        for (index, field) in bitmap.into_iter().enumerate() {
            self.vmcs.write(field, state.level_triggered.quadword(index));
        }
    }

    /// Takes note of what the CPU has made of the interrupts since the guest was entered.
    pub(super) fn note_interrupts(&mut self) {
        if !self.apic.role.delivers {
            return;
        }
        if let Some(page) = &mut self.apic.page {
            let state = page.take_interrupts();
            self.vmcs.note(Field::InterruptStatus, interrupt_status(&state));
        }
    }

    /// Sets the threshold of the task priority, so that there is an exit when its class falls
    /// below `class`. If it is lower now, then something else holds an interrupt back.
    pub(super) fn set_threshold(&mut self, class: Option<u8>) {
        let now = self.apic.task_priority() >> CLASS;
        let threshold = class.filter(|&class| class <= now).unwrap_or(0);
        self.vmcs.write(Field::TprThreshold, threshold.into());
    }
}
