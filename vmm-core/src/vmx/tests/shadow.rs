// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt shadows.

use super::{entered, exit, hardware};
use crate::{
    Event, Exit, Trapped,
    backend::VcpuBackend,
    state::{
        Exception, InterruptShadow, SegmentRegister, Vector, cr0, cr4, dr6, dr7, efer, rflags,
    },
    vmx::{
        capability::samples::TIGER_LAKE,
        cpu::Shared,
        decode::reason,
        entry_check,
        field::{Field, SegmentFields},
        instruction,
        vcpu::VmxVcpu,
    },
};

#[test]
fn an_event_ends_the_shadow_that_it_is_delivered_in() {
    let mut vcpu = entered();
    let fields = [
        (Field::ExitReason, u64::from(reason::VMXON)),
        (Field::Interruptibility, 1),
        (Field::GuestRflags, rflags::FIXED | rflags::IF),
    ];
    let refused = Exit::Instruction(Trapped::Virtualization);
    assert_eq!(exit(&mut vcpu, &fields), refused);
    assert!(vcpu.interruptibility().in_shadow);
    vcpu.inject(Event::Interrupt(Vector(0x30)));
    vcpu.vmcs.write_back();
    // SAFETY: as above.
    let state = unsafe { instruction::vmread(Field::Interruptibility.encoding()) };
    assert_eq!(state, Some(0));
}

/// A guest in 64-bit mode that the CPU enters, with these flags beside the fixed one.
fn sound_state(flags: u64) -> [(Field, u64); 16] {
    let capabilities = Shared::sample(TIGER_LAKE).capabilities;
    let segment = |register, rights| (SegmentFields::of(register).rights, rights);
    [
        (Field::ExitReason, u64::from(reason::EPT_VIOLATION)),
        (Field::GuestCr0, capabilities.real_cr0(cr0::PE | cr0::PG | cr0::ET)),
        (Field::GuestCr4, capabilities.real_cr4(cr4::PAE)),
        (Field::GuestEfer, efer::LME | efer::LMA),
        (Field::EntryControls, 1 << 9),
        (Field::GuestDr7, dr7::FIXED),
        (Field::GuestRflags, rflags::FIXED | rflags::IF | flags),
        (Field::LdtrRights, 1 << 16),
        (Field::TrRights, 0x8B),
        (Field::TrLimit, 0x67),
        segment(SegmentRegister::Cs, 0x209B),
        segment(SegmentRegister::Ss, 0x93),
        segment(SegmentRegister::Ds, 0x93),
        segment(SegmentRegister::Es, 0x93),
        segment(SegmentRegister::Fs, 0x93),
        segment(SegmentRegister::Gs, 0x93),
    ]
}

/// Nothing that the VMM itself checks keeps the guest from being entered.
fn assert_enterable(vcpu: &VmxVcpu) {
    let found = entry_check::first_failure(&vcpu.vmcs, &vcpu.capabilities);
    assert!(found.contains("does not know"), "{found}");
}

/// Bug class odd-entry: MOV SS and STI that the VMM completes in a guest that single-steps
/// leave a state without which the CPU refuses the entry.
#[test]
fn a_shadow_in_a_guest_that_single_steps_holds_the_step_back() {
    for shadow in [InterruptShadow::MovSs, InterruptShadow::Sti] {
        for flags in [0, rflags::TF] {
            let mut vcpu = entered();
            exit(&mut vcpu, &sound_state(flags));
            assert_enterable(&vcpu);
            vcpu.begin_interrupt_shadow(shadow);
            assert_enterable(&vcpu);
            let step = if flags == 0 { 0 } else { dr6::SINGLE_STEP };
            assert_eq!(hardware(&mut vcpu, Field::PendingDebug), step);
            // The next instruction is completed by the VMM, too, and its step raised.
            vcpu.clear_interrupt_shadow();
            assert_enterable(&vcpu);
            vcpu.inject(Event::Exception(Exception::DEBUG));
            assert_enterable(&vcpu);
            assert_eq!(hardware(&mut vcpu, Field::PendingDebug), 0);
        }
    }
}

/// Bug class odd-entry: a POPF in the shadow of an STI begins single-stepping.
#[test]
fn single_steps_that_begin_in_a_shadow_end_it() {
    let mut vcpu = entered();
    exit(&mut vcpu, &sound_state(0));
    exit(&mut vcpu, &[(Field::Interruptibility, 1)]);
    vcpu.set_rflags(rflags::FIXED | rflags::IF | rflags::TF);
    vcpu.clear_interrupt_shadow();
    assert_enterable(&vcpu);
    assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
}

#[test]
fn a_shadow_ends_at_once_in_a_guest_that_single_steps() {
    let mut vcpu = entered();
    exit(&mut vcpu, &sound_state(rflags::TF));
    exit(&mut vcpu, &[(Field::Interruptibility, 1), (Field::PendingDebug, dr6::SINGLE_STEP)]);
    vcpu.clear_interrupt_shadow();
    assert_enterable(&vcpu);
    assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
    assert_eq!(hardware(&mut vcpu, Field::PendingDebug), 0);
}

/// Bug class odd-entry: a switch to a task that single-steps, in the shadow of a MOV SS. The shadow
/// ends before the flags are loaded.
#[test]
fn a_shadow_that_ended_is_gone_when_single_steps_begin() {
    let mut vcpu = entered();
    exit(&mut vcpu, &sound_state(0));
    exit(&mut vcpu, &[(Field::Interruptibility, 2)]);
    vcpu.clear_interrupt_shadow();
    vcpu.set_rflags(rflags::FIXED | rflags::IF | rflags::TF);
    assert_enterable(&vcpu);
    assert_eq!(hardware(&mut vcpu, Field::Interruptibility), 0);
}

/// A POPF or an INT in the shadow of a MOV SS ends single-stepping: the step that the shadow held
/// back is raised by the VMM, or gone, and the CPU must not raise it in the handler.
#[test]
fn a_step_that_was_held_back_goes_with_the_flag() {
    for flags in [rflags::IF, 0] {
        let mut vcpu = entered();
        exit(&mut vcpu, &sound_state(rflags::TF));
        vcpu.begin_interrupt_shadow(InterruptShadow::MovSs);
        assert_eq!(hardware(&mut vcpu, Field::PendingDebug), dr6::SINGLE_STEP);
        vcpu.set_rflags(rflags::FIXED | flags);
        vcpu.clear_interrupt_shadow();
        assert_enterable(&vcpu);
        vcpu.inject(Event::Exception(Exception::DEBUG));
        assert_eq!(hardware(&mut vcpu, Field::PendingDebug), 0, "{flags:#x}");
    }
}
