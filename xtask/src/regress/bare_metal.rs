// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows that run bare-metal guests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wire::RunReport;

use super::guest::Check;
use super::matrix::Cpu;
use super::table::Entry;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::platform::bochs::models::{self, Vendor};
use crate::run::options::Paging;
use crate::test::bare_metal::{self, Departures};
use crate::test::{Log, Tally};

/// Runs a guest, counts its tests and notes what the report says.
///
/// # Errors
/// What was wrong.
pub fn run(
    paths: &Paths,
    cpu: &Cpu,
    check: Option<Check>,
    entry: &mut Entry,
    log: &mut Log,
) -> Result<Tally> {
    let kernel = bare_metal::path(paths, entry.guest)?;
    let guest = bare_metal::rule(entry.guest);
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.json");
    let place = report.to_string_lossy();
    let mut options = vec!["--platform", cpu.platform.name(), "--cpu", cpu.model];
    options.extend(["--paging", cpu.paging.name(), "--apicv", cpu.apicv.name()]);
    options.extend(["--report", &place]);
    let limit = match cpu.platform {
        Platform::Qemu => {
            options.extend(["--accel", "tcg"]);
            options.extend(guest.icount.then_some("--icount"));
            Duration::from_secs(60)
        }
        Platform::Bochs => Duration::from_secs(240),
    };
    let begin = Instant::now();
    let departures = departures(cpu)?;
    let answer = bare_metal::invoke(guest, &kernel, departures, &options, limit, log)?;
    entry.seconds = begin.elapsed().as_secs_f64();
    let report = match std::fs::read(&report) {
        Ok(bytes) => Some(serde_json::from_slice::<RunReport>(&bytes)?),
        Err(_) => None,
    };
    if let Some(report) = &report {
        entry.note(report);
    }
    let tally = bare_metal::tally(&answer)?;
    if let Some(check) = check {
        check(report.as_ref().context("the run left no report")?)?;
    }
    Ok(tally)
}

/// What guests have to be told of a CPU.
fn departures(cpu: &Cpu) -> Result<Departures> {
    Ok(match cpu.platform {
        Platform::Qemu => match cpu.paging {
            Paging::Nested => Departures::Tcg,
            Paging::Shadow => Departures::TcgShadow,
        },
        Platform::Bochs => match models::find(cpu.model)?.vendor {
            Vendor::Amd => Departures::BochsSvm,
            Vendor::Intel => Departures::None,
        },
    })
}
