// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a benchmark guest can run: on the bare emulated machine, and on that machine under
//! Alcazar or under Linux KVM.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use wire::{
    Apic, EndKind, FORMAT_VERSION, GuestConsole, Manifest, Paging, RunReport, ShadowSettings,
    Stage, Start, VmDescription,
};

use super::machine::{self, Answer};
use super::peer::{self, Setting};
use crate::paths::Paths;
use crate::platform::accelerator::Accelerator;
use crate::platform::{Boot, Engine, MachineConfig, qemu};
use crate::progress::Progress;
use crate::run::bundle::{self, Member};
use crate::run::folder::RunFolder;
use crate::run::outcome::exit_status;
use crate::run::report;
use crate::{cargo_build, iso, memory, setup};

/// Least memory of a Bochs machine, in MiB.
const BOCHS_MIB: u64 = 512;

/// A place to run a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The emulated machine without any VMM.
    Bare,
    /// Alcazar with nested paging.
    Alcazar,
    /// Alcazar with shadow paging.
    AlcazarShadow,
    /// Linux KVM with nested paging.
    Kvm,
    /// Linux KVM with shadow paging.
    KvmShadow,
}

impl Place {
    /// Name in tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare machine",
            Self::Alcazar => "Alcazar",
            Self::AlcazarShadow => "Alcazar, shadow",
            Self::Kvm => "KVM",
            Self::KvmShadow => "KVM, shadow",
        }
    }
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The guest's file.
    pub guest: &'a Path,
    /// Its command line.
    pub words: &'a str,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Its CPUs, and at least those of the machine.
    pub cpus: u32,
    /// Whether time is counted in instructions.
    pub deterministic: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the guest printed.
    pub console: String,
    /// Alcazar's report.
    pub report: Option<RunReport>,
}

/// The benchmark guest `name`, built.
///
/// # Errors
/// When it cannot be built.
pub fn guest(paths: &Paths, name: &str) -> Result<PathBuf> {
    cargo_build::bare_metal(paths, "bench-guests", name, &[])
}

impl Place {
    /// Runs the guest here, to its end.
    ///
    /// # Errors
    /// When it does not get there, or ends with a failure.
    pub fn run(self, paths: &Paths, job: Job<'_>) -> Result<Outcome> {
        let folder = RunFolder::create(paths)?;
        let _progress = Progress::start(&format!("measuring: {}", self.title()));
        match self {
            Self::Bare => bare(job, &folder),
            Self::Alcazar => alcazar(paths, job, Paging::Nested, &folder),
            Self::AlcazarShadow => alcazar(paths, job, Paging::Shadow, &folder),
            Self::Kvm => {
                peer::run(paths, job, Setting { nested: true, ..Setting::default() }, &folder)
            }
            Self::KvmShadow => peer::run(paths, job, Setting::default(), &folder),
        }
        .with_context(|| format!("{} failed", self.title()))
    }
}

/// The machine that all places share.
pub fn machine(job: Job<'_>, memory_mib: u64, boot: Boot) -> MachineConfig {
    MachineConfig {
        engine: Engine::Qemu(Accelerator::Tcg),
        cpu: qemu::TCG_CPU.into(),
        cpus: job.cpus,
        memory_mib,
        deterministic: job.deterministic,
        boot,
        log: None,
    }
}

fn bare(job: Job<'_>, folder: &RunFolder) -> Result<Outcome> {
    let boot =
        Boot::Kernel { kernel: job.guest.into(), initrd: None, command_line: job.words.to_owned() };
    let answer = machine::run(&machine(job, job.memory_mib, boot), folder)?;
    ensure!(answer.status == exit_status(0), "the guest failed; see {}", answer.log.display());
    Ok(Outcome { console: answer.console, report: None })
}

/// Runs the guest under Alcazar in a VM of its own.
///
/// # Errors
/// See [`under_alcazar`].
pub fn alcazar(paths: &Paths, job: Job<'_>, paging: Paging, folder: &RunFolder) -> Result<Outcome> {
    let manifest = Manifest {
        version: FORMAT_VERSION,
        stages: vec![Stage { vms: vec![vm(job, paging)], repeat: 1 }],
    };
    under_alcazar(paths, job, &manifest, folder)
}

/// The VM for a job.
pub fn vm(job: Job<'_>, paging: Paging) -> VmDescription {
    VmDescription {
        name: "guest".into(),
        memory_mib: job.memory_mib,
        vcpus: job.cpus,
        paging: Some(paging),
        shadow: ShadowSettings::default(),
        apic: Apic::Hardware,
        kernel: "kernel".into(),
        start: Start::Detect,
        modules: Vec::new(),
        command_line: job.words.to_owned(),
        console: GuestConsole::Serial,
        exit_port: Some(wire::machine_exit::PORT),
        time_limit_ms: None,
        entry_fault: None,
        host_fault: None,
    }
}

/// Runs a manifest whose kernels are all the job's guest.
///
/// # Errors
/// When the co-kernel fails or a VM does not end by its exit port.
pub fn under_alcazar(
    paths: &Paths,
    job: Job<'_>,
    manifest: &Manifest,
    folder: &RunFolder,
) -> Result<Outcome> {
    let image = cargo_build::cokernel(paths)?;
    let (bundle, memory_mib) = write_bundle(job, manifest, folder)?;
    let boot = Boot::Kernel { kernel: image, initrd: Some(bundle), command_line: String::new() };
    let cpus = Accelerator::Tcg.cpus_for(job.cpus);
    attend(&MachineConfig { cpus, ..machine(job, memory_mib, boot) }, folder)
}

/// Like [`under_alcazar`] on a Bochs machine with this CPU model. Its CPUs are executed in turn, a
/// few instructions each, and time passes for all of them at once, by instructions.
///
/// # Errors
/// See [`under_alcazar`]; also when Bochs cannot be installed.
pub fn on_bochs(
    paths: &Paths,
    job: Job<'_>,
    model: &str,
    manifest: &Manifest,
    folder: &RunFolder,
) -> Result<Outcome> {
    setup::ensure_bochs()?;
    let image = cargo_build::cokernel(paths)?;
    let (bundle, memory_mib) = write_bundle(job, manifest, folder)?;
    let iso = folder.file("machine.iso");
    iso::make(&iso, &image, &bundle, "")?;
    // GRUB has the image and the bundle in memory twice.
    let machine = machine(job, memory_mib.max(BOCHS_MIB), Boot::Iso(iso));
    attend(&MachineConfig { engine: Engine::Bochs, cpu: model.to_owned(), ..machine }, folder)
}

/// Writes the bundle, and gives its path and the memory that the machine needs, in MiB.
fn write_bundle(job: Job<'_>, manifest: &Manifest, folder: &RunFolder) -> Result<(PathBuf, u64)> {
    let path = folder.file("bundle.cpio");
    let member = Member { name: "kernel".into(), path: job.guest.into() };
    let size = bundle::write(&path, manifest, &[member])?;
    // Stages run one after the other.
    let guests = manifest.stages.iter().map(|stage| stage.vms.iter().map(|vm| vm.memory_mib).sum());
    let guests: u64 = guests.max().unwrap_or_default();
    let memory_mib = memory::machine_mib(guests * memory::MIB, size, memory::HostMemory::read()?)?;
    Ok((path, memory_mib))
}

/// Runs a machine with the co-kernel to its end.
fn attend(machine: &MachineConfig, folder: &RunFolder) -> Result<Outcome> {
    let log = folder.file("alcazar.log");
    let answer =
        machine::run(&MachineConfig { log: Some(log.clone()), ..machine.clone() }, folder)?;
    let report = finished(&answer, &log).with_context(|| format!("see {}", log.display()))?;
    Ok(Outcome { console: answer.console, report: Some(report) })
}

fn finished(answer: &Answer, log: &Path) -> Result<RunReport> {
    ensure!(
        answer.status == exit_status(wire::machine_exit::DONE),
        "the co-kernel ended with status {}",
        answer.status
    );
    let report = report::from_log(log)?.context("there is no run report")?;
    for vm in &report.vms {
        if vm.end.kind != EndKind::ExitPort || vm.end.exit_code != Some(0) {
            bail!("VM {}: {}", vm.name, vm.end.detail);
        }
    }
    Ok(report)
}
