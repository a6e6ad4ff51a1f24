// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches of tasks, which the hardware leaves to the VMM: VT-x all of them (Intel SDM vol. 3,
//! 25.4.2), SVM those of guests with shadow paging.

use super::Vcpu;
use crate::{
    Event, TaskSwitch, TaskSwitchSource,
    backend::VcpuBackend,
    emulate::{self, Departure, Outcome},
    state::Exception,
};

impl<V: VcpuBackend> Vcpu<V> {
    /// Switches tasks. An event that led to a task gate is delivered by that; a fault on the way
    /// combines with it, in the old task as in the new.
    pub(super) fn switch_task(&mut self, switch: TaskSwitch) -> Result<(), Exception> {
        if switch.error_code.is_none() {
            self.forget_older_event();
        }
        if switch.source != TaskSwitchSource::Gate {
            // An instruction switches: no event is under way.
            self.pending.interrupted = None;
        }
        let event = self.pending.interrupted;
        let return_to = match event {
            Some(_) => self.hardware.rip(),
            None => match self.next_instruction() {
                Ok(next) => next,
                Err(outcome) => return self.conclude(outcome),
            },
        };
        let departure = Departure { return_to, external: event.is_some() };
        let (mut cpu, mut bus) = self.views();
        let end = emulate::switch_task(&mut cpu, &mut bus, switch, departure);
        if end.committed {
            self.shadow.root_is_old = true;
            if event == Some(Event::Nmi) {
                self.hardware.set_nmi_blocking(true);
            }
        }
        match end.outcome {
            Outcome::Done { .. } => {
                self.pending.interrupted = None;
                Ok(())
            }
            // The old task has been left, so that the switch cannot be repeated.
            Outcome::Repeat { .. } if end.committed => {
                self.cannot_emulate("a task switch while the page tables keep changing")
            }
            Outcome::Unsupported(_) => self.cannot_emulate("a task switch in this mode"),
            outcome => self.conclude(outcome),
        }
    }
}
