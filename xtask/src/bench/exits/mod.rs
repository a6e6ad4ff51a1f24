// SPDX-License-Identifier: MIT OR Apache-2.0
//! What single operations cost that may leave the guest: bare, under Alcazar, under KVM.

mod plot;
pub mod stored;
mod table;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use wire::RunReport;

use super::figures::{self, Statistics};
use super::place::{self, Job, Place};
use super::results::Output;
use crate::paths::Paths;

/// The guest.
const GUEST: &str = "bench-exits";

/// Memory of the guest: it touches some 4 MiB from 32 MiB on.
const MEMORY_MIB: u64 = 64;

/// Single operations: those that leave a guest, and those that should not
///
/// On the bare emulated machine, under Alcazar and under Linux KVM on the same machine. Figures are
/// instructions, by -icount: minimum, median, 99th percentile and maximum of 1,000 rounds, of which
/// the table has the median and what the maximum is above it.
#[derive(Clone, Debug, Args)]
pub struct ExitsOptions {
    #[command(flatten)]
    pub output: Output,
    /// Where to measure, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = PLACES
    )]
    pub places: Vec<Place>,
    /// Measure time on the emulated machine instead of instructions: only ratios mean something
    #[arg(long, visible_alias = "wall", conflicts_with = "update_docs")]
    pub wall_clock: bool,
    /// Store Alcazar's figures as those that 'test' compares with
    #[arg(long, conflicts_with = "wall_clock")]
    pub store: bool,
}

/// Where exits are measured if nothing else is said.
pub const PLACES: [Place; 4] = [Place::Bare, Place::Alcazar, Place::Kvm, Place::KvmShadow];

/// The figures of one place.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Where.
    pub place: Place,
    /// Rows by name, in the order in which they were measured.
    pub rows: Vec<(String, Statistics)>,
}

impl Column {
    /// The row with this name.
    pub fn row(&self, name: &str) -> Option<&Statistics> {
        self.rows.iter().find(|(found, _)| found == name).map(|(_, figures)| figures)
    }
}

/// What figures are.
const fn unit(wall_clock: bool) -> &'static str {
    if wall_clock { "ticks" } else { "instructions" }
}

/// Measures at one place.
///
/// # Errors
/// When the guest does not get through.
pub fn measure(paths: &Paths, guest: &Path, place: Place, deterministic: bool) -> Result<Column> {
    measure_with_report(paths, guest, place, deterministic).map(|(column, _)| column)
}

fn measure_with_report(
    paths: &Paths,
    guest: &Path,
    place: Place,
    deterministic: bool,
) -> Result<(Column, Option<RunReport>)> {
    let one = job(guest, deterministic);
    let outcome = place.run(paths, one)?;
    let mut rows = figures::parse(&outcome.console)?;
    // Apart from the rest, so that a second CPU has no part in what one does.
    let two = Job { words: "two-cpus", cpus: 2, ..one };
    rows.extend(figures::parse(&place.run(paths, two)?.console)?);
    Ok((Column { place, rows }, outcome.report))
}

fn job(guest: &Path, deterministic: bool) -> Job<'_> {
    Job { guest, words: "", memory_mib: MEMORY_MIB, cpus: 1, deterministic }
}

/// Measures under Alcazar, for the test that compares with the stored figures; gives the report,
/// too.
///
/// # Errors
/// When the guest does not get through.
pub fn under_alcazar(paths: &Paths) -> Result<(Column, RunReport)> {
    let guest = place::guest(paths, GUEST)?;
    let (column, report) = measure_with_report(paths, &guest, Place::Alcazar, true)?;
    Ok((column, report.context("there is no run report")?))
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a measurement fails or a file cannot be written.
pub fn run(paths: &Paths, options: &ExitsOptions) -> Result<()> {
    let guest = place::guest(paths, GUEST)?;
    let columns = options
        .places
        .iter()
        .map(|&place| measure(paths, &guest, place, !options.wall_clock))
        .collect::<Result<Vec<_>>>()?;
    print!("{}", table::text(&columns));
    let unit = unit(options.wall_clock);
    options.output.figures(paths, "exits", &table::Json::new(&columns, unit))?;
    options.output.plot(paths, "exits", &plot::svg(&columns, unit)?)?;
    if options.store {
        let alcazar = columns.iter().find(|column| column.place == Place::Alcazar);
        stored::write(paths, alcazar.context("--store needs the place 'alcazar'")?)?;
    }
    options.output.table(paths, "exits", &table::markdown(&columns))
}
