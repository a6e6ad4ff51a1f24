// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of interrupt controllers, for the run report.

use alloc::{string::ToString, vec::Vec};

use vmm_core::{DeliveryMode, apic::LocalApicView};
use vmm_devices::{IoApic, IoApicInputState};
use wire::{IoApicInput, LocalApicReport, LocalVector};

/// A local APIC.
pub fn local_apic(view: &LocalApicView) -> LocalApicReport {
    let entries = view.unmasked.iter().flatten();
    LocalApicReport {
        id: view.id,
        mode: view.mode.to_string(),
        software_enabled: view.software_enabled,
        tpr: view.tpr,
        ppr: view.ppr,
        requested: view.requested.iter().map(|vector| vector.0).collect(),
        in_service: view.in_service.iter().map(|vector| vector.0).collect(),
        unmasked: entries
            .map(|&(name, value)| LocalVector { name: name.to_string(), value })
            .collect(),
    }
}

/// The inputs of the I/O APIC that are in use.
pub fn io_apic(io_apic: &IoApic) -> Vec<IoApicInput> {
    let state = io_apic.save();
    state.inputs().filter(is_in_use).map(|input| report(&input)).collect()
}

fn is_in_use(input: &IoApicInputState) -> bool {
    !input.entry.masked() || input.entry.remote_irr() || input.asserted
}

fn report(input: &IoApicInputState) -> IoApicInput {
    let entry = input.entry;
    let delivery = match DeliveryMode::from_bits(entry.delivery_mode()) {
        Some(DeliveryMode::Fixed) => "fixed",
        Some(DeliveryMode::LowestPriority) => "lowest",
        Some(DeliveryMode::Smi) => "smi",
        Some(DeliveryMode::Nmi) => "nmi",
        Some(DeliveryMode::Init) => "init",
        Some(DeliveryMode::ExtInt) => "extint",
        Some(DeliveryMode::StartUp) | None => "reserved",
    };
    IoApicInput {
        input: input.number,
        vector: entry.vector(),
        delivery: delivery.to_string(),
        destination: entry.destination(),
        logical: entry.logical(),
        level: entry.level_triggered(),
        masked: entry.masked(),
        remote_irr: entry.remote_irr(),
        asserted: input.asserted,
    }
}
