// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building the bare-metal binaries of this workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::paths::Paths;
use crate::{process, setup};

/// Target of everything that runs without an operating system.
pub const BARE_METAL: &str = "x86_64-unknown-none";

/// What is read of Cargo's messages (The Cargo Book, "External tools").
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The Cargo that runs this program.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds the bootable image of the co-kernel with the VMM.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn cokernel(paths: &Paths) -> Result<PathBuf> {
    bare_metal(paths, "cokernel-glue", "alcazar")
}

/// Builds binary `name` of `package` for bare metal and gives its path. Shows the compiler's
/// messages only when it fails.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn bare_metal(paths: &Paths, package: &str, name: &str) -> Result<PathBuf> {
    let binaries = bare_metal_binaries(paths, package, Some(name))?;
    binaries
        .into_iter()
        .find(|(built, _)| built == name)
        .map(|(_, path)| path)
        .with_context(|| format!("package {package} made no binary '{name}'"))
}

/// Builds the binaries of `package`, or only the one named, and gives names and paths.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn bare_metal_binaries(
    paths: &Paths,
    package: &str,
    only: Option<&str>,
) -> Result<Vec<(String, PathBuf)>> {
    setup::rust::ensure_target(BARE_METAL)?;
    let mut command = cargo();
    command.current_dir(&paths.root).args(["build", "--release", "--target", BARE_METAL]);
    command.args(["--message-format", "json-render-diagnostics", "--package", package]);
    command.arg("--target-dir").arg(&paths.target);
    match only {
        Some(name) => command.args(["--bin", name]),
        None => command.arg("--bins"),
    };
    let output = process::capture(&mut command, &format!("building {package}"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("building {package} failed, see above");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_executables_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tool"},"executable":"/t/tool"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executables(messages), [("tool".to_owned(), PathBuf::from("/t/tool"))]);
    }
}
