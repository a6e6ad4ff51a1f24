// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control structures that say anything at an exit: each is an exit of some type, and an event
//! that was cut short comes out once.

#[cfg(test)]
mod tests {
    use host_iface::HostPhysAddr;
    use proptest::prelude::*;

    use super::super::{
        capability::samples::TIGER_LAKE,
        cpu::Shared,
        decode::{self, EventField, ExitInformation, ExitReasonField, event_kind, reason},
        field::Field,
        instruction,
        vcpu::VmxVcpu,
    };
    use crate::{
        Event, Exit,
        backend::{ApicSetup, Translation, VcpuBackend, VcpuSetup},
        emulate::tests::random::Random,
        state::rflags,
    };

    /// Exits of one vCPU.
    const EXITS: usize = 24;

    /// Basic reasons that a guest can cause with the controls that it has (Intel SDM vol. 3, 25.1.2, and
    /// for the last four the instructions' own pages): none may end its VM, for user mode can cause
    /// most of them.
    const UNCONDITIONAL: [u16; 20] = [
        reason::CPUID,
        reason::GETSEC,
        reason::INVD,
        reason::VMCALL,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        reason::VMXON,
        reason::INVEPT,
        reason::INVVPID,
        reason::XSETBV,
        reason::SEAMCALL,
        reason::TDCALL,
        reason::RDMSR_IMMEDIATE,
        reason::WRMSR_IMMEDIATE,
    ];

    fn set(field: Field, value: u64) {
        // SAFETY: in tests the VMX instructions work on ordinary memory.
        unsafe { instruction::vmwrite(field.encoding(), value) };
    }

    fn vcpu() -> VmxVcpu {
        let setup = VcpuSetup {
            translation: Translation::Nested(HostPhysAddr::new(0x1000)),
            tsc_offset: 0,
            apic: ApicSetup::Emulated,
            has_siblings: false,
        };
        let mut vcpu =
            VmxVcpu::new(Shared::sample(TIGER_LAKE), setup).expect("the host has memory");
        // SAFETY: as above.
        assert!(unsafe { vcpu.vmcs.load() });
        vcpu.vmcs.write_back();
        vcpu
    }

    /// The guest exits with fields of any value.
    fn exit(vcpu: &mut VmxVcpu, random: &mut Random) -> (ExitReasonField, Exit) {
        let basic = match random.below(3) {
            0 => random.bits() as u16,
            1 => reason::EXCEPTION_OR_NMI,
            _ => random.below(90) as u16,
        };
        let failure = random.chance(8);
        let field = ExitReasonField::new().with_basic(basic).with_entry_failure(failure);
        set(Field::ExitReason, u64::from(field.into_bits()));
        for field in [
            Field::ExitQualification,
            Field::GuestPhysicalAddress,
            Field::ExitEvent,
            Field::ExitErrorCode,
            Field::VectoringEvent,
            Field::VectoringErrorCode,
            Field::InstructionLength,
            Field::GuestRip,
            Field::Interruptibility,
            Field::PendingDebug,
            Field::CsRights,
        ] {
            let value = random.operand();
            // Events are valid mostly, and qualifications of the narrow kind.
            let value = if random.chance(2) { value & 0xFFFF_FFFF | 1 << 31 } else { value };
            set(field, value);
        }
        set(Field::GuestRflags, random.bits() | rflags::FIXED);
        vcpu.vmcs.guest_exited();
        vcpu.note_interrupts();
        vcpu.basic_reason = basic;
        (field, vcpu.exit_of(field))
    }

    fn check(vcpu: &mut VmxVcpu, random: &mut Random) {
        let (field, exit) = exit(vcpu, random);
        let basic = field.basic();
        let refused = matches!(exit, Exit::EntryFailure(_));
        // Refused without a check that failed: entered once more, or ended by the hardware.
        let other = matches!(exit, Exit::NotEntered | Exit::MachineCheck);
        assert!(refused == field.entry_failure() || other, "{basic} {exit:?}");
        if let Exit::Unknown(unknown) = exit {
            assert_eq!(unknown, u64::from(basic));
            assert!(!UNCONDITIONAL.contains(&basic), "{basic} would end the VM");
        }
        let vectoring = vcpu.vectoring_event();
        let interrupted = vcpu.take_interrupted_event();
        assert_eq!(vcpu.take_interrupted_event(), None);
        let may_interrupt = !field.entry_failure() && decode::may_interrupt_delivery(basic);
        match (may_interrupt && vectoring.valid(), vectoring.kind()) {
            (false, _) => assert_eq!(interrupted, None, "{basic}"),
            (true, event_kind::NMI) => assert_eq!(interrupted, Some(Event::Nmi)),
            (true, event_kind::INTERRUPT) => {
                assert!(matches!(interrupted, Some(Event::Interrupt(_))), "{basic}");
            }
            (true, _) => {}
        }
        let _ = (vcpu.next_rip(), vcpu.interruptibility(), vcpu.debug_status_control());
    }

    proptest! {
        #[test]
        fn any_control_structure_is_an_exit(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut random = Random::of(&bytes);
            let mut vcpu = vcpu();
            for _ in 0..EXITS {
                check(&mut vcpu, &mut random);
            }
        }

        #[test]
        fn any_event_is_decoded(bits in any::<u32>(), code in any::<u32>(), cr2 in any::<u64>()) {
            let field = EventField::from_bits(bits);
            let event = decode::interrupted_event(field, code, cr2);
            prop_assert!(event.is_none() || field.valid());
            if let Some(event) = event {
                let again = decode::injection(event);
                let code = again.error_code.unwrap_or(0);
                let field = EventField::from_bits(again.field);
                prop_assert_eq!(decode::interrupted_event(field, code, cr2), Some(event));
            }
        }
    }

    /// User mode can execute SEAMCALL and TDCALL, which exit where the CPU has trust domains.
    #[test]
    fn what_always_exits_ends_no_vm() {
        for basic in UNCONDITIONAL {
            let mut vcpu = vcpu();
            set(Field::ExitReason, u64::from(basic));
            vcpu.vmcs.guest_exited();
            vcpu.basic_reason = basic;
            let field = ExitReasonField::new().with_basic(basic);
            let exit = vcpu.exit_of(field);
            assert!(!matches!(exit, Exit::Unknown(_)), "{basic}: {exit:?}");
        }
    }
}
