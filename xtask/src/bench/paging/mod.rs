// SPDX-License-Identifier: MIT OR Apache-2.0
//! What work with address spaces costs: with nested paging, with shadow paging, and with shadow
//! paging that keeps nothing when the guest loads CR3.
//!
//! One machine runs all of it, one VM after the other: each loop has a VM of its own for each way
//! of paging, and each way one more VM whose guest does nothing. What its guest's loop costs in
//! instructions a VM says itself, see [`super::exits`]; the exits are those of the report, less
//! those of the VM that does nothing.

mod plot;
mod table;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use wire::{FORMAT_VERSION, Manifest, Paging, RunReport, ShadowSettings, Stage, VmDescription};

use super::figures::{self, Statistics};
use super::place::{self, Job};
use super::results::Output;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::run::folder::RunFolder;

/// The guest.
const GUEST: &str = "bench-paging";

/// The loop in which nothing is done.
const NOTHING: &str = "nothing";

/// The other loops, as the guest names them.
const LOOPS: [&str; 11] = [
    "create-destroy",
    "fork-exec",
    "switch-same",
    "switch-2",
    "switch-32",
    "touch-again",
    "touch-mapped",
    "touch-demand",
    "invlpg",
    "invlpg-remap",
    "invlpg-protect",
];

/// Memory of a guest: it uses some 4 MiB from 16 MiB on.
const MEMORY_MIB: u64 = 32;

/// Rounds that a guest makes before those that it counts; they have exits, too.
const WARM_UP: u64 = 8;

/// Nested and shadow paging, and the cache of shadow paging
///
/// Instructions, by -icount, and exits of loops that make, switch, fill and change address spaces.
#[derive(Clone, Debug, Default, Args)]
pub struct PagingOptions {
    #[command(flatten)]
    pub output: Output,
}

/// A way of paging.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By nested tables.
    Nested,
    /// By shadow tables.
    Shadow,
    /// By shadow tables that are thrown away at each load of CR3.
    ShadowUncached,
}

impl Way {
    const ALL: [Self; 3] = [Self::Nested, Self::Shadow, Self::ShadowUncached];

    /// Name in tables.
    const fn title(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Shadow => "shadow",
            Self::ShadowUncached => "shadow, no cache",
        }
    }

    /// The VM in which the guest does one loop in this way.
    fn vm(self, guest: &Path, name: &str) -> VmDescription {
        let words = format!("only={name}");
        let paging = if self == Self::Nested { Paging::Nested } else { Paging::Shadow };
        VmDescription {
            name: format!("{}: {name}", self.title()),
            shadow: ShadowSettings {
                cache: self != Self::ShadowUncached,
                ..ShadowSettings::default()
            },
            ..place::vm(job(guest, &words), paging)
        }
    }
}

/// What one loop costs in one way of paging.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Cost {
    /// Of one round.
    pub instructions: Statistics,
    /// Of one round, on average.
    pub exits: f64,
}

/// One loop.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The guest's name for it.
    pub name: &'static str,
    /// With nested paging.
    pub nested: Cost,
    /// With shadow paging.
    pub shadow: Cost,
    /// With shadow paging without its cache.
    pub shadow_uncached: Cost,
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a guest does not get through or a file cannot be written.
pub fn run(paths: &Paths, options: &PagingOptions) -> Result<()> {
    let rows = measure(paths)?;
    print!("{}", table::text(&rows));
    options.output.figures(paths, "paging", &rows)?;
    options.output.plot(paths, "paging", &plot::svg(&rows)?)?;
    options.output.table(paths, "paging", &table::markdown(&rows))
}

fn measure(paths: &Paths) -> Result<Vec<Row>> {
    let guest = place::guest(paths, GUEST)?;
    let loops = || std::iter::once(NOTHING).chain(LOOPS);
    let vms = Way::ALL.into_iter().flat_map(|way| loops().map(move |name| (way, name)));
    let stages = vms.map(|(way, name)| Stage { vms: vec![way.vm(&guest, name)], repeat: 1 });
    let manifest = Manifest { version: FORMAT_VERSION, stages: stages.collect() };
    let folder = RunFolder::create(paths)?;
    let _progress = Progress::start("measuring: nested and shadow paging");
    let outcome = place::under_alcazar(paths, job(&guest, ""), &manifest, &folder)?;
    let report = outcome.report.context("there is no run report")?;
    rows(&figures::parse(&outcome.console)?, &report)
}

fn job<'a>(guest: &'a Path, words: &'a str) -> Job<'a> {
    Job { guest, words, memory_mib: MEMORY_MIB, cpus: 1, deterministic: true }
}

/// Puts together what the guests said and what the report counts, both in the order of the VMs.
fn rows(said: &[(String, Statistics)], report: &RunReport) -> Result<Vec<Row>> {
    let per_way = 1 + LOOPS.len();
    let vms = Way::ALL.len() * per_way;
    ensure!(
        said.len() == vms && report.vms.len() == vms,
        "{vms} VMs were to run; {} gave figures and {} are in the report",
        said.len(),
        report.vms.len()
    );
    let cost = |way: usize, index: usize, name: &str| {
        let (found, instructions) = &said[way * per_way + index];
        ensure!(found == name, "the guest gave figures of '{found}', not of '{name}'");
        let idle = exits(report, way * per_way);
        let more = exits(report, way * per_way + index).saturating_sub(idle);
        let rounds = instructions.rounds + WARM_UP;
        Ok(Cost { instructions: *instructions, exits: more as f64 / rounds as f64 })
    };
    let row = |(index, name): (usize, &'static str)| {
        let [nested, shadow, shadow_uncached] = [0, 1, 2].map(|way| cost(way, index + 1, name));
        Ok(Row { name, nested: nested?, shadow: shadow?, shadow_uncached: shadow_uncached? })
    };
    LOOPS.into_iter().enumerate().map(row).collect()
}

/// Exits of a VM, but for the port I/O by which its guest prints and ends.
fn exits(report: &RunReport, vm: usize) -> u64 {
    let all = report.vms[vm].vcpus.iter().flat_map(|vcpu| &vcpu.exits);
    all.filter(|exit| exit.reason != "port_io").map(|exit| exit.count).sum()
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::regress::sample;

    fn statistics(median: u64) -> Statistics {
        Statistics { rounds: 992, min: median, median, p99: median, max: median }
    }

    /// Of each VM the figures, and the exits: so many, and as many by port I/O.
    fn run(of: impl Fn(usize) -> (&'static str, u64)) -> (Vec<(String, Statistics)>, RunReport) {
        let mut report = sample::report("svm");
        let template = report.vms.remove(0);
        let mut said = Vec::new();
        for vm in 0..36 {
            let (name, count) = of(vm);
            said.push((name.to_owned(), statistics(100 + vm as u64)));
            let mut entry = template.clone();
            entry.vcpus.truncate(1);
            entry.vcpus[0].exits =
                ["page_fault", "port_io"].map(|reason| sample::exits(reason, count, 0)).to_vec();
            report.vms.push(entry);
        }
        (said, report)
    }

    fn name(vm: usize) -> &'static str {
        (vm % 12).checked_sub(1).map_or(NOTHING, |index| LOOPS[index])
    }

    #[test]
    fn exits_are_those_beyond_a_vm_that_does_nothing() {
        let count = |vm: usize| if vm == 13 { 7 + 2500 } else { 7 };
        let (said, report) = run(|vm| (name(vm), count(vm)));
        let rows = rows(&said, &report).unwrap();
        assert_eq!(rows.len(), LOOPS.len());
        assert_eq!((rows[0].name, rows[0].nested.exits), ("create-destroy", 0.0));
        assert!((rows[0].shadow.exits - 2.5).abs() < f64::EPSILON, "{:?}", rows[0]);
        assert_eq!(rows[10].shadow_uncached.instructions.median, 135);
    }

    #[test]
    fn figures_of_other_loops_are_refused() {
        let (mut said, report) = run(|vm| (name(vm), 0));
        said.swap(1, 2);
        assert!(rows(&said, &report).unwrap_err().to_string().contains("not of 'create-destroy'"));
        said.pop();
        assert!(rows(&said, &report).unwrap_err().to_string().contains("35 gave figures"));
    }
}
