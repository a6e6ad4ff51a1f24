// SPDX-License-Identifier: MIT OR Apache-2.0
//! A local APIC as data.

use serde::{Deserialize, Serialize};

use super::{
    LocalApic, LocalApicConfig, TimerState, VectorSet, base::ApicBase, inbox::Events,
    lvt::LocalVectorTable,
};

/// All of a local APIC's state. Times are relative to the moment of saving.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalApicState {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// Initial APIC ID.
    pub id: u32,
    /// Requested interrupts.
    pub irr: VectorSet,
    /// Interrupts in service.
    pub isr: VectorSet,
    /// Trigger modes.
    pub tmr: VectorSet,
    /// Task priority register.
    pub tpr: u8,
    /// Logical APIC ID of xAPIC mode.
    pub logical_id: u8,
    /// Flat model.
    pub flat: bool,
    /// Spurious-interrupt vector register.
    pub svr: u32,
    /// Local vector table.
    pub lvt: LocalVectorTable,
    /// Interrupt command register.
    pub icr: u64,
    /// Error status register.
    pub errors: u32,
    /// Errors since it was last written.
    pub new_errors: u32,
    /// Timer.
    pub timer: TimerState,
    /// True while the CPU awaits a start-up.
    pub awaiting_startup: bool,
    /// Pending NMI, INIT, start-up and external interrupt, as the inbox keeps them.
    pub events: u32,
}

impl LocalApic {
    /// Takes the state out. Requests posted so far are collected first.
    pub fn save(&mut self) -> LocalApicState {
        self.collect();
        let now = self.config.host.tsc();
        let Self {
            config: LocalApicConfig { inbox, id, .. },
            base,
            irr,
            isr,
            tmr,
            tpr,
            logical_id,
            flat,
            svr,
            lvt,
            icr,
            errors,
            new_errors,
            timer,
            awaiting_startup,
            changed: _,
        } = self;
        LocalApicState {
            base: base.into_bits(),
            id: *id,
            irr: *irr,
            isr: *isr,
            tmr: *tmr,
            tpr: *tpr,
            logical_id: *logical_id,
            flat: *flat,
            svr: *svr,
            lvt: *lvt,
            icr: *icr,
            errors: *errors,
            new_errors: *new_errors,
            timer: timer.save(now),
            awaiting_startup: *awaiting_startup,
            events: inbox.events().into_bits(),
        }
    }

    /// Puts saved state in. The TSC offset must have been set before.
    pub fn restore(&mut self, state: &LocalApicState) {
        let LocalApicState {
            base,
            id,
            irr,
            isr,
            tmr,
            tpr,
            logical_id,
            flat,
            svr,
            lvt,
            icr,
            errors,
            new_errors,
            timer,
            awaiting_startup,
            events,
        } = state;
        self.collect();
        self.config.id = *id;
        self.base = ApicBase::from_bits(*base);
        self.irr = *irr;
        self.isr = *isr;
        self.tmr = *tmr;
        self.logical_id = *logical_id;
        self.flat = *flat;
        self.svr = *svr;
        self.lvt = *lvt;
        self.icr = *icr;
        self.errors = *errors;
        self.new_errors = *new_errors;
        self.timer.restore(timer, self.config.host.tsc());
        self.awaiting_startup = *awaiting_startup;
        self.config.inbox.update_events(|_| Some(Events::from_bits(*events)));
        self.set_tpr(*tpr);
        self.changed = true;
        self.publish();
    }
}
