// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of features that no guest has, where the CPU would execute them.

use x86::vmx::vmcs::control::SecondaryControls;

use super::{entered_on, exit, hardware};
use crate::{
    Exit, Trapped,
    vmx::{
        CapabilityMsrs, capability::samples::TIGER_LAKE, controls::Allowed, decode::reason,
        field::Field,
    },
};

/// ENCLS manages the enclaves of the whole machine; what of it takes no page of theirs would
/// succeed.
#[test]
fn every_function_of_encls_exits() {
    let encls = SecondaryControls::ENCLS_EXITING.bits();
    let secondary = Allowed(TIGER_LAKE.secondary.0 | u64::from(encls) << 32);
    let mut vcpu = entered_on(CapabilityMsrs { secondary, ..TIGER_LAKE });
    assert_eq!(hardware(&mut vcpu, Field::SecondaryControls) as u32 & encls, encls);
    assert_eq!(hardware(&mut vcpu, Field::EnclsBitmap), u64::MAX);
    let exit = exit(&mut vcpu, &[(Field::ExitReason, reason::ENCLS.into())]);
    assert_eq!(exit, Exit::Instruction(Trapped::Hidden));
}

#[test]
fn a_cpu_without_enclaves_has_no_bitmap_for_them() {
    let mut vcpu = entered_on(TIGER_LAKE);
    let encls = u64::from(SecondaryControls::ENCLS_EXITING.bits());
    assert_eq!(hardware(&mut vcpu, Field::SecondaryControls) & encls, 0);
    assert_eq!(hardware(&mut vcpu, Field::EnclsBitmap), 0, "such a field does not exist");
}
