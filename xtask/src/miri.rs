// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask miri`: unit tests of code with `unsafe`, interpreted, so that undefined behaviour
//! is seen.

use anyhow::{Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::process;
use crate::setup::rust::{ensure_miri, plain};

/// What Miri can execute and ends within minutes: a crate, and the start of its tests' names.
/// Everything else with `unsafe` is instructions of the CPU, or reaches them.
const SELECTED: &[(&str, &[&str])] = &[
    ("vmm-core", &["memory::", "trap_map::", "paging::shadow::arena"]),
    ("cokernel", &["memory::frames"]),
];

/// Memory here has addresses that are numbers first: physical ones.
const FLAGS: &str = "-Zmiri-permissive-provenance -Zmiri-disable-isolation";

/// Runs unit tests under Miri.
#[derive(Clone, Debug, Args)]
pub struct MiriOptions {
    /// Only of crates whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
}

/// Runs them; the exit status is 1 if one fails.
///
/// # Errors
/// When Miri is missing and cannot be installed, or cannot be started.
pub fn run(paths: &Paths, options: &MiriOptions) -> Result<u8> {
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|part| name.contains(part));
    let selected: Vec<_> = SELECTED.iter().filter(|(name, _)| wanted(name)).collect();
    ensure!(!selected.is_empty(), "no crate is left: give another --filter");
    ensure_miri()?;
    let mut failed = false;
    for (package, tests) in selected {
        let mut command = plain("cargo");
        command.current_dir(&paths.root).args(["+nightly", "miri", "test", "--package", package]);
        command.arg("--lib").arg("--target-dir").arg(paths.target.join("miri"));
        command.arg("--").args(*tests);
        // Random tests try fewer cases: each takes a hundred times as long.
        command.env("MIRIFLAGS", FLAGS).env("PROPTEST_CASES", "8");
        let output = process::capture(&mut command, &format!("interpreting tests of {package}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let tests = text.lines().filter(|line| line.ends_with(" ok")).count();
        if output.status.success() && tests > 0 {
            println!("ok    {package}: {tests} tests");
        } else {
            eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
            println!("FAIL  {package}");
            failed = true;
        }
    }
    Ok(u8::from(failed))
}
