// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often, and for how long, a computing guest is interrupted: on the bare machine, under
//! Alcazar, under Linux KVM, and under Alcazar beside a busy neighbour.
//!
//! The guest is a Selfish Detour benchmark, `benches/guests/src/noise`. Most scenarios run on a
//! QEMU machine with one CPU, whose time-stamp counter counts instructions by `-icount`. With
//! several CPUs QEMU would execute them in turn, a long slice each, and the counter would count
//! the others' slices: they would look like detours. So neighbours run on Bochs, which executes a
//! few instructions of each CPU in turn and lets time pass for all of them at once.
//!
//! By time, QEMU runs each CPU in a thread of its own, and all run there.

mod claims;
mod figures;
mod measure;
mod parse;
mod plot;
mod scenario;
mod table;
mod wall;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::place::{self, Job};
use super::results::Output;
use crate::paths::Paths;
use crate::platform::bochs::models::{self, Model, Vendor};
use crate::run::folder::RunFolder;
use measure::{Sample, Settings};
use scenario::Scenario;

/// The guest.
const GUEST: &str = "bench-noise";

/// How often, and for how long, a computing guest is interrupted
///
/// On the bare emulated machine, under Alcazar and under Linux KVM, alone and with other work beside
/// it, on the same CPU (Linux) or on another one; each with the guest's own timer tick off and on.
/// Durations are instructions, by -icount or Bochs, or microseconds with --wall.
#[derive(Clone, Debug, Args)]
pub struct NoiseOptions {
    #[command(flatten)]
    pub output: Output,
    /// What to measure, separated by commas [default: all; with --wall, those of two CPUs]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub scenarios: Vec<Scenario>,
    /// Time for which the guest is watched, in milliseconds of the machine
    #[arg(long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub span: u64,
    /// Instructions between two samples of the guest above which something has come between
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "wall",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub threshold: u64,
    /// Timer interrupts of a guest with a tick, in a second of the machine
    #[arg(long, value_name = "HZ", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub tick: u64,
    /// CPU model of the Bochs machine of two CPUs
    #[arg(long, value_name = "MODEL", default_value = models::DEFAULT, conflicts_with = "wall")]
    pub cpu: String,
    /// Measure time instead of instructions, on QEMU machines of two CPUs: the scenarios in turn,
    /// several times, the bare machine first
    #[arg(long, visible_alias = "wall-clock")]
    pub wall: bool,
    /// How often, with --wall
    #[arg(long, value_name = "N", default_value_t = 5, requires = "wall",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Microseconds between two samples above which something has come between, with --wall
    #[arg(long, value_name = "US", default_value_t = 10, requires = "wall",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub wall_threshold: u64,
}

/// What is measured if nothing else is said.
const SCENARIOS: [Scenario; 8] = [
    Scenario::Bare,
    Scenario::Alcazar,
    Scenario::Kvm,
    Scenario::KvmBusy,
    Scenario::Alone,
    Scenario::Neighbour,
    Scenario::KvmAlone,
    Scenario::KvmNeighbour,
];

/// What there is to say against Alcazar's noise: nothing, if all is well.
///
/// # Errors
/// When the guest does not get through.
pub fn complaints(paths: &Paths) -> Result<Vec<String>> {
    let guest = place::guest(paths, GUEST)?;
    let model = models::find(models::DEFAULT)?;
    let settings = Settings { model, span_ms: 100, threshold: 50, tick_hz: 100, wall_hz: None };
    let samples = measure::run(paths, &guest, Scenario::Alcazar, settings)?;
    Ok(samples.iter().filter_map(claims::complaint).collect())
}

/// What a program gets.
#[derive(Serialize)]
struct Json<'a> {
    /// The unit of durations.
    unit: &'static str,
    samples: &'a [Sample],
}

/// What a program gets by time.
#[derive(Serialize)]
struct WallJson<'a> {
    /// The unit of durations in `samples`, of which there are `tsc_hz` in a second.
    unit: &'static str,
    rounds: u32,
    rows: &'a [wall::Row],
    /// Those of the last round.
    samples: &'a [Sample],
}

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a measurement fails or a file cannot be written.
pub fn run(paths: &Paths, options: &NoiseOptions) -> Result<()> {
    let model = models::find(&options.cpu)?;
    let scenarios = chosen(options, model)?;
    let guest = place::guest(paths, GUEST)?;
    let settings = Settings {
        model,
        span_ms: options.span,
        threshold: options.threshold,
        tick_hz: options.tick,
        wall_hz: None,
    };
    if options.wall {
        return by_time(paths, options, &guest, &scenarios, settings);
    }
    let mut samples = Vec::new();
    for &scenario in &scenarios {
        samples.extend(measure::run(paths, &guest, scenario, settings)?);
    }
    print!("{}", table::text(&samples));
    let json = Json { unit: "instructions", samples: &samples };
    options.output.figures(paths, "noise", &json)?;
    for (name, title, two_cpus) in [
        ("noise", "Detours of a computing guest", false),
        ("noise-neighbour", "Detours of a computing guest, and what a neighbour changes", true),
    ] {
        let shown: Vec<_> =
            samples.iter().filter(|sample| sample.scenario.has_two_cpus() == two_cpus).collect();
        if !shown.is_empty() {
            options.output.plot(paths, name, &plot::svg(title, &shown, settings)?)?;
        }
    }
    options.output.table(paths, "noise", &table::markdown(&samples))
}

/// The scenarios to be measured.
fn chosen(options: &NoiseOptions, model: &Model) -> Result<Vec<Scenario>> {
    let mut scenarios = options.scenarios.clone();
    if scenarios.is_empty() {
        let all: &[Scenario] = if options.wall { &wall::SCENARIOS } else { &SCENARIOS };
        // The runner's RAM disk has no modules for Intel CPUs.
        let is_there = |scenario: &Scenario| can_run(*scenario, model);
        scenarios = all.iter().copied().filter(is_there).collect();
    }
    for &scenario in &scenarios {
        ensure!(
            can_run(scenario, model),
            "--scenarios: '{}' needs a CPU model of AMD, since KVM runs with kvm-amd here: leave it \
             out or name another --cpu than {}",
            scenario.title(),
            model.name
        );
    }
    if options.wall && !scenarios.contains(&Scenario::Bare) {
        // What the others are compared with.
        scenarios.insert(0, Scenario::Bare);
    }
    Ok(scenarios)
}

/// Whether a scenario can run with this model of Bochs.
fn can_run(scenario: Scenario, model: &Model) -> bool {
    !(scenario.is_kvm() && scenario.has_two_cpus()) || model.vendor == Vendor::Amd
}

fn by_time(
    paths: &Paths,
    options: &NoiseOptions,
    guest: &Path,
    scenarios: &[Scenario],
    settings: Settings<'_>,
) -> Result<()> {
    let hz = wall_hz(paths, guest)?;
    let threshold = u64::try_from(u128::from(options.wall_threshold) * u128::from(hz) / 1_000_000)?;
    let settings = Settings { wall_hz: Some(hz), threshold, ..settings };
    let rounds = wall::measure(options.repeat, scenarios, |scenario| {
        measure::run(paths, guest, scenario, settings)
    })?;
    let rows = wall::rows(&rounds)?;
    print!("{}", wall::text(&rows, options.repeat));
    let last = rounds.last().context("nothing was run")?;
    let json =
        WallJson { unit: "ticks", rounds: options.repeat, rows: &rows, samples: last.as_slice() };
    options.output.figures(paths, "noise-wall", &json)?;
    let shown: Vec<_> = last.iter().collect();
    let title = "Detours of a computing guest, by time, in one of the rounds";
    options.output.plot(paths, "noise-wall", &plot::svg(title, &shown, settings)?)?;
    options.output.table(paths, "noise-wall", &wall::markdown(&rows))
}

/// The frequency of the time-stamp counter where that counts time, as the co-kernel finds it.
fn wall_hz(paths: &Paths, guest: &Path) -> Result<u64> {
    let job = Job { guest, words: "busy=1", memory_mib: 32, cpus: 1, deterministic: false };
    let outcome = place::alcazar(paths, job, wire::Paging::Nested, &RunFolder::create(paths)?)?;
    let hz = outcome.report.context("there is no run report")?.machine.tsc_hz;
    ensure!(hz >= 1_000_000, "the co-kernel finds a time-stamp counter of only {hz} Hz");
    Ok(hz)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: NoiseOptions,
    }

    fn options(line: &str) -> Result<NoiseOptions, clap::Error> {
        let words = std::iter::once("noise").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options)
    }

    fn chosen_by(line: &str) -> Result<Vec<Scenario>> {
        let options = options(line)?;
        chosen(&options, models::find(&options.cpu)?)
    }

    #[test]
    fn times_are_compared_with_the_bare_machine() {
        assert_eq!(chosen_by("").unwrap(), SCENARIOS);
        assert_eq!(chosen_by("--wall").unwrap(), wall::SCENARIOS);
        let with_bare = [Scenario::Bare, Scenario::KvmAlone];
        assert_eq!(chosen_by("--wall --scenarios kvm-alone").unwrap(), with_bare);
        assert_eq!(chosen_by("--scenarios kvm-alone").unwrap(), [Scenario::KvmAlone]);
    }

    #[test]
    fn kvm_runs_on_models_of_amd() {
        let on_intel = chosen_by("--cpu tigerlake").unwrap();
        assert_eq!(on_intel.len(), SCENARIOS.len() - 2, "{on_intel:?}");
        let error = chosen_by("--cpu tigerlake --scenarios kvm-neighbour").unwrap_err().to_string();
        assert!(error.contains("tigerlake") && error.contains("AMD"), "{error}");
    }

    #[test]
    fn instructions_and_times_have_options_of_their_own() {
        for line in
            ["--repeat 2", "--wall-threshold 5", "--wall --cpu zambezi", "--wall --threshold 9"]
        {
            assert!(options(line).is_err(), "{line}");
        }
        assert!(options("--wall --repeat 2 --wall-threshold 5 --span 9 --tick 50").is_ok());
    }
}
