// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask faults`: what comes of a host whose calls fail.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::cargo_build::cargo;
use crate::paths::Paths;
use crate::process;
use crate::result_file::ResultFile;

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
/// When it cannot be started, or does not compile.
pub fn run(paths: &Paths, options: &FaultsOptions) -> Result<u8> {
    let json = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let json = json.transpose()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let findings = folder.path().join("findings.json");
    let mut command = cargo();
    command.current_dir(&paths.root).args(["test", "--quiet", "--package", "vmm-devices"]);
    command.args(["--test", "host_faults", "--target-dir"]).arg(&paths.target);
    command.args(["--", "--nocapture", "whatever_call_fails"]);
    command.env("HOST_FAULTS_PRINT", "1").env("HOST_FAULTS_JSON", &findings);
    if options.update_docs {
        command.env("HOST_FAULTS_UPDATE_DOCS", "1");
    }
    let output = process::capture(&mut command, "building the test, and failing the host's calls")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with('|')).for_each(|line| println!("{line}"));
    // Without it the test has not come as far as that.
    let Ok(findings) = std::fs::read(&findings) else {
        eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
        bail!("the calls were not made to fail; what went wrong is above");
    };
    let findings: Vec<Value> = serde_json::from_slice(&findings).context("the findings")?;
    if let Some(file) = json {
        file.write_json(&findings)?;
    }
    let well = output.status.success();
    if !well {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let (verdict, is) = if well { ("ok", "as") } else { ("FAIL", "not as") };
    println!("{verdict}: {} findings, {is} docs/testing.md says", findings.len());
    Ok(u8::from(!well))
}
