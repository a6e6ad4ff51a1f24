// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switching tasks (Intel SDM vol. 3, 7.3; AMD APM vol. 2, 12.3).
//!
//! A switch has two halves. All that can go wrong in the task that is left comes first: the new
//! TSS is checked, and every byte of both is translated, before the first is written. From then
//! on the CPU is in the new task, and what goes wrong with its segments does so there.

mod layout;
mod leave;
mod plan;
mod segments;

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::outcome::{Outcome, Step};
use crate::access::AccessWidth;
use crate::exit::TaskSwitch;
use crate::state::{Exception, dr6};

/// Vector of an invalid TSS.
const INVALID_TSS: u8 = 10;
/// The exceptions with the error code of a selector: #TS, #NP, #SS and #GP.
const SELECTOR_FAULTS: core::ops::RangeInclusive<u8> = 10..=13;
/// Bit of such an error code: what led there came from outside the program (Intel SDM vol. 3,
/// 6.13).
const EXTERNAL: u32 = 1;

/// What the task that is left saves and hands on.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Where the task goes on when it is returned to.
    pub return_to: u64,
    /// An interrupt or exception switches, and no instruction.
    pub external: bool,
}

/// How a switch of tasks ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct TaskSwitchEnd {
    /// The CPU is in the new task, where a fault of `outcome` is to be delivered, too. If not,
    /// nothing has changed.
    pub committed: bool,
    /// [`Outcome::Done`], or why the switch did not end well.
    pub outcome: Outcome,
}

/// What is left to do in the new task.
struct Arrival {
    state: layout::TaskState,
    /// Width of what is pushed, by the format of the new TSS.
    size: AccessWidth,
}

/// Switches tasks, as the hardware has found allowed: the privilege level was checked, and the
/// task gate if there is one.
pub fn switch_task(
    cpu: &mut impl EmulatorCpu,
    bus: &mut impl GuestBus,
    switch: TaskSwitch,
    departure: Departure,
) -> TaskSwitchEnd {
    let mut old = Context::new(cpu, bus);
    let arrival = match old.leave_task(switch, departure.return_to) {
        Ok(arrival) => arrival,
        Err(stop) => {
            let outcome = blame(old.outcome_of(stop), departure);
            return TaskSwitchEnd { committed: false, outcome };
        }
    };
    let mut new = Context::new(cpu, bus);
    let outcome = match new.begin_task(&arrival, switch.error_code) {
        Ok(()) => Outcome::Done { debug_trap: false },
        Err(stop) => blame(new.outcome_of(stop), departure),
    };
    TaskSwitchEnd { committed: true, outcome }
}

/// Tells in the error code of a fault whether the program is to blame.
fn blame(outcome: Outcome, departure: Departure) -> Outcome {
    match outcome {
        Outcome::Fault(Exception { vector, error_code: Some(code), fault_address })
            if departure.external && SELECTOR_FAULTS.contains(&vector.0) =>
        {
            let error_code = Some(code | EXTERNAL);
            Outcome::Fault(Exception { vector, error_code, fault_address })
        }
        other => other,
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// What comes before the first instruction of the new task.
    fn begin_task(&mut self, arrival: &Arrival, error_code: Option<u32>) -> Step<()> {
        self.load_task_segments(&arrival.state)?;
        if let Some(code) = error_code {
            self.push_value(code.into(), arrival.size)?;
        }
        if arrival.state.traps {
            let status = self.cpu.debug_register(6);
            self.cpu.set_debug_register(6, status | dr6::TASK_SWITCH);
            return Err(Exception::DEBUG.into());
        }
        Ok(())
    }
}
