// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending a VM, and why it ended.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use spin::Once;

use crate::{Doorbell, GuestPhysAddr};

/// Why a VM ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndReason {
    /// The guest switched itself off.
    PowerOff,
    /// The guest reset itself; says by which means.
    Reset(&'static str),
    /// The guest wrote this value to its exit port.
    ExitPort(u32),
    /// A triple fault of a vCPU.
    TripleFault {
        /// Index of the vCPU.
        vcpu: u32,
        /// Its instruction pointer.
        rip: u64,
    },
    /// Every vCPU waits with interrupts disabled, so nothing can wake the VM.
    Halted,
    /// The host asked for it.
    Stopped(&'static str),
    /// The CPU refused to enter the guest.
    EntryFailure {
        /// Index of the vCPU.
        vcpu: u32,
        /// What the CPU objected to.
        why: String,
    },
    /// The guest executed what the VMM cannot emulate.
    EmulationFailure {
        /// Index of the vCPU.
        vcpu: u32,
        /// Its instruction pointer.
        rip: u64,
        /// The instruction and the access.
        why: String,
    },
    /// The hardware failed while a vCPU ran.
    MachineCheck {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// The CPU refused an entry of the nested page tables: a defect of the VMM.
    NestedMisconfiguration {
        /// Index of the vCPU.
        vcpu: u32,
        /// The address that was translated.
        address: GuestPhysAddr,
    },
    /// Shadow paging could not go on: its budget is too small, or a defect of the VMM.
    ShadowPaging {
        /// Index of the vCPU.
        vcpu: u32,
        /// What went wrong.
        why: &'static str,
    },
    /// An exit that the VMM does not know.
    UnknownExit {
        /// Index of the vCPU.
        vcpu: u32,
        /// The hardware's exit code.
        code: u64,
    },
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "the guest switched itself off"),
            Self::Reset(how) => write!(f, "the guest reset itself by {how}"),
            Self::ExitPort(value) => write!(f, "the guest wrote {value} to its exit port"),
            Self::TripleFault { vcpu, rip } => write!(f, "triple fault of vCPU {vcpu} at {rip:#x}"),
            Self::Halted => write!(f, "every vCPU is halted and cannot be interrupted"),
            Self::Stopped(why) => write!(f, "stopped by the host: {why}"),
            Self::EntryFailure { vcpu, why } => {
                write!(f, "the CPU refused to enter vCPU {vcpu}: {why}")
            }
            Self::EmulationFailure { vcpu, rip, why } => {
                write!(f, "vCPU {vcpu} at {rip:#x}: cannot emulate {why}")
            }
            Self::MachineCheck { vcpu } => {
                write!(f, "the hardware reported a machine check while vCPU {vcpu} ran")
            }
            Self::NestedMisconfiguration { vcpu, address } => {
                write!(f, "vCPU {vcpu}: the CPU refused the nested page tables for {address}")
            }
            Self::ShadowPaging { vcpu, why } => write!(f, "vCPU {vcpu}: shadow paging: {why}"),
            Self::UnknownExit { vcpu, code } => {
                write!(f, "vCPU {vcpu} left the guest for unknown reason {code:#x}")
            }
        }
    }
}

#[derive(Default)]
struct Shared {
    end: Once<EndReason>,
    doorbells: Once<Vec<Doorbell>>,
}

/// The handle with which devices and the host end a VM.
#[derive(Clone, Default)]
pub struct VmControl {
    shared: Arc<Shared>,
}

impl VmControl {
    /// A control for a VM whose vCPUs are connected later.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the vCPUs to wake when the VM ends; the first call wins.
    pub fn connect(&self, doorbells: Vec<Doorbell>) {
        self.shared.doorbells.call_once(|| doorbells);
    }

    /// Ends the VM. Only the first reason counts.
    pub fn end(&self, reason: EndReason) {
        self.shared.end.call_once(|| reason);
        for doorbell in self.shared.doorbells.get().into_iter().flatten() {
            doorbell.ring();
        }
    }

    /// Why the VM ended, if it has.
    #[inline]
    pub fn ended(&self) -> Option<&EndReason> {
        self.shared.end.get()
    }
}
