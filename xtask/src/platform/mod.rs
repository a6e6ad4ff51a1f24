// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines the co-kernel runs on.

pub mod accelerator;
pub mod bochs;
pub mod qemu;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use accelerator::Accelerator;
use bochs::models::{self, Model};

/// A kind of machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Platform {
    /// QEMU's q35 machine, with KVM where nested virtualization works and TCG elsewhere.
    Qemu,
    /// The Bochs emulator, whose CPU models have Intel VT-x or AMD SVM of several generations.
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

    /// The CPU model `cpu`, or the default one, if this is Bochs.
    ///
    /// # Errors
    /// When Bochs has no such model.
    pub fn bochs_model(self, cpu: Option<&str>) -> Result<Option<&'static Model>> {
        match self {
            Self::Qemu => Ok(None),
            Self::Bochs => models::find(cpu.unwrap_or(models::DEFAULT)).map(Some),
        }
    }
}

/// The program that is the machine, and what executes guest code in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// QEMU.
    Qemu(Accelerator),
    /// Bochs, which interprets.
    Bochs,
}

impl Engine {
    /// Name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu(_) => "QEMU",
            Self::Bochs => "Bochs",
        }
    }
}

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// What it is made by.
    pub engine: Engine,
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

impl MachineConfig {
    /// The command that is the machine. Its standard streams are the first serial port; its exit
    /// status is QEMU's: `code << 1 | 1` for the co-kernel's exit code, 0 for a reset, 1 for a
    /// failure of the emulator with a line on standard error that says why.
    ///
    /// # Errors
    /// When the machine cannot be had like this.
    pub fn command(&self) -> Result<Command> {
        match self.engine {
            Engine::Qemu(accelerator) => Ok(qemu::command(self, accelerator)),
            Engine::Bochs => bochs::command(self),
        }
    }
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
    /// A multiboot kernel given to the machine directly.
    Multiboot {
        /// Kernel file.
        kernel: PathBuf,
        /// Its modules.
        modules: Vec<PathBuf>,
        /// Its command line.
        command_line: String,
    },
    /// Firmware in place of the machine's own.
    Firmware(PathBuf),
    /// An ISO image booted by firmware from a CD-ROM drive.
    Iso(PathBuf),
}
