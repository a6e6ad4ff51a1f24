// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding out that nothing will ever wake a VM again.

use crate::sync::{AtomicU64, Ordering};

/// One in the upper half, which counts how often a vCPU went on.
const WENT_ON: u64 = 1 << 32;

/// How many vCPUs wait where only an NMI, INIT or start-up from another vCPU could reach
/// them, in the lower half; in the upper half, how often one of them went on.
#[derive(Default)]
pub struct HaltDetector {
    state: AtomicU64,
}

impl HaltDetector {
    /// Notes that a vCPU begins such a wait. True if all `vcpus` do, and `may_be_woken` sees
    /// neither mail that one of them has not taken nor a device that could send some.
    pub fn begin_wait(&self, vcpus: usize, may_be_woken: impl FnOnce() -> bool) -> bool {
        let state = self.state.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        // If one went on while the others' mail was looked at, it may have taken its own
        // before, and sent some behind the look.
        state & (WENT_ON - 1) == vcpus as u64
            && !may_be_woken()
            && self.state.load(Ordering::SeqCst) == state
    }

    /// Notes that a vCPU goes on; called before it takes what woke it.
    pub fn end_wait(&self) {
        self.state.fetch_add(WENT_ON - 1, Ordering::SeqCst);
    }
}
