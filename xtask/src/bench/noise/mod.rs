// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often, and for how long, a computing guest is interrupted: on the bare machine, under
//! Alcazar, under Linux KVM, and under Alcazar beside a busy neighbour.
//!
//! The guest is a Selfish Detour benchmark, `benches/guests/src/noise`. Most scenarios run on a
//! QEMU machine with one CPU, whose time-stamp counter counts instructions by `-icount`. With
//! several CPUs QEMU would execute them in turn, a long slice each, and the counter would count
//! the others' slices: they would look like detours. So neighbours run on Bochs, which executes a
//! few instructions of each CPU in turn and lets time pass for all of them at once.

mod claims;
mod figures;
mod measure;
mod parse;
mod plot;
mod scenario;
mod table;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::place;
use super::results::Output;
use crate::paths::Paths;
use crate::platform::bochs::models;
use measure::{Sample, Settings};
use scenario::Scenario;

/// The guest.
const GUEST: &str = "bench-noise";

/// Compares how often, and for how long, a computing guest is interrupted: on the bare emulated
/// machine, under Alcazar, under Linux KVM with an idle and a busy Linux, and under Alcazar beside
/// a busy VM; each with the guest's own timer tick off and on.
#[derive(Clone, Debug, Args)]
pub struct NoiseOptions {
    #[command(flatten)]
    pub output: Output,
    /// What to measure, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = SCENARIOS)]
    pub scenarios: Vec<Scenario>,
    /// Time for which the guest is watched, in milliseconds of the machine
    #[arg(long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub span: u64,
    /// Instructions between two samples of the guest above which something has come between
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub threshold: u64,
    /// Timer interrupts of a guest with a tick, in a second of the machine
    #[arg(long, value_name = "HZ", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub tick: u64,
    /// CPU model of the Bochs machine of two CPUs
    #[arg(long, value_name = "MODEL", default_value = models::DEFAULT)]
    pub cpu: String,
}

/// What is measured if nothing else is said.
const SCENARIOS: [Scenario; 6] = [
    Scenario::Bare,
    Scenario::Alcazar,
    Scenario::Kvm,
    Scenario::KvmBusy,
    Scenario::Alone,
    Scenario::Neighbour,
];

/// What there is to say against Alcazar's noise: nothing, if all is well.
///
/// # Errors
/// When the guest does not get through.
pub fn complaints(paths: &Paths) -> Result<Vec<String>> {
    let guest = place::guest(paths, GUEST)?;
    let settings = Settings { model: models::DEFAULT, span_ms: 100, threshold: 50, tick_hz: 100 };
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

/// Measures, prints and writes what was asked for.
///
/// # Errors
/// When a measurement fails or a file cannot be written.
pub fn run(paths: &Paths, options: &NoiseOptions) -> Result<()> {
    models::find(&options.cpu)?;
    let guest = place::guest(paths, GUEST)?;
    let settings = Settings {
        model: &options.cpu,
        span_ms: options.span,
        threshold: options.threshold,
        tick_hz: options.tick,
    };
    let mut samples = Vec::new();
    for &scenario in &options.scenarios {
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
