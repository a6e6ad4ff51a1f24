// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an exit costs.

use super::{PLAIN, entered_on, exit};
use crate::{
    Exit,
    apic::ApicMode,
    backend::VcpuBackend,
    state::{Gpr, rflags},
    vmx::{capability::samples::TIGER_LAKE, decode::reason, field::Field, vcpu::VmxVcpu},
};

/// What the neutral layer asks of a backend from a CPUID exit to the next entry.
fn answer_cpuid(vcpu: &mut VmxVcpu) {
    assert_eq!(vcpu.take_interrupted_event(), None);
    vcpu.task_priority();
    vcpu.interrupts();
    vcpu.cr4();
    for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx] {
        vcpu.set_gpr(register, 0);
    }
    let next = vcpu.next_rip().unwrap();
    vcpu.set_rip(next);
    assert_eq!(vcpu.rflags() & rflags::TF, 0);
    vcpu.clear_interrupt_shadow();
    let role = vcpu.set_apic_mode(ApicMode::X2Apic, true);
    vcpu.set_task_priority(0);
    if role.delivers {
        let state = vcpu.interrupts();
        vcpu.load_interrupts(&state);
    }
    vcpu.request_interrupt_window(false);
    vcpu.watch_task_priority(None);
    vcpu.request_nmi_window(false);
    vcpu.vmcs.write_back();
}

#[test]
fn a_cpuid_exit_costs_four_accesses() {
    for msrs in [TIGER_LAKE, PLAIN] {
        cpuid_exits(entered_on(msrs));
    }
}

fn cpuid_exits(mut vcpu: VmxVcpu) {
    vcpu.set_apic_mode(ApicMode::X2Apic, true);
    vcpu.vmcs.write_back();
    let fields = [
        (Field::ExitReason, u64::from(reason::CPUID)),
        (Field::InstructionLength, 2),
        (Field::GuestRip, 0x10_0000),
        (Field::GuestRflags, rflags::FIXED),
    ];
    let mut costs = alloc::vec::Vec::new();
    for _ in 0..3 {
        let before = vcpu.vmcs.accesses();
        assert_eq!(exit(&mut vcpu, &fields), Exit::Cpuid);
        answer_cpuid(&mut vcpu);
        assert_eq!(vcpu.rip(), 0x10_0002);
        costs.push(vcpu.vmcs.accesses() - before);
    }
    assert_eq!(costs, [5, 4, 4], "the first tells the length of the instruction");
}
