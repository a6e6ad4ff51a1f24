// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a guest goes on behind CPUID.

use super::{entered, exit};
use crate::{
    Exit,
    backend::VcpuBackend,
    state::rflags,
    vmx::{decode::reason, field::Field, vcpu::VmxVcpu},
};

const PLACE: u64 = 0x40_1000;

/// A CPUID of that many bytes exits; the number of bytes that the guest goes on behind.
fn cpuid(vcpu: &mut VmxVcpu, length: u64) -> u64 {
    let fields = [
        (Field::ExitReason, u64::from(reason::CPUID)),
        (Field::InstructionLength, length),
        (Field::GuestRip, PLACE),
        (Field::GuestRflags, rflags::FIXED),
    ];
    assert_eq!(exit(vcpu, &fields), Exit::Cpuid);
    vcpu.next_rip().expect("the CPU tells it") - PLACE
}

/// One process fills the place with prefixes, so that another is to go on in the midst of its own
/// instructions.
#[test]
fn a_process_cannot_have_the_plain_cpuid_of_another_go_on_elsewhere() {
    let mut vcpu = entered();
    assert_eq!(cpuid(&mut vcpu, 15), 15);
    assert_eq!(cpuid(&mut vcpu, 2), 2);
    assert_eq!(cpuid(&mut vcpu, 15), 15);
    assert_eq!(cpuid(&mut vcpu, 2), 2);
}
