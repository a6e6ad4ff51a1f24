// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the guest and back.

use host_iface::Tsc;

use super::Vcpu;
use crate::{
    Exit,
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
        let mut again = false;
        // Written in place by each entry: copies would be a good part of a brief exit.
        let mut exit = Exit::NotEntered;
        loop {
            self.pass(again, &mut exit);
            if self.settled
                && let Some(handled) = self.handle_brief(&exit)
            {
                if let Err(exception) = handled {
                    return self.pending.raise(exception);
                }
                // What comes from others meanwhile closes the gate.
                if self.settled {
                    again = self.hardware.can_resume();
                    continue;
                }
            } else if let Some(reason) = ExitReason::of(&exit) {
                self.note_exit(reason);
                self.dispatch(exit);
            }
            return;
        }
    }

    /// Deals with an exit of any kind.
    pub(super) fn dispatch(&mut self, exit: Exit) {
        if let Err(exception) = self.handle(exit) {
            self.pending.raise(exception);
        }
    }

    /// Goes into the guest, if the gate opens, and comes back with its `exit`. `again` tells that
    /// it is the way on after a brief exit.
    #[inline(always)]
    fn pass(&mut self, again: bool, exit: &mut Exit) {
        self.link.going_inside(self.cpu);
        let entered_at = if again { self.resume(exit) } else { self.run_prepared(exit) };
        self.link.back_outside();
        if let Some(interrupted) = self.hardware.take_interrupted_event() {
            self.pending.interrupted = Some(interrupted);
            self.settled = false;
        }
        if matches!(exit, Exit::NotEntered) {
            self.now = entered_at;
            return;
        }
        self.close_exit(entered_at);
        if V::COUNTS_ACCESSES {
            self.accesses = self.hardware.control_accesses();
        }
        self.now = self.core.host.tsc();
        self.statistics.note_passage(entered_at, self.now);
        self.take_back_apic();
    }

    /// The entry that was just prepared; tells when the gate was asked.
    fn run_prepared(&mut self, exit: &mut Exit) -> Tsc {
        if let Some(shadow) = self.core.shadow()
            && shadow.enter(self.index)
        {
            self.hardware.flush_tlb();
        }
        let deadline = self.hardware_deadline();
        let mut gate = EntryGate::new(self.core.host, self.link.attention(), self.armed)
            .with_hardware_deadline(deadline, self.now);
        *exit = self.hardware.run(&mut gate);
        let entered_at = gate.asked_at();
        if let Some(shadow) = self.core.shadow() {
            shadow.leave(self.index);
        }
        entered_at
    }

    /// The same entry once more.
    #[inline(always)]
    fn resume(&mut self, exit: &mut Exit) -> Tsc {
        let deadline = self.hardware_deadline();
        let mut gate = EntryGate::new(self.core.host, self.link.attention(), self.armed)
            .with_hardware_deadline(deadline, self.now);
        *exit = self.hardware.resume(&mut gate);
        gate.asked_at()
    }

    /// Notes why the guest has exited.
    #[inline]
    pub(super) fn note_exit(&mut self, reason: ExitReason) {
        self.statistics.count_exit(reason);
        self.last_exit = Some(reason);
    }

    /// Accounts for the time since the last exit, which ends at `until`.
    #[inline]
    pub(super) fn close_exit(&mut self, until: Tsc) {
        if let Some(reason) = self.last_exit.take() {
            if V::COUNTS_ACCESSES {
                let accesses = self.hardware.control_accesses() - self.accesses;
                self.statistics.note_accesses(reason, accesses);
            }
            self.statistics.note_duration(reason, until.0.saturating_sub(self.now.0));
        }
    }
}
