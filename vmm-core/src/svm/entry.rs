// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use super::{
    capability::SvmFeatures,
    decode,
    entry_check::{self, EntryState},
    nmi::NmiBlocking,
    switch::{enter_guest, hold_interrupts, let_interrupts_through},
    vcpu::SvmVcpu,
    vmcb::{EventInfo, ExitCode, TaskSwitchInfo, Vmcb},
};
use crate::{
    BriefExit, Event, Exit,
    backend::EntryGate,
    host_registers,
    state::{efer, rflags},
};

const DEBUG_VECTOR: u64 = 1;
const GENERAL_PROTECTION_VECTOR: u64 = 13;

/// What the entry that was last prepared is like. It holds for those that follow without
/// preparations of their own.
#[derive(Default)]
pub(super) struct Prepared {
    /// What the CPU checks.
    state: EntryState,
    rip: u64,
    /// It delivers nothing, steps through nothing, and is in no shadow and no handler of an NMI: of
    /// such things its exit need not be searched for traces.
    pub(super) plain: bool,
}

/// Whose preparations an entry was made with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Preparation {
    /// Its own: [`Prepared`] has the state that the CPU checked.
    Own,
    /// Those of an earlier entry, which the CPU accepted.
    Earlier,
}

impl SvmVcpu {
    /// Enters the guest if the gate opens, and returns its exit.
    pub(super) fn enter(&mut self, gate: &mut EntryGate<'_>) -> Exit {
        if self.cpu.is_none() {
            return Exit::EntryFailure("the vCPU is loaded on no CPU");
        }
        if self.capabilities.loses_interrupt_shadow && self.in_shadow() {
            self.shadow_at = Some(self.vmcb().save.rip);
        }
        self.interrupted_at_entry = false;
        // SAFETY: the vCPU is loaded on this CPU, so `load` found SVM enabled here.
        unsafe { hold_interrupts() };
        if !gate.opens() {
            // SAFETY: as above.
            unsafe { let_interrupts_through() };
            self.shadow_at = None;
            self.end_step(false);
            self.interrupted = self.injected.take();
            self.interrupted_at_entry = true;
            self.vmcb_mut().control.event_injection = EventInfo::new();
            return Exit::NotEntered;
        }
        self.prepare_tlb();
        if let (true, Some(cpu)) = (core::mem::take(&mut self.exit_at_once), self.cpu) {
            // Taken only in the guest, after the event is delivered there.
            self.host.kick(cpu);
        }
        self.load_cr2();
        self.note_prepared();
        // SAFETY: interrupts are held. The vCPU is loaded on this CPU, so `load` found it
        // prepared: SVM is on, and `host_vmcb` was filled here. The
        // intercepts are those of `set_intercepts`, and the nested tables, or the shadow tables
        // that the guest cannot replace, map the VM's own memory only.
        unsafe { enter_guest(&mut self.context) }
        self.take_exit(Preparation::Own)
    }

    /// Notes what the entry that follows is like.
    #[inline]
    pub(super) fn note_prepared(&mut self) {
        self.prepared = Prepared {
            state: EntryState::from(self.vmcb()),
            rip: self.vmcb().save.rip,
            plain: self.injected.is_none()
                && self.step.is_none()
                && self.shadow_at.is_none()
                && self.nmi == NmiBlocking::Unblocked,
        };
    }

    /// The same where all is as it was at the last exit: for
    /// [`resume`](crate::backend::VcpuBackend::resume).
    #[inline(always)]
    pub(super) fn enter_again(
        &mut self,
        gate: &mut EntryGate<'_>,
        exit: &mut Exit,
    ) -> Option<BriefExit> {
        // SAFETY: the vCPU is loaded on this CPU, so `load` found SVM enabled here.
        unsafe { hold_interrupts() };
        if !gate.opens() {
            // SAFETY: as above.
            unsafe { let_interrupts_through() };
            *exit = Exit::NotEntered;
            return None;
        }
        // SAFETY: as in `enter`, which prepared the entry before this one: the vCPU is still loaded
        // here, and the entry is the same.
        unsafe { enter_guest(&mut self.context) }
        let control = &self.vmcb().control;
        let brief = decode::brief_exit(control, exit);
        if brief.is_none() || control.exit_interrupt_info.valid() {
            *exit = self.take_exit(Preparation::Earlier);
            return None;
        }
        brief
    }

    /// The exit as the neutral layer sees it, after the backend's own part.
    #[cold]
    pub(super) fn take_exit(&mut self, preparation: Preparation) -> Exit {
        if ExitCode::is_invalid(self.vmcb().control.exit_code) {
            if !self.is_refused_cr3(preparation) {
                let failed = self.refusal(preparation);
                self.distrust_tlb();
                return Exit::EntryFailure(failed);
            }
            let control = &mut self.vmcb_mut().control;
            control.exit_code = ExitCode::EXCEPTION_0 + GENERAL_PROTECTION_VECTOR;
            control.exit_info1 = 0;
        }
        let save = &self.vmcb().save;
        let (rip, cr2) = (save.rip, save.cr2);
        let control = &self.vmcb().control;
        let (code, info) = (control.exit_code, control.exit_interrupt_info);
        self.interrupted_at_entry = self.injected.take().is_some() && rip == self.prepared.rip;
        self.interrupted = decode::interrupted_event(info, cr2).filter(|event| {
            // Other than exceptions all are injected.
            self.interrupted_at_entry || matches!(event, Event::Exception(_))
        });
        let control = &mut self.vmcb_mut().control;
        control.event_injection = EventInfo::new();
        self.restore_lost_shadow(rip);
        let trapped = code == ExitCode::EXCEPTION_0 + DEBUG_VECTOR;
        if trapped {
            self.complete_debug_registers();
        }
        let step = self.end_step(trapped);
        if code == ExitCode::IRET {
            self.nmi = self.nmi.iret_begins(rip);
            self.intercept_iret(false);
        } else {
            self.nmi.guest_moved_to(rip);
        }
        if code == ExitCode::TASK_SWITCH {
            self.note_resume_flag();
        }
        // What was delivered is delivered.
        self.prepared.plain =
            self.interrupted.is_none() && self.step.is_none() && self.nmi == NmiBlocking::Unblocked;
        match step {
            Some(step) if trapped => self.finish_step(step),
            _ => match decode::exit(&self.vmcb().control) {
                Exit::InvalidatePage { .. } => Exit::InvalidatePage { address: self.operand() },
                exit => exit,
            },
        }
    }

    /// Whether what looks like a refused entry is the guest's load of a CR3 with a reserved bit,
    /// which [ends its run so](super::capability::Capabilities::exits_by_refused_cr3). The entry
    /// itself was accepted then: its state passes, an event was delivered, and the control block
    /// holds the guest's registers. After a refusal it holds those of VMRUN, RAX its operand, or a
    /// state that does not pass. With shadow paging loads of CR3 exit before.
    fn is_refused_cr3(&self, preparation: Preparation) -> bool {
        let (save, bits) = (&self.vmcb().save, self.capabilities.address_bits);
        let passes = |state: EntryState| entry_check::passes(&state.with_address_bits(bits));
        self.capabilities.exits_by_refused_cr3
            && self.shadowed.is_none()
            && !self.vmcb().control.exit_interrupt_info.valid()
            && save.efer & efer::LMA != 0
            && save.rax != self.context.guest_vmcb
            && (preparation == Preparation::Earlier || passes(self.prepared.state))
            && passes(EntryState::from(self.vmcb()))
    }

    /// Why the CPU refused an entry.
    fn refusal(&self, preparation: Preparation) -> &'static str {
        let bits = self.capabilities.address_bits;
        match preparation {
            Preparation::Own => {
                let state = self.prepared.state.with_address_bits(bits);
                // Once for a VM, which ends by it.
                log::warn!("entry refused with {state:x?}");
                entry_check::first_failure(&state)
            }
            Preparation::Earlier => {
                let state = EntryState::from(self.vmcb());
                entry_check::failure_since_last_exit(&state.with_address_bits(bits))
            }
        }
    }

    /// Puts RFLAGS.RF to where a task switch that is not intercepted would save it from.
    fn note_resume_flag(&mut self) {
        let Vmcb { control, save } = self.vmcb_mut();
        let resume = TaskSwitchInfo::from_bits(control.exit_info2).resume();
        save.rflags = save.rflags & !rflags::RF | if resume { rflags::RF } else { 0 };
    }

    /// Linear address of INVLPG's operand, which a CPU with decode assists tells.
    fn operand(&self) -> Option<u64> {
        let told = self.capabilities.has(SvmFeatures::DECODE_ASSISTS);
        told.then_some(self.vmcb().control.exit_info1)
    }

    /// QEMU 7.2 ends an interrupt shadow when it enters the guest. If nothing was executed
    /// since, the guest is still in it.
    fn restore_lost_shadow(&mut self, rip: u64) {
        if self.shadow_at.take() == Some(rip) {
            self.vmcb_mut().control.interrupt_shadow |= 1;
        }
    }

    /// VMRUN loads CR2, but not on Bochs 2.7. Other than by page faults of the guest it
    /// changes seldom enough to be loaded everywhere.
    fn load_cr2(&mut self) {
        if core::mem::take(&mut self.cr2_differs) {
            // SAFETY: interrupts are held, so no fault of the host is in progress.
            unsafe { host_registers::write_cr2(self.vmcb().save.cr2) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::VcpuBackend,
        state::{ControlRegisters, Exception, cr0, cr4},
        svm::{Capabilities, CpuidLeaves, shadow::ShadowedRegisters, test_vcpu},
    };

    const CODE: u64 = 0x10_0000;
    /// With room for the addresses of the mock host.
    const QEMU: CpuidLeaves = CpuidLeaves { sizes_eax: 0x3034, ..CpuidLeaves::QEMU };
    const REAL: CpuidLeaves = CpuidLeaves { hypervisor: [0; 12], ..QEMU };

    /// A vCPU in 64-bit mode that was entered.
    fn entered(leaves: &CpuidLeaves) -> SvmVcpu {
        let capabilities = Capabilities::from_cpuid(leaves).expect("a VMM can use the CPU");
        let mut vcpu = test_vcpu::create(capabilities, false);
        vcpu.set_control_registers(ControlRegisters {
            cr0: cr0::PE | cr0::PG,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA,
            ..ControlRegisters::default()
        });
        vcpu.set_rip(CODE);
        vcpu.vmcb_mut().control.asid = 1;
        vcpu.note_prepared();
        vcpu
    }

    fn exit(vcpu: &mut SvmVcpu, preparation: Preparation) -> Exit {
        vcpu.vmcb_mut().control.exit_code = ExitCode::INVALID_32;
        vcpu.take_exit(preparation)
    }

    #[test]
    fn a_cr3_that_tcg_refuses_is_a_general_protection() {
        for preparation in [Preparation::Own, Preparation::Earlier] {
            for rip in [CODE, CODE + 3] {
                let mut vcpu = entered(&QEMU);
                vcpu.vmcb_mut().save.rip = rip;
                let exit = exit(&mut vcpu, preparation);
                assert_eq!(exit, Exit::Exception(Exception::GENERAL_PROTECTION));
            }
        }
    }

    #[test]
    fn an_event_that_the_entry_delivered_is_not_delivered_again() {
        let mut vcpu = entered(&QEMU);
        vcpu.inject(Event::Nmi);
        vcpu.note_prepared();
        vcpu.vmcb_mut().save.rip = CODE + 3;
        assert!(matches!(exit(&mut vcpu, Preparation::Own), Exit::Exception(_)));
        assert!(!vcpu.vmcb().control.event_injection.valid());
        assert_eq!(vcpu.take_interrupted_event(), None);
    }

    #[test]
    fn a_refused_entry_stays_one() {
        type Change = fn(&mut SvmVcpu);
        let refused: [(&str, Change); 5] = [
            ("the host's registers are in the control block", |vcpu| {
                vcpu.vmcb_mut().save.rax = vcpu.context.guest_vmcb;
            }),
            ("an event was not delivered", |vcpu| {
                vcpu.vmcb_mut().control.exit_interrupt_info.set_valid(true);
            }),
            ("the state that is left does not pass", |vcpu| vcpu.vmcb_mut().save.cr0 = cr0::PG),
            ("out of long mode CR3 has no reserved bits", |vcpu| {
                vcpu.vmcb_mut().save.efer = efer::SVME;
            }),
            ("with shadow paging such loads exit", |vcpu| {
                vcpu.shadowed = Some(ShadowedRegisters::new());
            }),
        ];
        for preparation in [Preparation::Own, Preparation::Earlier] {
            for (what, change) in refused {
                let mut vcpu = entered(&QEMU);
                change(&mut vcpu);
                let exit = exit(&mut vcpu, preparation);
                assert!(matches!(exit, Exit::EntryFailure(_)), "{what}: {exit:?}");
            }
            let exit = exit(&mut entered(&REAL), preparation);
            assert!(matches!(exit, Exit::EntryFailure(_)), "a CPU without the defect: {exit:?}");
        }
    }

    #[test]
    fn an_entry_is_refused_for_what_it_was_made_with() {
        let mut vcpu = entered(&QEMU);
        vcpu.vmcb_mut().control.asid = 0;
        vcpu.note_prepared();
        vcpu.vmcb_mut().control.asid = 1;
        assert!(matches!(exit(&mut vcpu, Preparation::Own), Exit::EntryFailure(_)));
    }
}
