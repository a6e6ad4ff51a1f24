// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows that boot Linux.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::RunReport;

use super::guest::{Linux, Task};
use super::matrix::Cpu;
use super::table::Entry;
use crate::image;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::test::{Invocation, Log, Tally};

/// What is asked of the guest: how many CPUs it has, and whether its kernel complains.
const COMMAND: &str = "nproc; dmesg | grep -E 'BUG|Oops|Call Trace|rcu:.*stall'; true";

const NO_TASK: &Task = &Task { options: &[], command: "", output: "", check: |_| Ok(()) };

/// Boots the guest and looks around in it.
///
/// # Errors
/// What was wrong.
pub fn run(
    paths: &Paths,
    cpu: &Cpu,
    guest: &Linux,
    entry: &mut Entry,
    log: &mut Log,
) -> Result<Tally> {
    let kernel = match guest.elf {
        true => image::vmlinux(paths, guest.package)?,
        false => image::kernel(paths, guest.package)?,
    };
    let kernel = kernel.to_string_lossy();
    let (accelerator, timeout): (&[&str], u64) = match cpu.platform {
        Platform::Qemu => (&["--accel", "tcg"], 180),
        Platform::Bochs => (&[], 480),
    };
    let seconds = timeout.to_string();
    let mut options = vec!["run", "--json", "--timeout", &seconds];
    options.extend(["--platform", cpu.platform.name(), "--cpu", cpu.model]);
    options.extend(["--paging", cpu.paging.name(), "--apicv", cpu.apicv.name()]);
    options.extend(["--kernel", &kernel]);
    let (task, command) = match guest.task {
        Some(task) => (task, format!("{}; {COMMAND}", task.command)),
        None => (NO_TASK, COMMAND.to_owned()),
    };
    options.extend(["--mem", guest.memory_mib, "--smp", guest.vcpus, "--exec", &command]);
    options.extend(task.options);
    options.extend(accelerator);
    let limit = Duration::from_secs(timeout + 60);
    let answer = Invocation::xtask(options)?.limit(limit).run(log)?;
    let json: serde_json::Value =
        serde_json::from_str(&answer.stdout).context("the run gave no result")?;
    entry.seconds = json["seconds"].as_f64().unwrap_or_default();
    let report = serde_json::from_value::<RunReport>(json["report"].clone());
    if let Ok(report) = &report {
        entry.note(report);
    }
    answer.expect_status(0)?;
    let expected = format!("{}{}\n", task.output, guest.vcpus);
    let output = json["output"].as_str().unwrap_or_default();
    ensure!(output == expected, "the guest says {output:?}, expected {expected:?}");
    (task.check)(&report.context("the run left no report")?)?;
    Ok(Tally::ONE)
}
