// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines the co-kernel runs on.

pub mod accelerator;
pub mod qemu;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// A kind of machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Platform {
    /// QEMU's q35 machine, with KVM where nested virtualization works and TCG elsewhere.
    Qemu,
    /// The Bochs emulator (not supported yet).
    Bochs,
}

impl Platform {
    /// Name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
        }
    }

    /// Checks that this version of the tools can drive it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Qemu => Ok(()),
            Self::Bochs => bail!("--platform bochs is not supported yet: use --platform qemu"),
        }
    }

    /// The command that starts `machine`. Its standard streams are the first serial port.
    pub fn command(self, machine: &MachineConfig) -> Result<Command> {
        self.check()?;
        Ok(qemu::command(machine))
    }
}

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// How its CPUs are made.
    pub accelerator: accelerator::Accelerator,
    /// CPU model in the platform's own terms.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Advance time by instructions executed, so that runs are the same each time.
    pub deterministic: bool,
    /// What is booted.
    pub boot: Boot,
    /// Where the second serial port, the co-kernel's log, is written.
    pub log: Option<PathBuf>,
}

/// What a machine boots.
#[derive(Clone, Debug)]
pub enum Boot {
    /// A kernel given to the machine directly.
    Kernel {
        /// Kernel file.
        kernel: PathBuf,
        /// Its one module or initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        command_line: String,
    },
    /// An ISO image booted by firmware from a CD-ROM drive.
    Iso(PathBuf),
}
