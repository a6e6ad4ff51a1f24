// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use host_iface::Tsc;

use super::Vcpu;
use crate::{
    BriefExit, Exit,
    backend::{EntryGate, VcpuBackend},
    statistics::ExitReason,
};

impl<V: VcpuBackend> Vcpu<V> {
    /// Enters the guest and deals with its exit. If that was brief, the next entry follows at once,
    /// by what was prepared for the first.
    pub(super) fn enter(&mut self) {
        self.prepare_events();
        self.renew_shadow_root();
        #[cfg(feature = "fault-injection")]
        self.inject_entry_fault();
        let exit = self.pass();
        match BriefExit::of(&exit) {
            Some(kind) if self.settled => self.go_on_briefly(kind, exit),
            _ => self.deal_with(exit),
        }
    }

    /// Deals with a brief exit and those that come after it, until one is not brief, or the next
    /// entry takes preparations.
    fn go_on_briefly(&mut self, mut kind: BriefExit, mut exit: Exit) {
        loop {
            if !self.handle_brief(kind, &exit) {
                return self.deal_with(exit);
            }
            // What comes from others meanwhile closes the gate.
            if !self.settled || !self.hardware.can_resume() {
                self.last_exit = Some(ExitReason::of_brief(kind));
                return;
            }
            kind = match self.pass_again(kind, &mut exit) {
                Some(kind) => kind,
                None => return self.deal_with(exit),
            };
        }
    }

    /// Deals with an exit of any kind.
    fn deal_with(&mut self, exit: Exit) {
        if let Some(reason) = ExitReason::of(&exit) {
            self.last_exit = Some(reason);
            self.dispatch(exit);
        }
    }

    /// The same, uncounted.
    pub(super) fn dispatch(&mut self, exit: Exit) {
        if let Err(exception) = self.handle(exit) {
            self.pending.raise(exception);
        }
    }

    /// Goes into the guest, if the gate opens, and comes back with its exit.
    fn pass(&mut self) -> Exit {
        self.link.going_inside(self.cpu);
        let (exit, entered_at) = self.run_prepared();
        self.link.back_outside();
        if exit != Exit::NotEntered {
            self.statistics.note_entry(entered_at);
        }
        self.note_passage(&exit, entered_at);
        exit
    }

    /// The same entry once more, after a brief exit of kind `last`. Comes back with the kind of the
    /// next, if that is brief, too.
    #[inline(always)]
    fn pass_again(&mut self, last: BriefExit, exit: &mut Exit) -> Option<BriefExit> {
        self.link.going_inside(self.cpu);
        let deadline = self.hardware_deadline();
        let mut gate = EntryGate::new(self.core.host, self.link.attention(), self.armed)
            .with_hardware_deadline(deadline, self.now);
        let kind = self.hardware.resume(&mut gate, exit);
        let entered_at = gate.asked_at();
        self.link.back_outside();
        if kind.is_none() {
            self.last_exit = Some(ExitReason::of_brief(last));
            self.note_passage(exit, entered_at);
        } else {
            self.count_exit(ExitReason::of_brief(last), entered_at);
            self.note_times(entered_at);
        }
        kind
    }

    /// Takes note of what has happened from the last exit to this one.
    #[cold]
    fn note_passage(&mut self, exit: &Exit, entered_at: Tsc) {
        if let Some(interrupted) = self.hardware.take_interrupted_event() {
            self.pending.interrupted = Some(interrupted);
            self.settled = false;
        }
        if *exit == Exit::NotEntered {
            self.now = entered_at;
        } else {
            self.close_exit(entered_at);
            self.note_times(entered_at);
        }
    }

    #[inline(always)]
    fn note_times(&mut self, entered_at: Tsc) {
        if V::COUNTS_ACCESSES {
            self.accesses = self.hardware.control_accesses();
        }
        self.now = self.core.host.tsc();
        self.statistics.note_passage(entered_at, self.now);
        self.take_back_apic();
    }

    /// The entry that was just prepared; tells when the gate was asked, too.
    fn run_prepared(&mut self) -> (Exit, Tsc) {
        if let Some(shadow) = self.core.shadow()
            && shadow.enter(self.index)
        {
            self.hardware.flush_tlb();
        }
        let deadline = self.hardware_deadline();
        let mut gate = EntryGate::new(self.core.host, self.link.attention(), self.armed)
            .with_hardware_deadline(deadline, self.now);
        let exit = self.hardware.run(&mut gate);
        let entered_at = gate.asked_at();
        if let Some(shadow) = self.core.shadow() {
            shadow.leave(self.index);
        }
        (exit, entered_at)
    }

    /// Counts the last exit, if that is still to be done. The guest has waited until `until`.
    pub(super) fn close_exit(&mut self, until: Tsc) {
        if let Some(reason) = self.last_exit.take() {
            self.count_exit(reason, until);
        }
    }

    #[inline(always)]
    fn count_exit(&mut self, reason: ExitReason, until: Tsc) {
        if V::COUNTS_ACCESSES {
            let accesses = self.hardware.control_accesses() - self.accesses;
            self.statistics.note_accesses(reason, accesses);
        }
        // Since then the vCPU has been on this CPU, whose counter does not go back.
        self.statistics.note_exit(reason, until.0.wrapping_sub(self.now.0));
    }
}
