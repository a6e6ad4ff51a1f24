// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an MSR access reaches beside the registers themselves.

use crate::{apic::LocalApic, memory::LiveMemory};

/// The parts of the VM that an MSR access may touch.
pub struct MsrContext<'a> {
    /// The vCPU's local APIC.
    pub apic: &'a mut LocalApic,
    /// The guest's memory.
    pub memory: LiveMemory<'a>,
}

/// What the caller has to do after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum MsrEffect {
    /// Nothing.
    None,
    /// Load this TSC offset into the hardware: guest TSC = host TSC + offset, wrapping.
    TscOffset(u64),
    /// Execute an indirect branch prediction barrier on the host CPU (write 1 to PRED_CMD).
    PredictionBarrier,
}
