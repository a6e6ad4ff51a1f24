// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine check while the guest runs is the host's affair, whatever the guest wants of it.

use super::{entered, entered_on, exit, hardware};
use crate::{
    Exit,
    backend::VcpuBackend,
    state::{ControlRegisters, cr4},
    vmx::{
        capability::samples::{PENRYN, TIGER_LAKE},
        decode::reason,
        field::Field,
    },
};

#[test]
fn a_guest_without_machine_checks_runs_with_them() {
    for msrs in [TIGER_LAKE, PENRYN] {
        for wanted in [0, cr4::PAE, cr4::PAE | cr4::MCE] {
            let mut vcpu = entered_on(msrs);
            let guest = ControlRegisters { cr4: wanted, ..vcpu.control_registers() };
            vcpu.set_control_registers(guest);
            let real = hardware(&mut vcpu, Field::GuestCr4);
            assert_eq!(real & cr4::MCE, cr4::MCE, "the CPU would shut down");
            assert_eq!(hardware(&mut vcpu, Field::Cr4Shadow), wanted, "what the guest reads");
            assert_eq!(vcpu.control_registers().cr4, wanted);
        }
    }
}

/// It may be the guest's doing, and the CPU has to hear that it was dealt with, as behind an exit.
#[test]
fn a_machine_check_at_the_entry_is_one() {
    let fields = [(Field::ExitReason, 1 << 31 | u64::from(reason::MACHINE_CHECK_AT_ENTRY))];
    assert_eq!(exit(&mut entered(), &fields), Exit::MachineCheck);
}
