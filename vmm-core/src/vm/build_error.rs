// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a VM could not be built.

use core::fmt;

use host_iface::HostError;

use super::MAX_VCPUS;
use crate::{MAX_TIMERS, PAGE_SIZE, bus::ClaimError, memory::MIN_MEMORY};

/// A part of a VM for which memory of the host is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmPart {
    /// The guest's memory.
    Memory,
    /// The table of I/O ports.
    Ports,
    /// The tables that the CPUs walk on their way to guest memory.
    PageTables,
    /// The control block and save areas of the vCPU with this index.
    Vcpu(u32),
}

impl VmPart {
    /// Names the part for which the host had no memory.
    pub(super) fn lacks(self) -> impl FnOnce(HostError) -> BuildError {
        move |error| BuildError::Host { part: self, error }
    }
}

impl fmt::Display for VmPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(f, "guest memory"),
            Self::Ports => write!(f, "table of I/O ports"),
            Self::PageTables => write!(f, "page tables"),
            Self::Vcpu(index) => write!(f, "control block of vCPU {index}"),
        }
    }
}

/// Why a VM could not be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// The number of vCPUs is out of range.
    VcpuCount(u32),
    /// The size of memory is out of range.
    MemorySize(u64),
    /// The host could not give what a part of the VM needs.
    Host {
        /// The part.
        part: VmPart,
        /// Why not.
        error: HostError,
    },
    /// Two devices want the same range, or one wants a range that is no device's.
    Claim(ClaimError),
    /// Devices want more timers than there are.
    TooManyTimers,
    /// Nested paging was asked for, and the CPU has none.
    NoNestedPaging,
    /// The budget for shadow tables, in bytes, is too small; how much is needed.
    ShadowBudget {
        /// What was asked for.
        bytes: u64,
        /// The least that does.
        least: u64,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VcpuCount(count) => {
                write!(f, "a VM cannot have {count} vCPUs; choose 1 to {MAX_VCPUS}")
            }
            Self::MemorySize(bytes) => write!(
                f,
                "a VM cannot have {bytes} bytes of memory; choose a multiple of {PAGE_SIZE} \
                 from {MIN_MEMORY} on"
            ),
            Self::Host { part, error } => write!(f, "{part}: {error}"),
            Self::Claim(error) => write!(f, "{error}"),
            Self::NoNestedPaging => write!(
                f,
                "this CPU has no nested paging; choose shadow paging, or leave the choice out"
            ),
            Self::ShadowBudget { bytes, least } => write!(
                f,
                "a budget of {bytes} bytes for shadow tables is too small; choose {least} or more"
            ),
            Self::TooManyTimers => write!(f, "the devices need more than {MAX_TIMERS} timers"),
        }
    }
}

impl core::error::Error for BuildError {}

impl From<ClaimError> for BuildError {
    fn from(error: ClaimError) -> Self {
        Self::Claim(error)
    }
}
