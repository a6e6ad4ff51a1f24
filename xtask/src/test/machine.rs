// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a machine for a row, without a user at its console.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use wire::{Manifest, RunReport};

use super::row::Log;
use crate::iso;
use crate::paths::Paths;
use crate::platform::accelerator::Accelerator;
use crate::platform::{Boot, Engine, MachineConfig, qemu};
use crate::process::{self, OwnedChild};
use crate::run::bundle::{self, Member};
use crate::run::report;

/// A machine for tests: emulated, so that it is the same everywhere.
#[derive(Debug)]
pub struct TestMachine {
    config: MachineConfig,
    folder: TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct MachineAnswer {
    /// Exit status.
    pub status: i32,
    /// What was written to the guest's console.
    pub console: String,
    /// What was written to the co-kernel's log.
    pub log: String,
}

impl TestMachine {
    /// A machine that boots `image`.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn new(image: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = MachineConfig {
            engine: Engine::Qemu(Accelerator::Tcg),
            cpu: qemu::TCG_CPU.into(),
            cpus: 1,
            memory_mib: 512,
            deterministic: false,
            boot: Boot::Kernel { kernel: image, initrd: None, command_line: String::new() },
            log: Some(folder.path().join("log")),
        };
        Ok(Self { config, folder })
    }

    /// A machine that boots an ISO image.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn from_iso(iso: PathBuf) -> Result<Self> {
        let mut machine = Self::new(PathBuf::new())?;
        machine.config.boot = Boot::Iso(iso);
        machine.config.memory_mib = 1024;
        Ok(machine)
    }

    /// The same with another number of CPUs, CPU model and memory.
    #[must_use]
    pub fn with(mut self, cpus: u32, cpu: &str, memory_mib: u64) -> Self {
        self.config.cpus = cpus;
        self.config.cpu = cpu.to_owned();
        self.config.memory_mib = memory_mib;
        self
    }

    /// The machine with the co-kernel and a bundle, ready to run it.
    ///
    /// # Errors
    /// When the co-kernel cannot be built or the bundle not be written.
    pub fn with_bundle(paths: &Paths, manifest: &Manifest, members: &[Member]) -> Result<Self> {
        Self::with_image(crate::cargo_build::cokernel(paths)?, manifest, members)
    }

    /// The machine with `image`, which is a co-kernel, and a bundle.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub fn with_image(image: PathBuf, manifest: &Manifest, members: &[Member]) -> Result<Self> {
        let mut machine = Self::new(image)?;
        let path = machine.folder.path().join("bundle.cpio");
        bundle::write(&path, manifest, members)?;
        if let Boot::Kernel { initrd, .. } = &mut machine.config.boot {
            *initrd = Some(path);
        }
        Ok(machine)
    }

    /// A Bochs machine with `image`, which is a co-kernel, and a bundle.
    ///
    /// # Errors
    /// When the bundle or the ISO image cannot be written.
    pub fn on_bochs(
        image: &Path,
        model: &str,
        manifest: &Manifest,
        members: &[Member],
    ) -> Result<Self> {
        let mut machine = Self::new(PathBuf::new())?;
        let folder = machine.folder.path();
        let (path, iso) = (folder.join("bundle.cpio"), folder.join("machine.iso"));
        bundle::write(&path, manifest, members)?;
        iso::make(&iso, image, &path, "")?;
        machine.config.engine = Engine::Bochs;
        machine.config.cpu = model.to_owned();
        machine.config.boot = Boot::Iso(iso);
        Ok(machine)
    }

    /// Runs it to its end and puts what it wrote into the row's log.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub fn run(self, limit: Duration, row: &mut Log) -> Result<MachineAnswer> {
        let console = self.folder.path().join("console");
        let output = File::create(&console)?;
        let errors = output.try_clone()?;
        let mut command = self.config.command()?;
        row.line(format_args!("$ {}", process::command_line(&command)));
        command.stdin(std::process::Stdio::null()).stdout(output).stderr(errors);
        let mut child = OwnedChild::spawn(&mut command)?;
        let status = child.wait_until(Instant::now() + limit)?;
        drop(child);
        let console = fs::read(&console)?;
        row.write(&console);
        let log = self.config.log.as_ref().map(fs::read).transpose()?.unwrap_or_default();
        row.write(&log);
        let Some(status) = status else {
            bail!("the machine did not end within {} s", limit.as_secs());
        };
        row.line(format_args!("=> {status}"));
        Ok(MachineAnswer {
            status: status.code().context("the machine was killed")?,
            console: String::from_utf8_lossy(&console).into_owned(),
            log: String::from_utf8_lossy(&log).into_owned(),
        })
    }
}

impl MachineAnswer {
    /// The run report, of a co-kernel that has done its work.
    ///
    /// # Errors
    /// When the co-kernel failed or wrote no report.
    pub fn report(&self) -> Result<RunReport> {
        let done = crate::run::outcome::exit_status(wire::machine_exit::DONE);
        if self.status != done {
            bail!("the co-kernel ended with status {}, expected {done}", self.status);
        }
        report::parse(&self.log)?.context("the log has no report")
    }
}
