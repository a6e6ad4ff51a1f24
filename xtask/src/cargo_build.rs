// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building what runs in the machines: bare-metal binaries and a Linux program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::paths::Paths;
use crate::{process, setup};

/// Target of everything that runs without an operating system.
pub const BARE_METAL: &str = "x86_64-unknown-none";

/// Target of Linux programs that run on any kernel without further files.
const STATIC_LINUX: &str = "x86_64-unknown-linux-musl";

/// Where bootable images with symbols are, in the folder of what Cargo does not make.
const IMAGES: &str = "images";

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
    let image = bare_metal_as("image", paths, "cokernel-glue", "alcazar", &[])?;
    with_symbols(paths, &image, IMAGES)
}

/// Builds the same image with a way to have entries into guests fail, for tests.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn faulty_cokernel(paths: &Paths) -> Result<PathBuf> {
    // Of another profile than the image for work, which stays what it is.
    let image = bare_metal(paths, "cokernel-glue", "alcazar", &["fault-injection"])?;
    with_symbols(paths, &image, "images/fault-injection")
}

/// Builds the co-kernel's self-test.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn selftest(paths: &Paths) -> Result<PathBuf> {
    let image = bare_metal(paths, "cokernel", "cokernel-selftest", &["selftest"])?;
    with_symbols(paths, &image, IMAGES)
}

/// Builds binary `name` of `package` for bare metal and gives its path. Shows the compiler's
/// messages only when it fails.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn bare_metal(paths: &Paths, package: &str, name: &str, features: &[&str]) -> Result<PathBuf> {
    bare_metal_as("release", paths, package, name, features)
}

fn bare_metal_as(
    profile: &str,
    paths: &Paths,
    package: &str,
    name: &str,
    features: &[&str],
) -> Result<PathBuf> {
    setup::rust::ensure_target(BARE_METAL)?;
    let mut command = cargo();
    command.args(["build", "--profile", profile, "--target", BARE_METAL]);
    command.args(["--package", package, "--bin", name, "--features", &features.join(",")]);
    find(build(paths, command, package)?, name)
}

/// Builds the program `package` for Linux guests and gives its path.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn linux_program(paths: &Paths, package: &str) -> Result<PathBuf> {
    setup::rust::ensure_target(STATIC_LINUX)?;
    let mut command = cargo();
    command.args(["build", "--profile", "guest", "--target", STATIC_LINUX]);
    command.args(["--package", package, "--bin", package]);
    find(build(paths, command, package)?, package)
}

/// Builds the static Linux program that runs a guest under KVM.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn kvm_runner(paths: &Paths) -> Result<PathBuf> {
    const NAME: &str = "kvm-runner";
    setup::rust::ensure_target(STATIC_LINUX)?;
    let mut command = cargo();
    command.args(["build", "--release", "--target", STATIC_LINUX, "--package", NAME]);
    find(build(paths, command, NAME)?, NAME)
}

/// Builds all binaries of `package` for bare metal and gives names and paths.
///
/// # Errors
/// When the target cannot be installed or the build fails.
pub fn bare_metal_binaries(paths: &Paths, package: &str) -> Result<Vec<(String, PathBuf)>> {
    setup::rust::ensure_target(BARE_METAL)?;
    let mut command = cargo();
    command.args(["build", "--release", "--target", BARE_METAL, "--package", package, "--bins"]);
    build(paths, command, package)
}

/// The image with its symbol table built in, which gives the backtrace of a panic its names.
/// It lies in `folder` below that of all files of ours, so that two of one name are apart.
fn with_symbols(paths: &Paths, image: &Path, folder: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "cokernel", "--bin", "embed-symbols"]);
    command.args(["--features", "embed-symbols"]);
    let tool = find(build(paths, command, "embed-symbols")?, "embed-symbols")?;
    let folder = paths.target.join("alcazar").join(folder);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let name = image.file_name().context("an image has a name")?;
    let result = folder.join(name);
    // Another command may be booting the old one or making the new one: replace it whole.
    let work = tempfile::tempdir_in(&folder)?;
    let made = work.path().join(name);
    process::succeed(Command::new(tool).arg(image).arg(&made), "embedding symbols")?;
    std::fs::rename(&made, &result)
        .with_context(|| format!("cannot write {}", result.display()))?;
    Ok(result)
}

/// Runs Cargo and gives names and paths of the executables.
fn build(paths: &Paths, mut command: Command, what: &str) -> Result<Vec<(String, PathBuf)>> {
    command.current_dir(&paths.root).arg("--target-dir").arg(&paths.target);
    command.args(["--message-format", "json-render-diagnostics"]);
    let output = process::capture(&mut command, &format!("building {what}"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("building {what} failed, see above");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn find(binaries: Vec<(String, PathBuf)>, name: &str) -> Result<PathBuf> {
    binaries
        .into_iter()
        .find(|(built, _)| built == name)
        .map(|(_, path)| path)
        .with_context(|| format!("Cargo made no binary '{name}'"))
}

/// Names and paths of the executables that Cargo tells of in its messages.
pub fn executables(messages: &str) -> Vec<(String, PathBuf)> {
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
