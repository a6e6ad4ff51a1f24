// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rust targets.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The compiler Cargo uses.
fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Whether the standard library for `target` is installed.
///
/// # Errors
/// When the compiler does not say where its files are.
pub fn has_target(target: &str) -> Result<bool> {
    let output = rustc()
        .args(["--print", "sysroot"])
        .output()
        .context("cannot start rustc; install Rust from https://rustup.rs")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Version line of the compiler.
///
/// # Errors
/// When it cannot be started.
pub fn version() -> Result<String> {
    let output = rustc().arg("--version").output().context("cannot start rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Adds `target` through rustup if it is missing.
///
/// # Errors
/// When there is no rustup, or it fails: says what to do by hand.
pub fn ensure_target(target: &str) -> Result<()> {
    if has_target(target)? {
        return Ok(());
    }
    if !process::on_path("rustup") {
        bail!(
            "the Rust target {target} is missing and there is no rustup to add it; install it \
               as your distribution provides it, or Rust from https://rustup.rs"
        );
    }
    let what = format!("adding the Rust target {target}");
    eprintln!("setup: {what}: rustup target add {target}");
    process::succeed(Command::new("rustup").args(["target", "add", target]), &what)?;
    Ok(())
}

/// Installs what fuzzing needs, if it is missing: the nightly toolchain and `cargo-fuzz`.
///
/// # Errors
/// When there is no rustup, or an installation fails.
pub fn ensure_fuzzer() -> Result<()> {
    ensure_nightly()?;
    ensure_tool("fuzz", "cargo-fuzz")
}

/// Installs Miri, if it is missing, and the nightly toolchain that it belongs to.
///
/// # Errors
/// When there is no rustup, or an installation fails.
pub fn ensure_miri() -> Result<()> {
    ensure_nightly()?;
    if cargo_has(&["+nightly", "miri", "--version"]) {
        return Ok(());
    }
    let what = "installing Miri";
    let arguments = ["component", "add", "miri", "rust-src", "--toolchain", "nightly"];
    eprintln!("setup: {what}: rustup {}", arguments.join(" "));
    process::succeed(plain("rustup").args(arguments), what).map(drop)
}

/// Installs `cargo-deny`, if it is missing, which takes some minutes.
///
/// # Errors
/// When the installation fails.
pub fn ensure_deny() -> Result<()> {
    ensure_tool("deny", "cargo-deny")
}

fn cargo_has(arguments: &[&str]) -> bool {
    plain("cargo").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn ensure_nightly() -> Result<()> {
    if cargo_has(&["+nightly", "--version"]) {
        return Ok(());
    }
    let what = "installing the nightly toolchain";
    let arguments = ["toolchain", "install", "nightly", "--profile", "minimal"];
    eprintln!("setup: {what}: rustup {}", arguments.join(" "));
    process::succeed(plain("rustup").args(arguments), what).map(drop)
}

/// Installs the crate `package`, which gives Cargo the command `name`.
fn ensure_tool(name: &str, package: &str) -> Result<()> {
    if cargo_has(&[name, "--version"]) {
        return Ok(());
    }
    let what = format!("installing {package}");
    eprintln!("setup: {what}, which takes some minutes: cargo install {package} --locked");
    process::succeed(plain("cargo").args(["install", package, "--locked"]), &what).map(drop)
}

/// A command that chooses its toolchain itself, whichever started this program.
pub fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command
}
