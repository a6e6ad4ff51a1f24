// SPDX-License-Identifier: MIT OR Apache-2.0
//! What hardware may take over of a local APIC while the guest runs, and gives back.
//!
//! The local APIC owns its state. Before an entry it hands copies to the hardware; after the
//! exit it takes back what the guest and the hardware have changed.

use super::{
    ApicMode, LocalApic, VectorSet, X2APIC_MSRS,
    registers::{
        DFR, DIVIDE, ESR, ICR_HIGH, ICR_LOW, ID, INITIAL_COUNT, LDR, LVT_ERROR, LVT_TIMER, SVR,
        VERSION,
    },
};
use crate::AccessWidth;

/// The interrupts of a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterruptState {
    /// Interrupts that wait: IRR.
    pub requested: VectorSet,
    /// Interrupts whose handlers run: ISR.
    pub in_service: VectorSet,
    /// Vectors whose end the I/O APIC has to hear of: TMR.
    pub level_triggered: VectorSet,
}

impl LocalApic {
    /// Operating mode.
    #[inline]
    pub fn mode(&self) -> ApicMode {
        self.base.mode()
    }

    /// True if interrupts are delivered at all: it is switched on, in IA32_APIC_BASE and in
    /// the spurious-interrupt vector register.
    #[inline]
    pub fn delivers(&self) -> bool {
        self.base.enabled() && self.software_enabled()
    }

    /// The interrupts, with those collected so far.
    #[inline]
    pub fn interrupts(&self) -> InterruptState {
        InterruptState { requested: self.irr, in_service: self.isr, level_triggered: self.tmr }
    }

    /// Takes back what the hardware has made of the interrupts. Which are level-triggered it
    /// does not change.
    #[inline]
    pub fn set_interrupts(&mut self, state: &InterruptState) {
        self.irr = state.requested;
        self.isr = state.in_service;
    }

    /// Has [`take_changed`](Self::take_changed) answer true.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// True once after a register may have changed that
    /// [`readable_registers`](Self::readable_registers) gives.
    #[inline]
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Offset and value of each register that changes only when software writes to it.
    pub fn readable_registers(&mut self) -> impl Iterator<Item = (u16, u32)> + '_ {
        const FIXED: [u32; 10] =
            [ID, VERSION, LDR, DFR, SVR, ESR, ICR_LOW, ICR_HIGH, INITIAL_COUNT, DIVIDE];
        let x2apic = self.mode() == ApicMode::X2Apic;
        FIXED.into_iter().chain(LVT_TIMER..=LVT_ERROR).filter_map(move |index| {
            let value = self.read_register(index, x2apic)?;
            Some(((index << 4) as u16, value))
        })
    }

    /// The guest has executed a write of `value` to the register at `offset`; its effect is
    /// still to come.
    pub fn written(&mut self, offset: u16, value: u32) {
        match self.mode() {
            ApicMode::XApic => self.write_mmio(offset.into(), AccessWidth::Dword, value.into()),
            ApicMode::X2Apic => {
                let msr = X2APIC_MSRS.start() + u32::from(offset >> 4);
                // The hardware completes no write that draws #GP.
                let _ = self.write_msr(msr, value.into());
            }
            ApicMode::Disabled => {}
        }
    }
}
