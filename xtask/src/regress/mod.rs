// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask regress`: boots guests on every machine there is.

mod bare_metal;
mod cell;
mod cost;
mod drift;
mod entry_faults;
mod guest;
mod linux;
mod matrix;
#[cfg(test)]
pub mod sample;
mod self_test;
mod shadow;
mod spinning;
mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::platform::Platform;
use crate::result_file::ResultFile;
use crate::run::options::Paging;
use crate::test::{Row, run_rows};
use crate::{cargo_build, image, setup};
use cell::Cell;
use table::Table;

/// Boots guests on the matrix of platform, CPU, paging and guest, and prints a table.
#[derive(Clone, Debug, Default, Args)]
pub struct RegressOptions {
    /// Write the table to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only rows whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// Only rows on this platform
    #[arg(long, value_enum)]
    pub platform: Option<Platform>,
    /// Only rows on this CPU model
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Only rows with this way of paging
    #[arg(long, value_enum)]
    pub paging: Option<Paging>,
    /// The whole matrix, not only the part that 'test' runs
    #[arg(long)]
    pub full: bool,
    /// Run each row so many times, one after the other
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: u32,
    /// How long storms and measurements of clocks last
    /// [default: 30 for storms, 60 for clocks]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

/// How long those tests last that can last as long as one likes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Seconds of a storm of interrupts.
    pub storm: u64,
    /// Seconds over which clocks are compared.
    pub clocks: u64,
}

impl Effort {
    /// What `regress` does.
    const LONG: Self = Self { storm: 30, clocks: 60 };
    /// What `test` has time for.
    const SHORT: Self = Self { storm: 3, clocks: 10 };

    fn of(options: &RegressOptions) -> Self {
        options.seconds.map_or(Self::LONG, |seconds| Self { storm: seconds, clocks: seconds })
    }
}

/// Runs the matrix; the exit status is 0 if every guest came up.
///
/// # Errors
/// When what every row needs cannot be set up, or the table not be written.
pub fn run(paths: &Paths, options: &RegressOptions) -> Result<u8> {
    let cells: Vec<Cell> = Cell::all(options.full).filter(|cell| cell.is_wanted(options)).collect();
    ensure!(
        !cells.is_empty(),
        "no row is left: give another --filter, --platform, --cpu or --paging, or --full"
    );
    ensure!(options.repeat > 0, "--repeat 0 leaves nothing to run: give at least 1");
    ensure!(options.seconds != Some(0), "--seconds 0 leaves no time: give at least 1");
    let target = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let target = target.transpose()?;
    setup::ensure_all(false)?;
    // Once, before rows that run at once would do it together.
    if cells.iter().any(|cell| cell.cpu.platform == Platform::Bochs) {
        setup::ensure_bochs()?;
    }
    cargo_build::cokernel(paths)?;
    image::self_test(paths)?;
    let table = Table::default();
    let effort = Effort::of(options);
    let rounds = (1..=options.repeat).map(|round| (options.repeat > 1).then_some(round));
    let rows = rounds.flat_map(|round| {
        let row = |cell: &Cell| cell.row(paths, &table, effort, round);
        cells.iter().map(row).collect::<Vec<_>>()
    });
    let rows = rows.collect();
    let finished = run_rows(paths, rows)?;
    let failed = finished.iter().filter(|row| row.tally.failed > 0).count();
    let entries = table.entries();
    print!("{}", table::text(&entries));
    if let Some(target) = target {
        target.write_json(&entries)?;
    }
    Ok(u8::from(failed > 0))
}

/// The rows that `test` runs.
pub fn test_rows(paths: &Paths, quick: bool) -> Vec<Row> {
    let cells = Cell::all(false).take(if quick { 1 } else { usize::MAX });
    cells.map(|cell| cell.row(paths, &Table::default(), Effort::SHORT, None)).collect()
}
