// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: every test there is, as a list of rows.

mod bad_input;
pub mod bare_metal;
mod costs;
mod invoke;
mod iso_row;
pub mod machine;
mod row;
mod run_rows;
mod runner;
mod selftest;
mod terminal_row;
mod unit;

use anyhow::Result;
use clap::Args;

use crate::architecture::Architecture;
use crate::paths::Paths;
use crate::{cargo_build, image, regress, setup, torture};

pub use invoke::{Answer, Invocation};
pub use row::{Log, Row, Tally};
pub use runner::run_rows;
pub use selftest::count;

/// Runs all tests: those of the crates, the co-kernel's self-test, bare-metal guests, Linux
/// guests and the behaviour of these commands. The last line is "N passed, N failed".
#[derive(Clone, Debug, Args)]
pub struct TestOptions {
    /// Leave out what takes long: for the inner loop
    #[arg(long)]
    pub quick: bool,
    /// Run only rows whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// List the rows instead of running them
    #[arg(long)]
    pub list: bool,
}

/// Runs the tests and gives the exit status: 0 if some passed and none failed.
///
/// # Errors
/// When what every test needs cannot be set up.
pub fn run(paths: &Paths, options: &TestOptions) -> Result<u8> {
    let mut rows = all_rows(paths, options.quick)?;
    if let Some(filter) = &options.filter {
        rows.retain(|row| row.name.contains(filter));
    }
    if options.list {
        for row in &rows {
            println!("{}", row.name);
        }
        return Ok(0);
    }
    prepare(paths, options.quick)?;
    let finished = run_rows(paths, rows)?;
    let total = finished.iter().map(|row| row.tally).fold(Tally::default(), Tally::plus);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(u8::from(total.failed > 0 || total.passed == 0))
}

/// The rows, cheap ones first.
fn all_rows(paths: &Paths, quick: bool) -> Result<Vec<Row>> {
    let mut rows = unit::rows(paths);
    rows.extend(bad_input::rows(paths));
    rows.extend(selftest::rows(paths, quick));
    rows.extend(bare_metal::rows(paths, quick)?);
    if !quick {
        rows.extend(torture::rows::rows(paths));
    }
    rows.extend([costs::exits(paths), costs::compute(paths), costs::noise(paths)]);
    rows.extend(run_rows::rows(paths, quick));
    rows.extend(terminal_row::rows(paths, quick));
    rows.extend(regress::test_rows(paths, quick));
    if !quick {
        rows.push(iso_row::row());
    }
    Ok(rows)
}

/// Fetches and builds once what rows that run at once would otherwise do together.
fn prepare(paths: &Paths, quick: bool) -> Result<()> {
    setup::ensure_all(false)?;
    image::kernel(paths, image::DEFAULT_KERNEL)?;
    image::initramfs(paths, Architecture::Amd64)?;
    image::self_test(paths)?;
    if !quick {
        setup::ensure_bochs()?;
        setup::ensure_iso_tools()?;
        image::kernel(paths, "linux-image-amd64")?;
        // An archive may be without 32-bit packages, or out of step; the rows say so then.
        let fetched = image::kernel(paths, image::PAE_KERNEL)
            .and_then(|_| image::initramfs(paths, Architecture::I386));
        if let Err(error) = fetched {
            eprintln!("note: {error:#}");
        }
    }
    // Rows that need it fail by themselves if it cannot be built.
    if let Err(error) = cargo_build::cokernel(paths) {
        eprintln!("note: {error:#}");
    }
    Ok(())
}
