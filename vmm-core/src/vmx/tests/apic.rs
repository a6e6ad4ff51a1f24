// SPDX-License-Identifier: MIT OR Apache-2.0
//! APIC virtualization.

use super::{PLAIN, entered, entered_on, exit, hardware, set_hardware};
use crate::{
    Exit,
    apic::{ApicMode, InterruptState},
    backend::{ApicRole, VcpuBackend},
    state::{Vector, rflags},
    vmx::{decode::reason, field::Field},
};

#[test]
fn the_mode_of_the_local_apic_chooses_what_is_virtualized() {
    const XAPIC: u64 = 1;
    const X2APIC: u64 = 1 << 4;
    const DELIVERY: u64 = 1 << 8 | 1 << 9;
    let both = ApicRole { delivers: true, shows_registers: true };
    let delivers = ApicRole { delivers: true, shows_registers: false };
    let none = ApicRole::default();
    let mut vcpu = entered();
    for (mode, enabled, role, controls, root) in [
        (ApicMode::XApic, false, none, XAPIC, 0x2000),
        (ApicMode::XApic, true, both, XAPIC | DELIVERY, 0x2000),
        (ApicMode::X2Apic, true, delivers, X2APIC | DELIVERY, 0x1000),
        (ApicMode::X2Apic, false, none, X2APIC, 0x1000),
        (ApicMode::Disabled, false, none, 0, 0x1000),
    ] {
        assert_eq!(vcpu.set_apic_mode(mode, enabled), role, "{mode:?} {enabled}");
        let word = hardware(&mut vcpu, Field::SecondaryControls);
        assert_eq!(word & (XAPIC | X2APIC | DELIVERY), controls, "{mode:?} {enabled}");
        assert_eq!(hardware(&mut vcpu, Field::EptPointer) & !0xFFF, root);
    }
    assert_eq!(hardware(&mut vcpu, Field::ApicAccessPage), 0x3000);
    let mut plain = entered_on(PLAIN);
    for mode in [ApicMode::XApic, ApicMode::X2Apic] {
        assert_eq!(plain.set_apic_mode(mode, true), none);
    }
}

#[test]
fn interrupts_are_the_cpus_while_it_delivers_them() {
    let mut vcpu = entered();
    vcpu.set_apic_mode(ApicMode::X2Apic, true);
    let mut state = InterruptState::default();
    state.requested.insert(Vector(0x31));
    state.requested.insert(Vector(0x52));
    state.level_triggered.insert(Vector(0x52));
    vcpu.load_interrupts(&state);
    assert_eq!(hardware(&mut vcpu, Field::InterruptStatus), 0x52);
    assert_eq!(hardware(&mut vcpu, Field::EoiExit1), 1 << (0x52 - 64));
    // It delivers the higher one, whose handler exits.
    let page = vcpu.apic.page.as_mut().unwrap();
    page.set_register(0x220, 0);
    page.set_register(0x120, 1 << (0x52 - 0x40));
    set_hardware(Field::InterruptStatus, 0x5231);
    let before = vcpu.vmcs.accesses();
    exit(&mut vcpu, &[(Field::ExitReason, u64::from(reason::CPUID))]);
    let after = vcpu.interrupts();
    assert_eq!(after.in_service.highest(), Some(Vector(0x52)));
    assert_eq!(after.requested.highest(), Some(Vector(0x31)));
    vcpu.load_interrupts(&after);
    vcpu.vmcs.write_back();
    assert_eq!(vcpu.vmcs.accesses(), before + 1, "the reason of the exit alone");
    // The VMM ends it: the CPU is told.
    vcpu.load_interrupts(&InterruptState { in_service: Default::default(), ..after });
    assert_eq!(hardware(&mut vcpu, Field::InterruptStatus), 0x31);
}

#[test]
fn the_threshold_is_set_only_for_what_the_task_priority_holds_back() {
    let mut vcpu = entered_on(PLAIN);
    for (priority, class, threshold) in
        [(0x50, Some(5), 5), (0x60, Some(5), 5), (0x4F, Some(5), 0), (0x60, None, 0)]
    {
        vcpu.set_task_priority(priority);
        vcpu.watch_task_priority(class);
        assert_eq!(hardware(&mut vcpu, Field::TprThreshold), threshold, "{priority:#x}");
    }
}

#[test]
fn a_shadow_that_has_ended_keeps_no_interrupt_back_that_the_cpu_delivers() {
    let mut vcpu = entered();
    vcpu.set_apic_mode(ApicMode::X2Apic, true);
    let fields = [
        (Field::ExitReason, u64::from(reason::HLT)),
        (Field::Interruptibility, 1),
        (Field::GuestRflags, rflags::FIXED | rflags::IF),
    ];
    assert_eq!(exit(&mut vcpu, &fields), Exit::Halt);
    vcpu.clear_interrupt_shadow();
    vcpu.load_interrupts(&InterruptState::default());
    assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 1, "nothing waits");
    let mut state = InterruptState::default();
    state.requested.insert(Vector(0x40));
    vcpu.load_interrupts(&state);
    assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
}
