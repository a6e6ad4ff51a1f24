// SPDX-License-Identifier: MIT OR Apache-2.0
//! A local APIC as reports show it.

use super::{
    LocalApic, VectorSet,
    base::ApicMode,
    lvt::{LvtEntry, MASKED},
};

/// A local APIC at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalApicView {
    /// APIC ID.
    pub id: u32,
    /// `off`, `xapic` or `x2apic`, as IA32_APIC_BASE says.
    pub mode: &'static str,
    /// Enabled in the spurious-interrupt vector register.
    pub software_enabled: bool,
    /// Task priority register.
    pub tpr: u8,
    /// Processor priority register.
    pub ppr: u8,
    /// IRR: requested interrupts.
    pub requested: VectorSet,
    /// ISR: interrupts in service.
    pub in_service: VectorSet,
    /// Entries of the local vector table that are not masked, with their names.
    pub unmasked: [Option<(&'static str, u32)>; 6],
}

const ENTRIES: [(&str, LvtEntry); 6] = [
    ("timer", LvtEntry::Timer),
    ("thermal", LvtEntry::Thermal),
    ("performance", LvtEntry::Performance),
    ("lint0", LvtEntry::Lint0),
    ("lint1", LvtEntry::Lint1),
    ("error", LvtEntry::Error),
];

impl LocalApic {
    /// What there is to see. Requests that were posted since the owner last ran are collected
    /// first.
    pub fn view(&mut self) -> LocalApicView {
        self.collect();
        let unmasked = |(name, entry)| {
            let value = self.lvt.get(entry);
            (value & MASKED == 0).then_some((name, value))
        };
        LocalApicView {
            id: self.config.id,
            mode: match self.base.mode() {
                ApicMode::Disabled => "off",
                ApicMode::XApic => "xapic",
                ApicMode::X2Apic => "x2apic",
            },
            software_enabled: self.software_enabled(),
            tpr: self.tpr,
            ppr: self.ppr(),
            requested: self.irr,
            in_service: self.isr,
            unmasked: ENTRIES.map(unmasked),
        }
    }
}
