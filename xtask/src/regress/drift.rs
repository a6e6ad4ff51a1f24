// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows that compare a guest's clocks with the host's.
//!
//! The guest prints for each clock how far it got while the time-stamp counter made so many
//! ticks. These rows run where the time-stamp counter has a rate that is known exactly, because
//! it counts instructions: so a busy machine spoils no measurement, and what the co-kernel
//! measured the rate to be at its start is itself under test.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wire::RunReport;

use super::Effort;
use super::guest::Observer;
use super::matrix::Cpu;
use super::table::Entry;
use crate::paths::Paths;
use crate::platform::{Platform, bochs::config as bochs, qemu};
use crate::test::{Answer, Invocation, Log, Tally, bare_metal};

/// What a clock may be off by, in parts per million.
const MOST_PPM: f64 = 100.0;

/// Name under which the co-kernel's own idea of time is listed.
const HOST: &str = "host";

/// How much a clock drifts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Drift {
    /// Name of the clock.
    pub clock: String,
    /// How much faster it is than the host's, in parts per million.
    pub ppm: f64,
}

/// Runs the guest and compares.
///
/// # Errors
/// What was wrong, the first clock that drifts too much among it.
pub fn run(
    paths: &Paths,
    cpu: &Cpu,
    observer: Observer,
    effort: Effort,
    entry: &mut Entry,
    log: &mut Log,
) -> Result<Tally> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("report.json");
    let begin = Instant::now();
    let answer = invoke(paths, cpu, observer, effort, &place.to_string_lossy(), log)?;
    entry.seconds = begin.elapsed().as_secs_f64();
    let tally = bare_metal::tally(&answer)?;
    let report = std::fs::read(&place).context("the run left no report")?;
    let report: RunReport = serde_json::from_slice(&report)?;
    entry.note(&report);
    let hertz = match cpu.platform {
        Platform::Qemu => qemu::DETERMINISTIC_TSC_HZ,
        Platform::Bochs => u64::from(bochs::INSTRUCTIONS_PER_SECOND),
    };
    entry.clocks = drifts(&answer.stdout, hertz)?;
    // A rate that is believed to be too high makes time go too slowly.
    let host = ppm(hertz as f64, report.machine.tsc_hz as f64);
    entry.clocks.push(Drift { clock: HOST.into(), ppm: host });
    for Drift { clock, ppm } in &entry.clocks {
        log.line(format!("{clock}: {ppm:+.2} ppm"));
    }
    for needed in observer.clocks() {
        let found = entry.clocks.iter().any(|drift| drift.clock == *needed);
        ensure!(found, "the guest says nothing of the clock '{needed}'");
    }
    let worst = entry.clocks.iter().find(|drift| drift.ppm.is_nan() || drift.ppm.abs() > MOST_PPM);
    if let Some(Drift { clock, ppm }) = worst {
        anyhow::bail!(
            "the clock '{clock}' drifts by {ppm:+.1} ppm, at most {MOST_PPM} are allowed"
        );
    }
    let clocks = u32::try_from(entry.clocks.len())?;
    Ok(Tally { passed: tally.passed + clocks, ..tally })
}

fn invoke(
    paths: &Paths,
    cpu: &Cpu,
    observer: Observer,
    effort: Effort,
    report: &str,
    log: &mut Log,
) -> Result<Answer> {
    let (deterministic, timeout): (&[&str], u64) = match cpu.platform {
        Platform::Qemu => (&["--accel", "tcg", "--icount"], 600),
        Platform::Bochs => (&[], 500),
    };
    let limit = timeout.to_string();
    let mut options = vec!["run", "--timeout", &limit, "--report", report];
    options.extend(["--platform", cpu.platform.name(), "--cpu", cpu.model]);
    options.extend(["--paging", cpu.paging.name()]);
    options.extend(deterministic);
    let seconds = effort.clocks;
    let (kernel, command);
    match observer {
        Observer::BareMetal => {
            kernel = bare_metal::path(paths, "drift")?;
            command = format!("tcg seconds={seconds}");
            let kernel = kernel.to_string_lossy();
            options.extend(["--mem", "64", "--kernel", &kernel, "--append", &command]);
            let limit = Duration::from_secs(timeout + 60);
            Invocation::xtask(options)?.limit(limit).run(log)
        }
        Observer::Linux => {
            command = format!("self-test clock seconds={seconds}");
            options.extend(["--mem", "256", "--self-test", "--exec", &command]);
            let limit = Duration::from_secs(timeout + 60);
            Invocation::xtask(options)?.limit(limit).run(log)
        }
    }
}

/// What the guest's lines say, if the time-stamp counter makes `hertz` ticks a second.
fn drifts(output: &str, hertz: u64) -> Result<Vec<Drift>> {
    output.lines().filter_map(measurement).map(|m| m.drift(hertz)).collect()
}

/// A line of the guest.
struct Measurement<'a> {
    clock: &'a str,
    nanoseconds: &'a str,
    ticks: &'a str,
}

/// Reads `clock NAME: N ns in M ticks`.
fn measurement(line: &str) -> Option<Measurement<'_>> {
    let (clock, rest) = line.trim().strip_prefix("clock ")?.split_once(": ")?;
    let (nanoseconds, rest) = rest.split_once(" ns in ")?;
    Some(Measurement { clock, nanoseconds, ticks: rest.strip_suffix(" ticks")? })
}

impl Measurement<'_> {
    fn drift(&self, hertz: u64) -> Result<Drift> {
        let Self { clock, nanoseconds, ticks } = self;
        let number = |text: &str| -> Result<f64> {
            let number: u64 = text.parse().with_context(|| format!("clock {clock}: '{text}'"))?;
            ensure!(number > 0, "the clock '{clock}' stands still");
            Ok(number as f64)
        };
        let by_clock = number(nanoseconds)? / 1e9;
        let by_host = number(ticks)? / hertz as f64;
        Ok(Drift { clock: (*clock).to_owned(), ppm: ppm(by_clock, by_host) })
    }
}

/// By how much `value` is larger than `reference`.
fn ppm(value: f64, reference: f64) -> f64 {
    (value / reference - 1.0) * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_fast_has_a_positive_drift() {
        let output = "ok tsc\r\nclock hpet: 60006000000 ns in 60000000000 ticks\r\n\
                      clock rtc: 59000000000 ns in 59000000000 ticks\n2 passed, 0 failed\n";
        let found = drifts(output, 1_000_000_000).unwrap();
        let names: Vec<&str> = found.iter().map(|drift| drift.clock.as_str()).collect();
        assert_eq!(names, ["hpet", "rtc"]);
        assert!((found[0].ppm - 100.0).abs() < 0.01 && found[1].ppm.abs() < 0.01, "{found:?}");
    }

    #[test]
    fn a_clock_that_stands_still_is_an_error() {
        for line in ["clock pit: 0 ns in 7 ticks", "clock pit: 7 ns in 0 ticks"] {
            let error = drifts(line, 1).unwrap_err().to_string();
            assert_eq!(error, "the clock 'pit' stands still");
        }
        assert!(drifts("clock pit: x ns in 7 ticks", 1).is_err());
    }
}
