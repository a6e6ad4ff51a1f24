// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask faults`: what comes of a host whose calls fail.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo_build::cargo;
use crate::paths::Paths;

/// Makes every call of the host fail that a VM's life leads to, one after the other, and prints
/// what each came to. The exit status is 1 if that is not what docs/testing.md says.
#[derive(Clone, Debug, Args)]
pub struct FaultsOptions {
    /// Put the table into docs/testing.md
    #[arg(long)]
    update_docs: bool,
    /// Write all findings to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the test that does it; it knows the variables.
///
/// # Errors
/// When it cannot be started.
pub fn run(paths: &Paths, options: &FaultsOptions) -> Result<u8> {
    let mut command = cargo();
    command.current_dir(&paths.root).args(["test", "--quiet", "--package", "vmm-devices"]);
    command.args(["--test", "host_faults", "--target-dir"]).arg(&paths.target);
    command.args(["--", "--nocapture", "whatever_call_fails"]);
    command.env("HOST_FAULTS_PRINT", "1").stdin(Stdio::null());
    if let Some(path) = &options.json {
        let path = std::path::absolute(path).context("--json: no such place")?;
        command.env("HOST_FAULTS_JSON", path);
    }
    if options.update_docs {
        command.env("HOST_FAULTS_UPDATE_DOCS", "1");
    }
    let status = command.status().context("cargo cannot be started")?;
    Ok(u8::from(!status.success()))
}
