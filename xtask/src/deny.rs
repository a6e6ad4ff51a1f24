// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask deny`: the rules of `deny.toml` for what comes from others.

use anyhow::Result;

use crate::paths::Paths;
use crate::process;
use crate::setup::rust::{ensure_deny, plain};

/// Checks that need no more than the crates themselves.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Runs cargo-deny; the exit status is 1 if a rule is broken. Known vulnerabilities are looked up
/// where the database of advisories can be fetched; where not, it says so.
///
/// # Errors
/// When cargo-deny is missing and cannot be installed, or cannot be started.
pub fn run(paths: &Paths) -> Result<u8> {
    ensure_deny()?;
    let mut broken = false;
    for check in CHECKS {
        broken |= !holds(paths, check)?;
    }
    let mut fetch = plain("cargo");
    fetch.current_dir(&paths.root).args(["deny", "fetch", "db"]);
    let fetched = process::capture(&mut fetch, "fetching the database of advisories")?;
    if fetched.status.success() {
        broken |= !holds(paths, "advisories")?;
    } else {
        let why = process::last_line(&fetched.stderr);
        println!("off   advisories: not checked, their database cannot be fetched: {why}");
    }
    Ok(u8::from(broken))
}

/// Runs one check, and prints what it has to say if the rule is broken.
fn holds(paths: &Paths, check: &str) -> Result<bool> {
    let mut command = plain("cargo");
    command.current_dir(&paths.root).args(["deny", "check", "--hide-inclusion-graph", check]);
    let output = process::capture(&mut command, &format!("checking {check}"))?;
    let holds = output.status.success();
    if holds {
        println!("ok    {check}");
    } else {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        println!("FAIL  {check}");
    }
    Ok(holds)
}
