// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask regress`: boots guests on every machine there is.

mod bare_metal;
mod cell;
mod cost;
mod entry_faults;
mod guest;
mod linux;
mod matrix;
#[cfg(test)]
mod sample;
mod shadow;
mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::platform::Platform;
use crate::run::options::Paging;
use crate::test::{Row, run_rows};
use crate::{cargo_build, setup};
use cell::Cell;
use table::{JsonFile, Table};

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
    let target = options.json.as_deref().map(JsonFile::prepare).transpose()?;
    setup::ensure_all(false)?;
    // Once, before rows that run at once would do it together.
    if cells.iter().any(|cell| cell.cpu.platform == Platform::Bochs) {
        setup::ensure_bochs()?;
    }
    cargo_build::cokernel(paths)?;
    let table = Table::default();
    let rows = cells.into_iter().map(|cell| cell.row(paths, &table)).collect();
    let finished = run_rows(paths, rows)?;
    let failed = finished.iter().filter(|row| row.tally.failed > 0).count();
    let entries = table.entries();
    print!("{}", table::text(&entries));
    if let Some(target) = target {
        target.write(&entries)?;
    }
    Ok(u8::from(failed > 0))
}

/// The rows that `test` runs.
pub fn test_rows(paths: &Paths, quick: bool) -> Vec<Row> {
    let cells = Cell::all(false).take(if quick { 1 } else { usize::MAX });
    cells.map(|cell| cell.row(paths, &Table::default())).collect()
}
