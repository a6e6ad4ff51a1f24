// SPDX-License-Identifier: MIT OR Apache-2.0
//! What memory Alcazar adds to that of its guests.

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use wire::{RunReport, VmMemory};

use super::exits;
use super::place::{self, Job, Place};
use super::results::{Output, grouped};
use crate::paths::Paths;

/// Size of a page-table page.
const PAGE: u64 = 4096;

/// Adds up the memory that Alcazar needs for a guest of 1 GiB: image, heap, page tables and
/// control blocks, and what a further vCPU adds.
#[derive(Clone, Debug, Args)]
pub struct MemoryOptions {
    #[command(flatten)]
    pub output: Output,
}

/// Memory in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
struct Footprint {
    /// Image of the co-kernel with the VMM, as loaded.
    image: u64,
    /// Heap for the VM with one vCPU.
    heap: u64,
    /// Nested page tables for 1 GiB.
    page_tables: u64,
    /// Control blocks, permission maps and save areas, with one vCPU.
    control: u64,
    /// What a second vCPU adds to the heap.
    heap_per_vcpu: u64,
    /// What a second vCPU adds to the control blocks.
    control_per_vcpu: u64,
}

impl Footprint {
    fn total(&self) -> u64 {
        self.image + self.heap + self.page_tables + self.control
    }

    fn lines(&self) -> [(&'static str, u64); 8] {
        [
            ("image of co-kernel and VMM", self.image),
            ("heap of the VM", self.heap),
            ("nested page tables", self.page_tables),
            ("control blocks and save areas", self.control),
            ("all of that", self.total()),
            ("page-table pages per GiB (number)", self.page_tables / PAGE),
            ("heap for each further vCPU", self.heap_per_vcpu),
            ("control blocks for each further vCPU", self.control_per_vcpu),
        ]
    }
}

/// Everything that Alcazar adds for a guest with one vCPU is to stay below this.
pub const LIMIT: u64 = 2 << 20;

/// Image, heap, page tables and control blocks of a run with one VM, in bytes.
///
/// # Errors
/// When the report has no VM.
pub fn total(report: &RunReport) -> Result<u64> {
    let vm = report.vms.first().context("the run report has no VM")?;
    let VmMemory { heap_bytes, page_table_bytes, control_bytes } = vm.memory;
    Ok(report.machine.image_bytes + heap_bytes + page_table_bytes + control_bytes)
}

/// What there is to say against so many bytes.
pub fn complaint(bytes: u64) -> Option<String> {
    (bytes >= LIMIT).then(|| format!("memory: {bytes} bytes for one VM, {LIMIT} is the limit"))
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a guest does not get through or a file cannot be written.
pub fn run(paths: &Paths, options: &MemoryOptions) -> Result<()> {
    let footprint = measure(paths)?;
    println!("a guest of 1 GiB with one vCPU, in bytes:");
    for (name, value) in footprint.lines() {
        println!("  {name:<38} {:>12}", grouped(value));
    }
    options.output.figures(paths, "memory", &footprint)?;
    options.output.table(paths, "memory", &markdown(&footprint))
}

fn measure(paths: &Paths) -> Result<Footprint> {
    let guest = place::guest(paths, exits::GUEST)?;
    let memory = |cpus| -> Result<_> {
        // No row has this name: the guest ends at once.
        let words = "only=nothing";
        let job = Job { guest: &guest, words, memory_mib: 1024, cpus, deterministic: false };
        let report = Place::Alcazar.run(paths, job)?.report.context("there is no run report")?;
        let vm = report.vms.first().context("the run report has no VM")?;
        Ok((report.machine.image_bytes, vm.memory.clone()))
    };
    let (image, one) = memory(1)?;
    let (_, two) = memory(2)?;
    Ok(Footprint {
        image,
        heap: one.heap_bytes,
        page_tables: one.page_table_bytes,
        control: one.control_bytes,
        heap_per_vcpu: two.heap_bytes.saturating_sub(one.heap_bytes),
        control_per_vcpu: two.control_bytes.saturating_sub(one.control_bytes),
    })
}

fn markdown(footprint: &Footprint) -> String {
    let mut text = "| | bytes |\n|---|---:|\n".to_owned();
    for (name, value) in footprint.lines() {
        text.push_str(&format!("| {name} | {} |\n", grouped(value)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_leaves_out_what_further_vcpus_need() {
        let footprint = Footprint {
            image: 1_000_000,
            heap: 200,
            page_tables: 8192,
            control: 3,
            heap_per_vcpu: 50,
            control_per_vcpu: 4096,
        };
        assert_eq!(footprint.total(), 1_008_395);
        let markdown = markdown(&footprint);
        assert!(markdown.contains("| all of that | 1,008,395 |"), "{markdown}");
        assert!(markdown.contains("per GiB (number) | 2 |"), "{markdown}");
    }
}
