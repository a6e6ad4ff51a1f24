// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control blocks that say anything at an exit: each is an exit of some type, and events, steps
//! and NMIs stay in order.

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        capability::{Capabilities, CpuidLeaves},
        decode,
        entry::Preparation,
        test_vcpu,
        vcpu::SvmVcpu,
        vmcb::{EventInfo, ExitCode},
    };
    use crate::{
        Event, Exit, Vector,
        backend::VcpuBackend,
        emulate::tests::random::Random,
        state::{Exception, dr6, rflags},
    };

    /// Exits of one vCPU.
    const EXITS: usize = 24;
    const CODE: u64 = 0x10_0000;

    /// A CPU that has all, or as little as QEMU's.
    fn capabilities(random: &mut Random) -> Capabilities {
        let all = CpuidLeaves { svm_edx: u32::MAX, hypervisor: [0; 12], ..CpuidLeaves::QEMU };
        let leaves = if random.chance(2) { all } else { CpuidLeaves::QEMU };
        Capabilities::from_cpuid(&leaves).expect("a VMM can use the CPU")
    }

    fn event(random: &mut Random) -> Event {
        match random.below(3) {
            0 => Event::Nmi,
            1 => Event::Interrupt(Vector(random.bits() as u8)),
            // But breakpoint and overflow, whose instructions are executed again.
            _ => match *random.pick(&[0, 1, 5, 6, 8, 11, 13, 14, 17]) {
                14 => Event::Exception(Exception::page_fault(random.bits(), random.bits() as u32)),
                vector @ (8 | 11 | 13) => {
                    Event::Exception(Exception::with_code(vector, random.bits() as u32))
                }
                vector => Event::Exception(Exception {
                    vector: Vector(vector),
                    error_code: None,
                    fault_address: None,
                }),
            },
        }
    }

    /// What the hardware says of an event that it was delivering.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Said {
        Nothing,
        /// That of the entry.
        Injected,
        Anything,
    }

    struct Life {
        random: Random,
        vcpu: SvmVcpu,
        /// RFLAGS.TF as the guest has it.
        traces: bool,
    }

    impl Life {
        fn new(mut random: Random) -> Self {
            let capabilities = capabilities(&mut random);
            let vcpu = test_vcpu::create(capabilities, random.chance(2));
            Self { random, vcpu, traces: false }
        }

        /// The neutral layer prepares an entry.
        fn prepare(&mut self) -> Option<Event> {
            let random = &mut self.random;
            self.traces = random.chance(4);
            let flag = if self.traces { rflags::TF } else { 0 };
            let flags = random.bits() & !rflags::TF | flag;
            self.vcpu.set_rflags(flags);
            self.vcpu.set_rip(CODE);
            let event = random.chance(2).then(|| event(random));
            if let Some(event) = event {
                self.vcpu.inject(event);
            }
            self.vcpu.request_interrupt_window(random.chance(3));
            self.vcpu.watch_task_priority(random.chance(3).then_some(5));
            self.vcpu.request_nmi_window(random.chance(2));
            event
        }

        /// The hardware exits.
        fn exit(&mut self, said: Said) -> (u64, Exit) {
            self.vcpu.note_prepared();
            let random = &mut self.random;
            let code = match random.below(4) {
                0 => random.bits(),
                1 => *random.pick(&[u64::MAX, 0xFFFF_FFFF, 0x41, ExitCode::IRET, 0x400, 0x7D]),
                _ => random.below(0x100),
            };
            let info = match said {
                Said::Nothing => EventInfo::new(),
                Said::Injected => self.vcpu.vmcb().control.event_injection,
                Said::Anything => EventInfo::from_bits(random.bits()),
            };
            let moves = said == Said::Nothing && random.chance(2);
            let crate::svm::vmcb::Vmcb { control, save } = self.vcpu.vmcb_mut();
            control.exit_code = code;
            (control.exit_info1, control.exit_info2) = (random.bits(), random.bits());
            (control.next_rip, control.fetched_count) = (random.bits(), random.bits() as u8);
            control.exit_interrupt_info = info;
            control.interrupt_shadow = random.bits() & 1;
            save.dr6 = dr6::FIXED | random.bits() & dr6::CAUSES;
            save.rip = if moves { random.bits() } else { CODE };
            (code, self.vcpu.take_exit(Preparation::Own))
        }

        /// One entry and its exit; false if the entry was refused, which ends the VM.
        fn step(&mut self) -> bool {
            let event = self.prepare();
            let said = match self.random.below(3) {
                0 if event.is_some() => Said::Injected,
                1 => Said::Anything,
                _ => Said::Nothing,
            };
            let was_blocked = self.vcpu.interruptibility().nmi_blocked;
            let (code, exit) = self.exit(said);
            let refused = matches!(exit, Exit::EntryFailure(_));
            assert_eq!(refused, ExitCode::is_invalid(code), "{exit:?}");
            if let Exit::Unknown(unknown) = exit {
                assert_eq!(unknown, code);
                assert!(!matches!(code, 0..=0x1F | 0x40..=0x64), "{code:#x} is known");
            }
            if ExitCode::is_invalid(code) {
                return false;
            }
            self.check_event(event, said, was_blocked);
            self.check_trap_flag(code);
            assert!(self.vcpu.instruction_bytes().is_none_or(|bytes| bytes.len() <= 15));
            let _ = self.vcpu.next_rip();
            true
        }

        /// An event whose delivery was cut short comes out once; nothing else is injected twice.
        fn check_event(&mut self, event: Option<Event>, said: Said, was_blocked: bool) {
            assert!(
                !self.vcpu.vmcb().control.event_injection.valid(),
                "it would be injected again"
            );
            let interrupted = self.vcpu.take_interrupted_event();
            match said {
                Said::Injected => assert_eq!(interrupted, event),
                Said::Nothing => assert_eq!(interrupted, None),
                // What was never injected cannot have been cut short.
                Said::Anything if event.is_none() => {
                    assert!(matches!(interrupted, None | Some(Event::Exception(_))));
                }
                Said::Anything => {}
            }
            assert_eq!(self.vcpu.take_interrupted_event(), None);
            if said == Said::Injected && event == Some(Event::Nmi) {
                assert!(was_blocked && !self.vcpu.interruptibility().nmi_blocked);
            }
        }

        /// The flag of a step of the VMM's own does not stay.
        fn check_trap_flag(&self, code: u64) {
            let traced = self.vcpu.rflags() & rflags::TF != 0;
            let may_be_loaded = code == ExitCode::EXCEPTION_0 + 1;
            assert!(traced == self.traces || may_be_loaded, "RFLAGS.TF behind {code:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_control_block_is_an_exit(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut life = Life::new(Random::of(&bytes));
            for _ in 0..EXITS {
                if !life.step() {
                    break;
                }
            }
        }

        #[test]
        fn any_event_is_decoded(bits in any::<u64>(), cr2 in any::<u64>()) {
            let info = EventInfo::from_bits(bits);
            let event = decode::interrupted_event(info, cr2);
            prop_assert!(event.is_none() || info.valid());
            if let Some(event) = event {
                let again = decode::injection(event);
                prop_assert_eq!(decode::interrupted_event(again, cr2), Some(event));
            }
        }
    }
}
