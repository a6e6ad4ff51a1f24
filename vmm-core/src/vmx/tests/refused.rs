// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries that the CPU refuses.

use super::{entered, exit, hardware};
use crate::{
    Event, Exit, Vector,
    backend::VcpuBackend,
    state::{ControlRegisters, cr0},
    vmx::{decode::reason, field::Field},
};

#[test]
fn a_refused_entry_names_the_check() {
    let mut vcpu = entered();
    let fields = [
        (Field::ExitReason, 1 << 31 | u64::from(reason::INVALID_GUEST_STATE)),
        (Field::ExitQualification, 0),
        (Field::GuestRflags, 0),
        (Field::CsRights, 0x9B),
        (Field::SsRights, 0x93),
        (Field::DsRights, 0x93),
        (Field::EsRights, 0x93),
        (Field::FsRights, 0x93),
        (Field::GsRights, 0x93),
        (Field::TrRights, 0x8B),
        (Field::LdtrRights, 0x82),
    ];
    let Exit::EntryFailure(why) = exit(&mut vcpu, &fields) else { panic!("no entry") };
    assert!(why.contains("RFLAGS"), "{why}");
}

#[test]
fn real_mode_enters_with_a_segment_that_was_null() {
    let refused = (Field::ExitReason, 1 << 31 | u64::from(reason::INVALID_GUEST_STATE));
    // Usable, and of the type that a null descriptor has.
    let fields = [refused, (Field::ExitQualification, 0), (Field::DsRights, 0x90)];
    // Protected mode begins with what real mode has left.
    for protection in [0, cr0::PE] {
        let mut vcpu = entered();
        let control = vcpu.control_registers();
        let cr0 = control.cr0 & !cr0::PE | protection;
        vcpu.set_control_registers(ControlRegisters { cr0, ..control });
        assert_eq!(exit(&mut vcpu, &fields), Exit::NotEntered);
        assert_eq!(hardware(&mut vcpu, Field::DsRights), 0x93);
        // There is nothing left to complete.
        assert!(matches!(exit(&mut vcpu, &fields[..2]), Exit::EntryFailure(_)));
        // Code that cannot be read is nothing that real mode makes.
        let code = [refused, fields[1], (Field::DsRights, 0x98)];
        assert!(matches!(exit(&mut vcpu, &code), Exit::EntryFailure(_)));
    }
}

#[test]
fn the_event_of_a_refused_entry_does_not_stay_behind() {
    let mut vcpu = entered();
    vcpu.inject(Event::Interrupt(Vector(0x30)));
    assert_eq!(hardware(&mut vcpu, Field::EntryEvent), 0x8000_0030);
    let fields = [
        (Field::ExitReason, 1 << 31 | u64::from(reason::INVALID_GUEST_STATE)),
        (Field::ExitQualification, 0),
        (Field::DsRights, 0x90),
    ];
    assert_eq!(exit(&mut vcpu, &fields), Exit::NotEntered);
    // It is given again, unless an INIT comes first.
    assert_eq!(hardware(&mut vcpu, Field::EntryEvent), 0);
}
