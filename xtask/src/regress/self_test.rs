// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows in which Linux looks at its machine from inside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wire::{EndKind, RunReport};

use super::Effort;
use super::guest::{LastAct, SelfTest};
use super::matrix::Cpu;
use super::table::Entry;
use crate::platform::Platform;
use crate::run::outcome::FAILED;
use crate::test::{Invocation, Log, Tally};

/// Beyond the time of a storm, for all the rest.
const QEMU_SECONDS: u64 = 240;
const BOCHS_SECONDS: u64 = 500;

/// Runs the tests in a guest, lets it end itself, and counts.
///
/// # Errors
/// What was wrong.
pub fn run(
    cpu: &Cpu,
    guest: &SelfTest,
    effort: Effort,
    entry: &mut Entry,
    log: &mut Log,
) -> Result<Tally> {
    let tests = guest.tests.replace("SECONDS", &effort.storm.to_string());
    let then = if guest.last_act == LastAct::Reboot { "; reboot -f" } else { "" };
    let command = format!("self-test {tests}{then}");
    let (accelerator, timeout): (&[&str], u64) = match cpu.platform {
        Platform::Qemu => (&["--accel", "tcg"], QEMU_SECONDS + effort.storm),
        Platform::Bochs => (&[], BOCHS_SECONDS),
    };
    let (seconds, memory) = (timeout.to_string(), guest.memory_mib.to_string());
    let vcpus = guest.vcpus.to_string();
    let mut options = vec!["run", "--json", "--self-test", "--timeout", &seconds];
    options.extend(["--platform", cpu.platform.name(), "--cpu", cpu.model]);
    options.extend(["--paging", cpu.paging.name(), "--mem", &memory, "--smp", &vcpus]);
    options.extend(["--exec", &command]);
    options.extend(accelerator);
    let limit = Duration::from_secs(timeout + 60);
    let answer = Invocation::xtask(options)?.limit(limit).run(log)?;
    let json: serde_json::Value =
        serde_json::from_str(&answer.stdout).context("the run gave no result")?;
    entry.seconds = json["seconds"].as_f64().unwrap_or_default();
    let report: RunReport = serde_json::from_value(json["report"].clone())
        .with_context(|| format!("there is no report: {}", json["error"]))?;
    entry.note(&report);
    let output = json["output"].as_str().unwrap_or_default();
    log.line(output);
    let tally = crate::test::count(output)?;
    let end = report.vms.last().context("the report has no VM")?.end.kind;
    let (status, expected) = match guest.last_act {
        LastAct::PowerOff => (i32::from(tally.failed > 0), EndKind::PowerOff),
        // The command does not live to give its status.
        LastAct::Reboot => (i32::from(FAILED), EndKind::Reset),
    };
    answer.expect_status(status)?;
    ensure!(end == expected, "the guest ended by {end:?}, expected {expected:?}");
    Ok(tally)
}
