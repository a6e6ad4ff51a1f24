// SPDX-License-Identifier: MIT OR Apache-2.0
//! What memory Alcazar adds to that of its guests, and what Linux adds when KVM runs the same.
//!
//! The guest has one GiB and writes to all pages of it, so that whoever maps them late has them
//! mapped. Alcazar's figures are exact. Those of KVM are what fields of `/proc/meminfo` say more
//! while the VM is there; of memory that Linux takes for other reasons meanwhile they know nothing,
//! and Linux itself, as the co-kernel's counterpart, is not in them.

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use wire::{RunReport, VmMemory};

use super::peer;
use super::place::{self, Job, Place};
use super::plot::bars::{Bars, Group, Layout, Series};
use super::plot::{palette, scale};
use super::results::{Output, grouped};
use crate::paths::Paths;

/// The guest.
const GUEST: &str = "bench-memory";

/// Its memory.
const GUEST_MIB: u64 = 1024;

/// Size of a page-table page.
const PAGE: u64 = 4096;

/// Everything that Alcazar adds for a guest with one vCPU is to stay below this.
pub const LIMIT: u64 = 2 << 20;

/// Memory that a VMM needs for a guest of 1 GiB
///
/// Alcazar's image, heap, page tables and control blocks, and what a further vCPU adds; and what a
/// Linux with KVM needs.
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

/// Memory in bytes by which a Linux with KVM grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
struct PeerFootprint {
    /// KVM's modules.
    modules: u64,
    /// Objects of the kernel: slabs, stacks, per-CPU data, large allocations.
    objects: u64,
    /// Page tables, of processes and of the guest.
    page_tables: u64,
}

/// What is written as JSON.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    limit: u64,
    total: u64,
    alcazar: Footprint,
    kvm: PeerFootprint,
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

impl PeerFootprint {
    fn read(console: &str) -> Result<Self> {
        let grown = |fields: &[&str]| -> Result<u64> {
            fields.iter().map(|field| peer::growth(console, field)).sum()
        };
        Ok(Self {
            modules: peer::modules(console)?,
            objects: grown(&["Slab", "KernelStack", "Percpu", "VmallocUsed"])?,
            page_tables: grown(&["PageTables", "SecPageTables"])?,
        })
    }

    fn lines(&self) -> [(&'static str, u64); 3] {
        [
            ("KVM: modules", self.modules),
            ("KVM: objects of the kernel", self.objects),
            ("KVM: page tables of guest and process", self.page_tables),
        ]
    }
}

impl Figures {
    fn lines(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.alcazar.lines().into_iter().chain(self.kvm.lines())
    }
}

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
    let figures = measure(paths)?;
    println!("a guest of 1 GiB with one vCPU, in bytes; the limit is {}:", grouped(LIMIT));
    for (name, value) in figures.lines() {
        println!("  {name:<38} {:>12}", grouped(value));
    }
    options.output.figures(paths, "memory", &figures)?;
    options.output.plot(paths, "memory", &svg(&figures)?)?;
    options.output.table(paths, "memory", &markdown(&figures))
}

fn measure(paths: &Paths) -> Result<Figures> {
    let guest = place::guest(paths, GUEST)?;
    let words = format!("memory={GUEST_MIB}");
    let run = |place: Place, cpus| {
        let job =
            Job { guest: &guest, words: &words, memory_mib: GUEST_MIB, cpus, deterministic: false };
        place.run(paths, job)
    };
    let alcazar = |cpus| -> Result<_> {
        let report = run(Place::Alcazar, cpus)?.report.context("there is no run report")?;
        let vm = report.vms.first().context("the run report has no VM")?;
        Ok((report.machine.image_bytes, vm.memory.clone()))
    };
    let (image, one) = alcazar(1)?;
    let (_, two) = alcazar(2)?;
    let alcazar = Footprint {
        image,
        heap: one.heap_bytes,
        page_tables: one.page_table_bytes,
        control: one.control_bytes,
        heap_per_vcpu: two.heap_bytes.saturating_sub(one.heap_bytes),
        control_per_vcpu: two.control_bytes.saturating_sub(one.control_bytes),
    };
    let kvm = PeerFootprint::read(&run(Place::Kvm, 1)?.console)?;
    Ok(Figures { limit: LIMIT, total: alcazar.total(), alcazar, kvm })
}

fn markdown(figures: &Figures) -> String {
    let mut text = "| | bytes |\n|---|---:|\n".to_owned();
    for (name, value) in figures.lines() {
        text.push_str(&format!("| {name} | {} |\n", grouped(value)));
    }
    text
}

/// Both end to end, with the limit.
fn svg(Figures { alcazar, kvm, .. }: &Figures) -> Result<String> {
    let kib = |bytes: u64| Some(bytes as f64 / 1024.0);
    let series = [
        ("image, or KVM's modules", palette::ALCAZAR),
        ("heap, or objects of the kernel", palette::ALCAZAR_OTHER),
        ("page tables", palette::BARE),
        ("control blocks", palette::KVM_OTHER),
    ];
    let alcazar_values = [alcazar.image, alcazar.heap, alcazar.page_tables, alcazar.control];
    let kvm_values = [kvm.modules, kvm.objects, kvm.page_tables, 0];
    Bars {
        title: "Memory for a guest of 1 GiB with one vCPU".into(),
        axis: "KiB".into(),
        scale: scale::Kind::Linear,
        digits: 0,
        layout: Layout::Stacked,
        series: series.map(|(name, colour)| Series { name: name.into(), colour }).to_vec(),
        groups: vec![
            Group::new("Alcazar, all", alcazar_values.map(kib).to_vec()),
            Group::new("KVM, without Linux", kvm_values.map(kib).to_vec()),
        ],
        mark: Some((LIMIT as f64 / 1024.0, "target for Alcazar, 2 MiB".into())),
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let alcazar = Footprint {
            image: 1_000_000,
            heap: 200,
            page_tables: 8192,
            control: 3,
            heap_per_vcpu: 50,
            control_per_vcpu: 4096,
        };
        let kvm = PeerFootprint { modules: 7_000_000, objects: 1024, page_tables: 4096 };
        Figures { limit: LIMIT, total: alcazar.total(), alcazar, kvm }
    }

    #[test]
    fn the_sum_leaves_out_what_further_vcpus_need() {
        assert_eq!(figures().total, 1_008_395);
        let markdown = markdown(&figures());
        assert!(markdown.contains("| all of that | 1,008,395 |"), "{markdown}");
        assert!(markdown.contains("per GiB (number) | 2 |"), "{markdown}");
        assert!(markdown.contains("| KVM: modules | 7,000,000 |"), "{markdown}");
    }

    #[test]
    fn what_linux_grew_by_is_put_together() {
        let console = "memory before Slab=10 KernelStack=1 Percpu=0 VmallocUsed=5 PageTables=4 \
                       SecPageTables=0 Modules=9\nmemory after Slab=13 KernelStack=2 Percpu=0 \
                       VmallocUsed=4 PageTables=5 SecPageTables=20 Modules=9\n";
        let footprint = PeerFootprint::read(console).unwrap();
        let expected = PeerFootprint { modules: 9 << 10, objects: 4 << 10, page_tables: 21 << 10 };
        assert_eq!(footprint, expected);
        assert!(PeerFootprint::read("memory after Slab=1\n").is_err());
    }

    #[test]
    fn the_limit_is_held_from_below() {
        assert_eq!(complaint(LIMIT - 1), None);
        assert!(complaint(LIMIT).unwrap().contains("2097152"));
    }

    #[test]
    fn the_picture_has_both() {
        let svg = svg(&figures()).unwrap();
        assert!(svg.contains("KVM, without Linux") && svg.contains("target for Alcazar"));
    }
}
