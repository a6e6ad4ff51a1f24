// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a computation costs in a guest, beside the bare machine: a sparse solver, the STREAM
//! operations and random access to a large table, with interrupts off.
//!
//! The guest says the bits of its results, which must be the same everywhere. Instructions show
//! what is executed on the guest's behalf outside of it, and not that nested paging makes misses
//! of the TLB dearer; for that, times of runs in turn are compared.

mod table;
mod wall;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::figures::{self, Statistics};
use super::place::{self, Job, Place};
use super::results::Output;
use crate::paths::Paths;

/// The guest.
const GUEST: &str = "bench-compute";

/// Its memory: it has arrays from 32 MiB on, and a table of 64 MiB.
const MEMORY_MIB: u64 = 192;

/// Where is compared with the bare machine, which comes first.
const PLACES: [Place; 3] = [Place::Bare, Place::Alcazar, Place::Kvm];

/// Computations of a guest: conjugate gradients, STREAM, random access
///
/// Under Alcazar and under Linux KVM, compared with the bare emulated machine. Figures are
/// instructions, by -icount, or with --wall ratios of times.
#[derive(Clone, Debug, Args)]
pub struct ComputeOptions {
    #[command(flatten)]
    pub output: Output,
    /// Compare times instead of instructions: the places in turn, several times, and of the ratios
    /// the median
    #[arg(long, visible_alias = "wall-clock")]
    wall: bool,
    /// How often, with --wall
    #[arg(long, value_name = "N", default_value_t = 5, requires = "wall",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
}

/// What one place made of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Column {
    /// Where.
    pub place: Place,
    /// Ticks by operation, in the order in which they were measured.
    pub rows: Vec<(String, Statistics)>,
    /// The bits of the results, by name.
    pub checks: Vec<(String, String)>,
    /// Exits, where they are counted, but for the port I/O by which a guest prints and ends.
    pub exits: Option<u64>,
}

impl Column {
    /// The row with this name.
    fn row(&self, name: &str) -> Option<&Statistics> {
        self.rows.iter().find(|(found, _)| found == name).map(|(_, figures)| figures)
    }

    /// By how many per cent the median of a row is above that of another column.
    pub fn overhead(&self, bare: &Self, name: &str) -> Option<f64> {
        let (more, base) = (self.row(name)?.median as f64, bare.row(name)?.median as f64);
        (base > 0.0).then(|| (more / base - 1.0) * 100.0)
    }
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a guest does not get through, computes something else than another, or a file cannot be
/// written.
pub fn run(paths: &Paths, options: &ComputeOptions) -> Result<()> {
    let guest = place::guest(paths, GUEST)?;
    if options.wall {
        let rounds =
            wall::measure(options.repeat, |place| measure(paths, &guest, place, "", false))?;
        let rows = wall::rows(&rounds)?;
        print!("{}", wall::text(&rows, options.repeat));
        options.output.figures(paths, "compute-wall", &rows)?;
        options.output.plot(paths, "compute-wall", &wall::svg(&rows)?)?;
        return options.output.table(paths, "compute-wall", &wall::markdown(&rows));
    }
    let columns = PLACES
        .iter()
        .map(|&place| measure(paths, &guest, place, "", true))
        .collect::<Result<Vec<_>>>()?;
    agree(&columns)?;
    print!("{}", table::text(&columns));
    options.output.figures(paths, "compute", &table::Json::new(&columns))?;
    options.output.table(paths, "compute", &table::markdown(&columns))
}

fn measure(
    paths: &Paths,
    guest: &Path,
    place: Place,
    words: &str,
    deterministic: bool,
) -> Result<Column> {
    let job = Job { guest, words, memory_mib: MEMORY_MIB, cpus: 1, deterministic };
    let outcome = place.run(paths, job)?;
    let exits = outcome.report.map(|report| {
        report.exits().filter(|exit| exit.reason != "port_io").map(|exit| exit.count).sum()
    });
    let (rows, checks) = (figures::parse(&outcome.console)?, figures::checks(&outcome.console));
    ensure!(!checks.is_empty(), "the guest said no results");
    Ok(Column { place, rows, checks, exits })
}

/// Sees that all have computed the same.
fn agree(columns: &[Column]) -> Result<()> {
    let Some((first, others)) = columns.split_first() else { return Ok(()) };
    for other in others {
        ensure!(
            other.checks == first.checks,
            "{} and {} computed different results: {:?}, {:?}",
            first.place.title(),
            other.place.title(),
            first.checks,
            other.checks
        );
    }
    Ok(())
}

/// Operations that take more instructions under Alcazar than on the bare machine, a line each, and
/// how many there are; by a small problem, for a test.
///
/// # Errors
/// When a guest does not get through or a result is wrong.
pub fn complaints(paths: &Paths) -> Result<(Vec<String>, usize)> {
    let guest = place::guest(paths, GUEST)?;
    let column = |place| measure(paths, &guest, place, "brief", true);
    let columns = [column(Place::Bare)?, column(Place::Alcazar)?];
    agree(&columns)?;
    let [bare, alcazar] = &columns;
    Ok((slower(bare, alcazar)?, alcazar.rows.len()))
}

/// What a row may take more, in per cent; it takes nothing more as long as nothing exits.
const SLACK_PER_CENT: f64 = 0.01;

fn slower(bare: &Column, alcazar: &Column) -> Result<Vec<String>> {
    let mut slower = Vec::new();
    for (name, _) in &bare.rows {
        let overhead =
            alcazar.overhead(bare, name).with_context(|| format!("{name} is missing"))?;
        if overhead > SLACK_PER_CENT {
            slower.push(format!("{name}: {overhead:.3} % more instructions than without a VMM"));
        }
    }
    Ok(slower)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A column of one operation with these medians and results.
    pub fn column(place: Place, medians: &[(&str, u64)], check: &str) -> Column {
        let statistics =
            |median| Statistics { rounds: 5, min: median, median, p99: median, max: median };
        Column {
            place,
            rows: medians.iter().map(|&(name, m)| (name.to_owned(), statistics(m))).collect(),
            checks: vec![("sum".into(), check.into())],
            exits: (place == Place::Alcazar).then_some(3),
        }
    }

    #[test]
    fn different_results_are_refused() {
        let same = [column(Place::Bare, &[], "1f"), column(Place::Kvm, &[], "1f")];
        agree(&same).unwrap();
        let other = [column(Place::Bare, &[], "1f"), column(Place::Kvm, &[], "20")];
        assert!(agree(&other).unwrap_err().to_string().contains("different results"));
    }

    #[test]
    fn the_least_overhead_is_seen() {
        let bare = column(Place::Bare, &[("a", 1_000_000), ("b", 1_000_000)], "0");
        let alcazar = column(Place::Alcazar, &[("a", 1_000_050), ("b", 1_000_500)], "0");
        let slower = slower(&bare, &alcazar).unwrap();
        assert_eq!(slower, ["b: 0.050 % more instructions than without a VMM"]);
        assert!(super::slower(&bare, &column(Place::Alcazar, &[("a", 1)], "0")).is_err());
    }
}
