// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the machine's CPUs are real (nested KVM) or emulated (TCG).

use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::process::OwnedChild;
use crate::setup::QEMU;

/// What QEMU executes guest code with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// The host's KVM, which passes the host CPU's virtualization on to the co-kernel.
    Kvm,
    /// QEMU's own translator, which emulates AMD SVM.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// CPUs of a machine that is to run `vcpus` at once, each on a CPU of its own. TCG's first
    /// CPU runs no guest beside others: their floating-point instructions spoil its state.
    pub const fn cpus_for(self, vcpus: u32) -> u32 {
        match self {
            Self::Tcg if vcpus > 1 => vcpus + 1,
            Self::Kvm | Self::Tcg => vcpus,
        }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Choice {
    /// KVM if nested virtualization really works, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// TCG.
    Tcg,
}

/// Whether nested KVM can be used, and if not, why; each step more telling than the one before.
///
/// # Errors
/// The reason, in a few words.
pub fn nested_kvm() -> Result<(), String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !offers_virtualization(&flags) {
        return Err("this CPU shows neither svm nor vmx".into());
    }
    nested_parameter()?;
    start_attempt()
}

fn offers_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "svm" || flag == "vmx"))
}

/// The KVM module must be loaded with nesting on.
fn nested_parameter() -> Result<(), String> {
    let on = ["kvm_amd", "kvm_intel"].iter().any(|module| {
        std::fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
            .is_ok_and(|value| matches!(value.trim(), "1" | "Y"))
    });
    if on { Ok(()) } else { Err("KVM is loaded without nested=1".into()) }
}

/// Starts a machine with real CPUs and stops it at once.
fn start_attempt() -> Result<(), String> {
    let errors = tempfile::tempfile().map_err(|error| error.to_string())?;
    let stderr = errors.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(QEMU.program);
    command
        .args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "64", "-nodefaults"])
        .args(["-display", "none", "-serial", "none", "-monitor", "stdio", "-S"])
        .stdin(quit_command().map_err(|error| error.to_string())?)
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut child = OwnedChild::spawn(&mut command).map_err(|error| format!("{error:#}"))?;
    match child.wait_until(Instant::now() + Duration::from_secs(10)) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("QEMU with KVM fails to start ({status})")),
        Ok(None) => Err("QEMU with KVM hangs".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Standard input that tells QEMU's monitor to quit.
fn quit_command() -> std::io::Result<File> {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile()?;
    file.write_all(b"quit\n")?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_flags() {
        assert!(offers_virtualization("processor: 0\nflags\t\t: fpu svm sse\n"));
        assert!(offers_virtualization("flags : vmx\n"));
        assert!(!offers_virtualization("flags : fpu svm_lock\nbugs : vmx\n"));
        assert!(!offers_virtualization(""));
    }

    #[test]
    fn emulated_machines_have_a_cpu_for_the_host_beside_several_vcpus() {
        assert_eq!([1, 2, 4].map(|vcpus| Accelerator::Tcg.cpus_for(vcpus)), [1, 3, 5]);
        assert_eq!([1, 2, 4].map(|vcpus| Accelerator::Kvm.cpus_for(vcpus)), [1, 2, 4]);
    }
}
