// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bochs 2.7 as Debian builds it.
//!
//! Debian's Bochs has its debugger built in and draws its screen on a terminal, so it is run on
//! pseudo-terminals by a process of its own, [`mod@drive`], which looks like QEMU from outside: the
//! first serial port is on its standard streams, the co-kernel's exit code is its status.

pub mod config;
mod console;
mod drive;
pub mod models;
mod panics;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{Boot, MachineConfig};
use crate::setup;
use models::Model;

pub use drive::run as drive;

/// Name of the hidden command that is the machine.
pub const COMMAND: &str = "bochs-machine";

/// Most CPUs: more only make it slower, since it runs them in turn.
pub const MOST_CPUS: u32 = 8;

/// Added to the command line of a Linux guest, where instructions are slow. The kernel and what
/// it does for its programs stay the same.
///
/// - `mitigations=off`: an interpreter does not speculate, and the barriers are instructions.
/// - `tsc=reliable`: the TSC is the machine's only clock; checking it against others takes time.
/// - `rcupdate.rcu_expedited=1`: user space is reached without waiting for grace periods.
/// - `cryptomgr.notests`: self-tests of the cipher code run millions of instructions.
const SLOW_MACHINE: &str =
    "mitigations=off tsc=reliable rcupdate.rcu_expedited=1 cryptomgr.notests";

/// A CPU feature that no guest sees, and a Linux without a VMM does: Bochs 2.7 never ends a MWAITX
/// by its timer, with which Linux waits for short times.
const FAULTY_WITHOUT_VMM: &str = "mwaitx";

/// What is added to the command line of a Linux guest on `model`.
pub fn kernel_options(model: &Model) -> String {
    options(model.faulty)
}

/// What is added to the command line of a Linux that runs on `model` without a VMM.
pub fn native_kernel_options(model: &Model) -> String {
    options(&[model.faulty, &[FAULTY_WITHOUT_VMM]].concat())
}

/// Linux regards the last `clearcpuid` alone, so there is one for all features.
fn options(faulty: &[&str]) -> String {
    if faulty.is_empty() {
        SLOW_MACHINE.to_owned()
    } else {
        format!("{SLOW_MACHINE} clearcpuid={}", faulty.join(","))
    }
}

/// A machine, for the process that runs it.
#[derive(Clone, Debug, Args)]
pub struct BochsOptions {
    /// CPU model
    #[arg(long)]
    cpu: String,
    /// Number of CPUs
    #[arg(long)]
    cpus: u32,
    /// Memory in MiB
    #[arg(long)]
    memory: u64,
    /// Image to boot
    #[arg(long)]
    iso: PathBuf,
    /// File for the second serial port
    #[arg(long)]
    log: PathBuf,
}

/// The command that is `machine`.
///
/// # Errors
/// When Bochs cannot be such a machine; names what is in the way.
pub fn command(machine: &MachineConfig) -> Result<Command> {
    models::find(&machine.cpu)?;
    let (Boot::Iso(iso), Some(log)) = (&machine.boot, &machine.log) else {
        bail!("Bochs boots nothing but ISO images, and needs a log");
    };
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg(COMMAND).args(["--cpu", &machine.cpu]);
    command.args(["--cpus", &machine.cpus.to_string()]);
    command.args(["--memory", &machine.memory_mib.to_string()]);
    command.arg("--iso").arg(quotable(iso)?).arg("--log").arg(quotable(log)?);
    Ok(command)
}

/// Checks a path that is put into Bochs' configuration file.
fn quotable(path: &Path) -> Result<&Path> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '$']));
    ensure!(
        text.is_some(),
        "Bochs cannot read the file name {}: use one without quotes, $ and line ends",
        path.display()
    );
    Ok(path)
}

/// Checks that Bochs and its firmware are there.
///
/// # Errors
/// What is missing, and how to get it.
pub fn check() -> Result<()> {
    let missing: Vec<&str> =
        setup::BOCHS_PARTS.iter().filter(|part| !part.present()).map(|part| part.package).collect();
    ensure!(missing.is_empty(), "comes in packages {}", missing.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faulty_features_are_hidden_by_one_option() {
        let of = |name| models::find(name).unwrap();
        assert_eq!(kernel_options(of("zambezi")), SLOW_MACHINE);
        assert_eq!(kernel_options(of("ryzen")), format!("{SLOW_MACHINE} clearcpuid=xsavec"));
        let native = native_kernel_options(of("ryzen"));
        assert_eq!(native, format!("{SLOW_MACHINE} clearcpuid=xsavec,mwaitx"));
        assert_eq!(native_kernel_options(of("zambezi")).matches("clearcpuid=mwaitx").count(), 1);
    }
}
