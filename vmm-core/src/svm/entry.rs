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
use crate::{BriefExit, Event, Exit, backend::EntryGate, host_registers, state::rflags};

const DEBUG_VECTOR: u64 = 1;

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
        let save = &self.vmcb().save;
        let (rip, cr2) = (save.rip, save.cr2);
        let control = &self.vmcb().control;
        let (code, info) = (control.exit_code, control.exit_interrupt_info);
        if ExitCode::is_invalid(code) {
            let failed = self.refusal(preparation);
            self.distrust_tlb();
            return Exit::EntryFailure(failed);
        }
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
