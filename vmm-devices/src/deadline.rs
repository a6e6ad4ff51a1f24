// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's timer, touched only when its deadline changes.

use vmm_core::{Timer, VmInstant};

/// Remembers the deadline of a [`Timer`], since arming it again makes a vCPU look up.
///
/// Lives under the device's lock.
pub(crate) struct Deadline {
    timer: Timer,
    at: Option<VmInstant>,
}

impl Deadline {
    /// A disarmed timer.
    pub fn new(timer: Timer) -> Self {
        Self { timer, at: None }
    }

    /// Makes `at` the deadline; `None` disarms.
    pub fn set(&mut self, at: Option<VmInstant>) {
        if self.at == at {
            return;
        }
        self.at = at;
        match at {
            Some(at) => self.timer.arm(at),
            None => self.timer.cancel(),
        }
    }

    /// Notes that the timer called at `now`. A call that was under way while the deadline
    /// was moved further on leaves the new deadline armed.
    pub fn expired(&mut self, now: VmInstant) {
        self.at = self.at.filter(|&at| at > now);
    }
}
