// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts a machine, attends to its console and waits for its end.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wire::{FORMAT_VERSION, Manifest, machine_exit};

use super::bundle;
use super::folder::RunFolder;
use super::job::Job;
use super::options::{MachineOptions, RunOptions};
use super::outcome::{Finished, MachineEnd, judge};
use super::plan::Plan;
use super::report;
use crate::console::pump::{self, Settings, Show, Sink, Source, Stop};
use crate::console::terminal::{self, RawMode};
use crate::platform::accelerator::Accelerator;
use crate::platform::{Boot, Engine, MachineConfig};
use crate::process::{OwnedChild, last_line};

/// A machine that has closed its console has this long to exit.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The co-kernel ends a VM at its time limit by itself; the machine is killed only if that does
/// not happen.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the plan's machine.
///
/// # Errors
/// When the machine cannot be started or the console fails. How the run itself went is in the
/// result.
pub fn start(plan: &Plan, options: &RunOptions, folder: &RunFolder) -> Result<Finished> {
    let begin = Instant::now();
    let errors = folder.file("machine.stderr");
    let mut machine = launch(&plan.machine, &errors)?;
    let input = machine.inner().stdin.take().context("the machine has no console input")?;
    let output = machine.inner().stdout.take().context("the machine has no console output")?;
    let settings = console_settings(plan, options, folder, begin);
    let raw = (settings.source == Source::Keys).then(RawMode::enter).transpose()?;
    let console = pump::run(output, input, settings)?;
    drop(raw);

    let status = match console.stop {
        Stop::MachineEnded => machine.wait_until(Instant::now() + LAST_WORDS)?,
        Stop::Quit | Stop::Signal(_) | Stop::Deadline => None,
    };
    drop(machine);
    let end = MachineEnd {
        code: status.and_then(|status| status.code()),
        message: fs::read(&errors).map(|text| last_line(&text)).unwrap_or_default(),
    };
    let report = match &plan.machine.log {
        Some(log) => report::from_log(log)?,
        None => None,
    };
    let status = judge(plan, options, &console, &end, report.as_ref());
    let log = plan.machine.log.clone().unwrap_or_else(|| folder.file("console.log"));
    Ok(Finished { status, report, log, console, begin, seconds: begin.elapsed().as_secs_f64() })
}

/// Starts the machine with its console on pipes.
fn launch(machine: &MachineConfig, errors: &Path) -> Result<OwnedChild> {
    let stderr =
        File::create(errors).with_context(|| format!("cannot write {}", errors.display()))?;
    let mut command = machine.command()?;
    OwnedChild::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr))
}

fn console_settings(
    plan: &Plan,
    options: &RunOptions,
    folder: &RunFolder,
    begin: Instant,
) -> Settings {
    let source = match &plan.job {
        Some(Job::Command(_)) => Source::None,
        Some(Job::Shell { .. }) => Source::Keys,
        Some(Job::Script) => Source::Script,
        None if terminal::is_terminal(rustix::stdio::stdin()) => Source::Keys,
        None => Source::Raw,
    };
    // Bochs has no limit inside the VM.
    let limited = plan.machine.log.is_some() && plan.machine.engine != Engine::Bochs;
    let grace = if limited { GRACE } else { Duration::ZERO };
    let limit = options.timeout.map(Duration::from_secs);
    Settings {
        source,
        show: if options.exec.is_some() { Show::Command } else { Show::All },
        sink: if options.json { Sink::Kept } else { Sink::Stdout },
        nonce: plan.nonce.clone(),
        deadline: limit.and_then(|limit| begin.checked_add(limit.saturating_add(grace))),
        transcript: Some(folder.file("console.log")),
        waiting_for: Some("booting the guest"),
    }
}

/// Whether the co-kernel finds what it needs on a machine with KVM: boots it with nothing to do.
///
/// # Errors
/// The reason, in a few words.
pub fn cokernel_starts_with_kvm(
    image: &Path,
    options: &MachineOptions,
    folder: &RunFolder,
) -> Result<(), String> {
    let attempt = || -> Result<Option<i32>> {
        let path = folder.file("attempt.cpio");
        bundle::write(&path, &Manifest { version: FORMAT_VERSION, stages: Vec::new() }, &[])?;
        let machine = MachineConfig {
            engine: Engine::Qemu(Accelerator::Kvm),
            cpu: options.cpu.clone().unwrap_or_else(|| "host".into()),
            cpus: 1,
            memory_mib: 256,
            deterministic: false,
            boot: Boot::Kernel {
                kernel: image.into(),
                initrd: Some(path),
                command_line: String::new(),
            },
            log: Some(folder.file("attempt.log")),
        };
        let mut child = launch(&machine, &folder.file("attempt.stderr"))?;
        let status = child.wait_until(Instant::now() + Duration::from_secs(10))?;
        Ok(status.and_then(|status| status.code()))
    };
    match attempt() {
        Ok(Some(code)) if code == super::outcome::exit_status(machine_exit::DONE) => Ok(()),
        Ok(_) => Err("the co-kernel finds no usable virtualization there".into()),
        Err(error) => Err(format!("{error:#}")),
    }
}
