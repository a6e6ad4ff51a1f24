// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU did, counted.
//!
//! Counters are plain integers that the vCPU's own thread keeps in tables, so that counting
//! costs an addition or two.

use alloc::{boxed::Box, vec::Vec};

use host_iface::{HostError, Tsc};

use crate::{BriefExit, Exit, memory::heap, state::Vector};

/// Buckets of a histogram: bucket `i` holds durations from 2^i ticks on.
pub const HISTOGRAM_BUCKETS: usize = u64::BITS as usize;

/// Neutral exit reasons, as counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "one for each kind of Exit")]
pub enum ExitReason {
    HostInterrupt,
    InterruptWindow,
    NmiWindow,
    Cpuid,
    Halt,
    Pause,
    Instruction,
    PortIo,
    StringPortIo,
    ReadMsr,
    WriteMsr,
    ControlRegister,
    Xsetbv,
    Hypercall,
    Mmio,
    NestedPageFault,
    PageFault,
    InvalidatePage,
    ApicAccess,
    ApicWrite,
    EndOfInterrupt,
    TaskPriority,
    Deadline,
    Exception,
    TaskSwitch,
    MachineCheck,
    Shutdown,
    EntryFailure,
    Unknown,
}

impl ExitReason {
    /// All reasons, in order.
    pub const ALL: [Self; 29] = [
        Self::HostInterrupt,
        Self::InterruptWindow,
        Self::NmiWindow,
        Self::Cpuid,
        Self::Halt,
        Self::Pause,
        Self::Instruction,
        Self::PortIo,
        Self::StringPortIo,
        Self::ReadMsr,
        Self::WriteMsr,
        Self::ControlRegister,
        Self::Xsetbv,
        Self::Hypercall,
        Self::Mmio,
        Self::NestedPageFault,
        Self::PageFault,
        Self::InvalidatePage,
        Self::ApicAccess,
        Self::ApicWrite,
        Self::EndOfInterrupt,
        Self::TaskPriority,
        Self::Deadline,
        Self::Exception,
        Self::TaskSwitch,
        Self::MachineCheck,
        Self::Shutdown,
        Self::EntryFailure,
        Self::Unknown,
    ];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostInterrupt => "host_interrupt",
            Self::InterruptWindow => "interrupt_window",
            Self::NmiWindow => "nmi_window",
            Self::Cpuid => "cpuid",
            Self::Halt => "halt",
            Self::Pause => "pause",
            Self::Instruction => "instruction",
            Self::PortIo => "port_io",
            Self::StringPortIo => "string_port_io",
            Self::ReadMsr => "read_msr",
            Self::WriteMsr => "write_msr",
            Self::ControlRegister => "control_register",
            Self::Xsetbv => "xsetbv",
            Self::Hypercall => "hypercall",
            Self::Mmio => "mmio",
            Self::NestedPageFault => "nested_page_fault",
            Self::PageFault => "page_fault",
            Self::InvalidatePage => "invalidate_page",
            Self::ApicAccess => "apic_access",
            Self::ApicWrite => "apic_write",
            Self::EndOfInterrupt => "end_of_interrupt",
            Self::TaskPriority => "task_priority",
            Self::Deadline => "deadline",
            Self::Exception => "exception",
            Self::TaskSwitch => "task_switch",
            Self::MachineCheck => "machine_check",
            Self::Shutdown => "shutdown",
            Self::EntryFailure => "entry_failure",
            Self::Unknown => "unknown",
        }
    }

    /// The reason of a brief exit.
    #[inline]
    pub const fn of_brief(exit: BriefExit) -> Self {
        match exit {
            BriefExit::Cpuid => Self::Cpuid,
            BriefExit::Hypercall => Self::Hypercall,
            BriefExit::PortIo => Self::PortIo,
            BriefExit::ReadMsr => Self::ReadMsr,
            BriefExit::WriteMsr => Self::WriteMsr,
            BriefExit::Mmio => Self::Mmio,
        }
    }

    /// The reason of an exit; none if the guest was not entered.
    pub const fn of(exit: &Exit) -> Option<Self> {
        Some(match exit {
            Exit::NotEntered => return None,
            Exit::HostInterrupt => Self::HostInterrupt,
            Exit::InterruptWindow => Self::InterruptWindow,
            Exit::NmiWindow => Self::NmiWindow,
            Exit::Cpuid => Self::Cpuid,
            Exit::Halt => Self::Halt,
            Exit::Pause => Self::Pause,
            Exit::TaskSwitch(_) => Self::TaskSwitch,
            Exit::Instruction(_) => Self::Instruction,
            Exit::PortIo(io) if io.is_string => Self::StringPortIo,
            Exit::PortIo(_) => Self::PortIo,
            Exit::ReadMsr => Self::ReadMsr,
            Exit::WriteMsr => Self::WriteMsr,
            Exit::ControlRegister(_) => Self::ControlRegister,
            Exit::SetExtendedControl => Self::Xsetbv,
            Exit::Hypercall => Self::Hypercall,
            Exit::NestedPageFault(fault) if fault.in_page_walk => Self::NestedPageFault,
            Exit::NestedPageFault(_) => Self::Mmio,
            Exit::PageFault { .. } => Self::PageFault,
            Exit::InvalidatePage { .. } => Self::InvalidatePage,
            Exit::ApicAccess(_) => Self::ApicAccess,
            Exit::ApicWrite(_) => Self::ApicWrite,
            Exit::EndOfInterrupt(_) => Self::EndOfInterrupt,
            Exit::TaskPriority => Self::TaskPriority,
            Exit::Deadline => Self::Deadline,
            Exit::Exception(_) => Self::Exception,
            Exit::MachineCheck => Self::MachineCheck,
            Exit::Shutdown => Self::Shutdown,
            Exit::EntryFailure(_) => Self::EntryFailure,
            Exit::NestedMisconfiguration(_) | Exit::Unknown(_) => Self::Unknown,
        })
    }
}

/// Counts and durations of exits for one reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitStatistics {
    /// How often.
    pub count: u64,
    /// TSC ticks from exit to the next entry, in total.
    pub ticks: u64,
    /// The longest.
    pub max_ticks: u64,
    /// Accesses to the control block by instructions of their own, from exit to the next
    /// entry, in total.
    pub accesses: u64,
    /// Durations by power of two.
    pub histogram: [u64; HISTOGRAM_BUCKETS],
}

const NO_EXITS: ExitStatistics = ExitStatistics {
    count: 0,
    ticks: 0,
    max_ticks: 0,
    accesses: 0,
    histogram: [0; HISTOGRAM_BUCKETS],
};

/// Accesses that nobody answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unclaimed {
    PortRead,
    PortWrite,
    MemoryRead,
    MemoryWrite,
    MsrRead,
    MsrWrite,
    Hypercall,
}

impl Unclaimed {
    /// All kinds, in order.
    pub const ALL: [Self; 7] = [
        Self::PortRead,
        Self::PortWrite,
        Self::MemoryRead,
        Self::MemoryWrite,
        Self::MsrRead,
        Self::MsrWrite,
        Self::Hypercall,
    ];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortRead => "port_read",
            Self::PortWrite => "port_write",
            Self::MemoryRead => "memory_read",
            Self::MemoryWrite => "memory_write",
            Self::MsrRead => "msr_read",
            Self::MsrWrite => "msr_write",
            Self::Hypercall => "hypercall",
        }
    }
}

/// The counters of one vCPU.
#[derive(Clone, Debug)]
pub struct VcpuStatistics {
    exits: Box<[ExitStatistics; ExitReason::ALL.len()]>,
    interrupts: Box<[u64; 256]>,
    exceptions: [u64; 32],
    unclaimed: [u64; Unclaimed::ALL.len()],
    /// NMIs injected.
    pub nmis: u64,
    /// Guest entries.
    pub entries: u64,
    /// Instructions that were interpreted because the CPU cannot execute the guest in the mode
    /// that it was in.
    pub interpreted: u64,
    /// TSC ticks in the guest.
    pub guest_ticks: u64,
    /// TSC ticks in which the vCPU waited for an event.
    pub idle_ticks: u64,
    /// TSC at the first entry.
    pub first_entry: Option<u64>,
}

impl VcpuStatistics {
    /// None yet.
    ///
    /// # Errors
    /// [`HostError::OutOfHeap`]: the counters of exits are large.
    pub fn new() -> Result<Self, HostError> {
        Ok(Self {
            exits: heap::boxed_array(NO_EXITS)?,
            interrupts: heap::boxed_array(0)?,
            exceptions: [0; 32],
            unclaimed: [0; Unclaimed::ALL.len()],
            nmis: 0,
            entries: 0,
            interpreted: 0,
            guest_ticks: 0,
            idle_ticks: 0,
            first_entry: None,
        })
    }

    /// Notes that the guest was entered at `from`, if that was the first time.
    pub fn note_entry(&mut self, from: Tsc) {
        self.first_entry.get_or_insert(from.0);
    }

    /// Counts an entry at `from` that ended at `until`.
    #[inline]
    pub fn note_passage(&mut self, from: Tsc, until: Tsc) {
        self.entries += 1;
        // Both were read on one CPU, whose counter does not go back.
        self.guest_ticks = self.guest_ticks.wrapping_add(until.0.wrapping_sub(from.0));
    }

    /// Counts an exit for `reason`, which kept the guest waiting for so long.
    #[inline]
    pub fn note_exit(&mut self, reason: ExitReason, ticks: u64) {
        let exit = &mut self.exits[reason as usize];
        exit.count += 1;
        exit.ticks = exit.ticks.wrapping_add(ticks);
        exit.max_ticks = exit.max_ticks.max(ticks);
        // None counts as one tick.
        exit.histogram[(ticks | 1).ilog2() as usize] += 1;
    }

    /// Notes how often the last exit for `reason` took an access to the control block.
    #[inline]
    pub fn note_accesses(&mut self, reason: ExitReason, accesses: u64) {
        self.exits[reason as usize].accesses += accesses;
    }

    /// Counts an injected interrupt.
    #[inline]
    pub fn count_interrupt(&mut self, vector: Vector) {
        self.interrupts[usize::from(vector.0)] += 1;
    }

    /// Counts an injected exception.
    #[inline]
    pub fn count_exception(&mut self, vector: Vector) {
        self.exceptions[usize::from(vector.0) % 32] += 1;
    }

    /// Counts an access that nobody answered.
    #[inline]
    pub fn count_unclaimed(&mut self, kind: Unclaimed) {
        self.unclaimed[kind as usize] += 1;
    }

    /// Exits for `reason`.
    pub fn exits(&self, reason: ExitReason) -> &ExitStatistics {
        &self.exits[reason as usize]
    }

    /// Injected interrupts as (vector, count), those that occurred.
    pub fn interrupts(&self) -> Vec<(Vector, u64)> {
        occurred(&*self.interrupts)
    }

    /// Injected exceptions as (vector, count), those that occurred.
    pub fn exceptions(&self) -> Vec<(Vector, u64)> {
        occurred(&self.exceptions)
    }

    /// Accesses of `kind` that nobody answered.
    pub fn unclaimed(&self, kind: Unclaimed) -> u64 {
        self.unclaimed[kind as usize]
    }
}

fn occurred(counts: &[u64]) -> Vec<(Vector, u64)> {
    (0..=u8::MAX).zip(counts).filter(|(_, n)| **n > 0).map(|(v, n)| (Vector(v), *n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_listed_and_named_apart() {
        for (index, reason) in ExitReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let same = ExitReason::ALL.iter().filter(|r| r.name() == reason.name()).count();
            assert_eq!(same, 1);
        }
    }

    #[test]
    fn counts_add_up() {
        let mut statistics = VcpuStatistics::new().unwrap();
        for ticks in [0, 1, 1000, u64::MAX / 2] {
            statistics.note_entry(Tsc(7 + statistics.entries));
            statistics.note_passage(Tsc(7), Tsc(10));
            statistics.note_exit(ExitReason::Cpuid, ticks);
        }
        statistics.count_interrupt(Vector(255));
        let cpuid = statistics.exits(ExitReason::Cpuid);
        assert_eq!((cpuid.count, cpuid.max_ticks), (4, u64::MAX / 2));
        assert_eq!(cpuid.histogram.iter().sum::<u64>(), 4);
        assert_eq!((cpuid.histogram[0], cpuid.histogram[9]), (2, 1));
        assert_eq!((statistics.guest_ticks, statistics.first_entry), (12, Some(7)));
        assert_eq!(statistics.interrupts(), [(Vector(255), 1)]);
    }
}
