// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of a local APIC on its own.

use alloc::sync::Arc;

use host_mock::MockHost;

use super::{ApicInbox, BusMember, LocalApic, LocalApicBus, LocalApicConfig};
use crate::{AccessWidth, Doorbell, Vector, msr::GeneralProtection};

const SVR: u64 = 0xF0;
const LVT_LINT0: u64 = 0x350;
const MASKED: u32 = 1 << 16;
const NMI: u32 = 4 << 8;
const EXTERNAL: u32 = 7 << 8;
const X2APIC_ENABLED: u64 = 0xFEE0_0D00;
const VECTOR: Vector = Vector(0x57);

/// The local APIC of the one CPU of a VM, enabled.
fn local_apic() -> LocalApic {
    let inbox = Arc::new(ApicInbox::new());
    let member = BusMember { inbox: inbox.clone(), doorbell: Doorbell::disconnected() };
    let mut apic = LocalApic::new(LocalApicConfig {
        host: MockHost::leak(1),
        bus: LocalApicBus::new(vec![member]),
        inbox,
        id: 0,
        bootstrap: true,
        directed_eoi: true,
        eoi_observers: Arc::new([]),
    });
    apic.write_mmio(SVR, AccessWidth::Dword, 0x1FF);
    apic
}

/// What comes of a rising edge at LINT0: a pending vector, and whether there is an NMI.
fn raised(entry: u32) -> (Option<Vector>, bool) {
    let mut apic = local_apic();
    apic.write_mmio(LVT_LINT0, AccessWidth::Dword, entry.into());
    apic.raise_lint0();
    apic.collect();
    (apic.pending_vector(), apic.take_nmi())
}

#[test]
fn lint0_raises_what_its_entry_says() {
    let fixed = u32::from(VECTOR.0);
    assert_eq!(raised(fixed), (Some(VECTOR), false));
    assert_eq!(raised(NMI), (None, true));
    for nothing in [MASKED | fixed, MASKED | NMI, EXTERNAL, fixed & 0xF] {
        assert_eq!(raised(nothing), (None, false), "{nothing:#x}");
    }
}

#[test]
fn a_local_apic_that_is_off_raises_nothing() {
    let mut apic = local_apic();
    apic.write_mmio(LVT_LINT0, AccessWidth::Dword, VECTOR.0.into());
    apic.write_mmio(SVR, AccessWidth::Dword, 0xFF);
    apic.raise_lint0();
    apic.write_mmio(SVR, AccessWidth::Dword, 0x1FF);
    assert_eq!(apic.pending_vector(), None);
}

#[test]
fn x2apic_mode_refuses_writes_of_what_is_read_only() {
    let mut apic = local_apic();
    apic.write_msr(0x1B, X2APIC_ENABLED).unwrap();
    // ID, version, PPR, LDR, DFR, ISR, TMR, IRR, current count.
    for register in [0x802, 0x803, 0x80A, 0x80D, 0x80E, 0x810, 0x818, 0x820, 0x839] {
        assert_eq!(apic.write_msr(register, 0), Err(GeneralProtection), "{register:#x}");
    }
    assert_eq!(apic.read_msr(0x80D), Ok(1));
}
