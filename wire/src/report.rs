// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the co-kernel says it ran, and how it went.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{IoApicInput, LocalApicReport};

/// Marks the line of the log channel that carries a [`RunReport`].
pub const REPORT_PREFIX: &str = "@report ";

/// The whole run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// [`FORMAT_VERSION`](crate::FORMAT_VERSION) of the writer.
    pub version: u32,
    /// The machine it ran on.
    pub machine: Machine,
    /// One entry for each VM that was run, in order of their end. Of a repeated stage only
    /// the last round is listed.
    pub vms: Vec<VmReport>,
    /// Host memory before the first VM was created and after the last was destroyed; equal
    /// unless something leaked.
    pub before: HostMemory,
    /// See `before`.
    pub after: HostMemory,
}

impl RunReport {
    /// The exits of all vCPUs.
    pub fn exits(&self) -> impl Iterator<Item = &ExitCounter> {
        self.vms.iter().flat_map(|vm| &vm.vcpus).flat_map(|vcpu| &vcpu.exits)
    }

    /// Those for one reason.
    pub fn exits_for(&self, reason: &str) -> impl Iterator<Item = &ExitCounter> {
        self.exits().filter(move |exit| exit.reason == reason)
    }
}

/// The machine under the co-kernel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// CPU vendor and brand string.
    pub cpu: String,
    /// CPUs the co-kernel runs.
    pub cpus: u32,
    /// Memory the co-kernel owns, in bytes.
    pub memory_bytes: u64,
    /// Frequency of the time-stamp counter.
    pub tsc_hz: u64,
    /// Virtualization backend: `svm` or `vmx`.
    pub backend: String,
    /// Capabilities of the backend that the CPU offers, by their architectural names.
    pub capabilities: Vec<String>,
    /// Size of the co-kernel's image in memory, in bytes.
    pub image_bytes: u64,
    /// TSC ticks from the co-kernel's entry to its being ready to run VMs.
    pub boot_tsc: u64,
}

/// Memory of the co-kernel that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostMemory {
    /// Page frames that are free or belong to the heap, which grows and shrinks by itself.
    pub free_frames: u64,
    /// Bytes in live objects on the heap, without this report.
    pub heap_bytes: u64,
}

/// One VM.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmReport {
    /// Name from the manifest.
    pub name: String,
    /// What was asked for.
    pub size: GuestSize,
    /// How often it was created, run and destroyed.
    pub rounds: u32,
    /// Moments of interest, in order.
    pub milestones: Vec<Milestone>,
    /// The vCPUs, by index.
    pub vcpus: Vec<VcpuReport>,
    /// The inputs of the I/O APIC that were in use when it ended.
    #[serde(default)]
    pub io_apic: Vec<IoApicInput>,
    /// What shadow paging did, by name; empty with nested paging.
    #[serde(default)]
    pub shadow: Vec<Counter>,
    /// Memory the VMM needed for it.
    pub memory: VmMemory,
    /// How and why it ended.
    pub end: End,
}

/// Configuration of a VM.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GuestSize {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// How guest-physical addresses were translated.
    pub paging: crate::Paging,
}

/// A moment of a VM's life.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Milestone {
    /// `creation` (its begin), `created`, `first_entry`, `console_first_byte`, `ended`, ….
    pub name: String,
    /// TSC ticks since the co-kernel's entry.
    pub tsc: u64,
    /// The same in microseconds.
    pub microseconds: u64,
}

/// One vCPU.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VcpuReport {
    /// Index in the VM.
    pub index: u32,
    /// The host CPU it ran on.
    pub cpu: u32,
    /// Number of guest entries; the exit counts add up to it.
    pub entries: u64,
    /// Instructions interpreted because the CPU does not execute real mode for a guest.
    #[serde(default)]
    pub interpreted: u64,
    /// Exits by neutral reason; reasons that never occurred are left out.
    pub exits: Vec<ExitCounter>,
    /// Events injected, by kind and vector.
    pub injected: Vec<Counter>,
    /// Accesses that no device or policy claimed, by kind; reads gave all ones or #GP.
    pub unclaimed: Vec<Counter>,
    /// TSC ticks spent in the guest.
    pub guest_tsc: u64,
    /// TSC ticks spent waiting for an event while the guest was halted.
    pub idle_tsc: u64,
    /// Its local APIC when the VM ended.
    #[serde(default)]
    pub local_apic: Option<LocalApicReport>,
}

/// Exits for one reason.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExitCounter {
    /// Neutral reason, for example `cpuid` or `port_io`.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// TSC ticks from the exits to the following entries, in total.
    pub cycles: u64,
    /// Longest single handling, in TSC ticks.
    pub max_cycles: u64,
    /// VMREADs and VMWRITEs from the exits to the following entries, in total; zero on SVM.
    #[serde(default)]
    pub accesses: u64,
    /// `histogram[i]` counts handlings of at least 2^i and less than 2^(i+1) ticks; trailing
    /// zeros are left out.
    pub histogram: Vec<u64>,
}

/// A named count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// How often it occurred.
    pub count: u64,
}

/// Memory the VMM used for one VM.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VmMemory {
    /// Heap of the co-kernel, in bytes.
    pub heap_bytes: u64,
    /// Nested or shadow page tables, in bytes.
    pub page_table_bytes: u64,
    /// Control blocks, permission maps and the like, in bytes.
    pub control_bytes: u64,
}

/// How a VM ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct End {
    /// The kind of end.
    pub kind: EndKind,
    /// One line for people: what happened, where.
    pub detail: String,
    /// Exit code that the guest wrote to its exit port.
    pub exit_code: Option<u32>,
}

/// The kinds of end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// The guest switched itself off.
    PowerOff,
    /// The guest reset itself.
    Reset,
    /// The guest wrote to its exit port.
    ExitPort,
    /// A triple fault.
    TripleFault,
    /// All vCPUs halted with interrupts disabled, so nothing can wake them.
    Halted,
    /// The host stopped it, at its time limit for example.
    Stopped,
    /// The CPU refused the guest's state.
    EntryFailure,
    /// The guest did what the VMM cannot emulate.
    EmulationFailure,
    /// The VM could not be created, or an error of the VMM's own.
    Error,
}
