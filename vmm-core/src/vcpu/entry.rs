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
        let Some(mut exit) = self.pass::<false>() else { return };
        while self.settled
            && let Some(handled) = self.handle_brief(&exit)
        {
            if let Err(exception) = handled {
                return self.pending.raise(exception);
            }
            // What comes from others closes the gate; the rest shows here.
            if !self.settled || self.core.timers.have_changed() {
                return;
            }
            match self.pass::<true>() {
                Some(next) => exit = next,
                None => return,
            }
        }
        self.dispatch(exit);
    }

    /// Deals with an exit of any kind.
    pub(super) fn dispatch(&mut self, exit: Exit) {
        if let Err(exception) = self.handle(exit) {
            self.pending.raise(exception);
        }
    }

    /// Goes through the gate into the guest, and comes back with its exit; `None` if the gate
    /// stayed closed. `AGAIN` tells that it is the way on after a brief exit.
    #[inline]
    fn pass<const AGAIN: bool>(&mut self) -> Option<Exit> {
        self.link.going_inside(self.cpu);
        // Shadow tables have to be looked at before every entry.
        let shadow = if AGAIN { None } else { self.core.shadow() };
        if let Some(shadow) = shadow
            && shadow.enter(self.index)
        {
            self.hardware.flush_tlb();
        }
        let mut gate = EntryGate::new(self.core.host, self.link.attention(), self.armed)
            .with_hardware_deadline(self.hardware_deadline(), self.now);
        let exit = match AGAIN {
            true => self.hardware.resume(&mut gate),
            false => self.hardware.run(&mut gate),
        };
        let entered_at = gate.asked_at();
        if let Some(shadow) = shadow {
            shadow.leave(self.index);
        }
        self.link.back_outside();
        if let Some(interrupted) = self.hardware.take_interrupted_event() {
            self.pending.interrupted = Some(interrupted);
            self.settled = false;
        }
        let Some(reason) = ExitReason::of(&exit) else {
            self.now = entered_at;
            return None;
        };
        self.close_exit(entered_at);
        self.accesses = self.hardware.control_accesses();
        self.now = self.core.host.tsc();
        self.statistics.note_passage(reason, entered_at, self.now);
        self.last_exit = Some(reason);
        self.take_back_apic();
        Some(exit)
    }

    /// Accounts for the time since the last exit, which ends at `until`.
    #[inline]
    pub(super) fn close_exit(&mut self, until: Tsc) {
        if let Some(reason) = self.last_exit.take() {
            let accesses = self.hardware.control_accesses() - self.accesses;
            self.statistics.note_accesses(reason, accesses);
            self.statistics.note_duration(reason, until.0.saturating_sub(self.now.0));
        }
    }
}
