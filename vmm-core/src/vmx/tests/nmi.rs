// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blocking of NMIs.

use super::{entered, exit};
use crate::{
    Event, Exit,
    backend::VcpuBackend,
    state::Exception,
    vmx::{decode::reason, field::Field, interruptibility::BLOCKED_BY_NMI},
};

#[test]
fn an_nmi_whose_delivery_was_cut_short_blocks_no_other() {
    let mut vcpu = entered();
    let fields = [
        (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
        (Field::VectoringEvent, 0x8000_0202),
        (Field::Interruptibility, BLOCKED_BY_NMI),
    ];
    exit(&mut vcpu, &fields);
    assert_eq!(vcpu.take_interrupted_event(), Some(Event::Nmi));
    assert!(!vcpu.interruptibility().nmi_blocked);
}

#[test]
fn an_iret_that_is_repeated_unblocks_no_nmis() {
    let mut vcpu = entered();
    let fields = [
        (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
        (Field::ExitQualification, 1 << 12 | 1),
        (Field::VectoringEvent, 0),
        (Field::Interruptibility, 0),
    ];
    exit(&mut vcpu, &fields);
    assert!(vcpu.interruptibility().nmi_blocked);
}

#[test]
fn an_iret_that_faults_in_the_guest_unblocks_nmis() {
    let mut vcpu = entered();
    let fields = [
        (Field::ExitReason, u64::from(reason::EXCEPTION_OR_NMI)),
        (Field::ExitEvent, 0x8000_1B0E),
        (Field::ExitErrorCode, 4),
        (Field::ExitQualification, 0x5000),
        (Field::VectoringEvent, 0),
        (Field::Interruptibility, 0),
    ];
    let fault = Exit::PageFault { address: 0x5000, error_code: 4 };
    assert_eq!(exit(&mut vcpu, &fields), fault);
    assert!(vcpu.interruptibility().nmi_blocked, "as far as it is repeated");
    vcpu.inject(Event::Exception(Exception::page_fault(0x5000, 4)));
    assert!(!vcpu.interruptibility().nmi_blocked);
}
