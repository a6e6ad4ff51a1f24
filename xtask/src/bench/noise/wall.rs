// SPDX-License-Identifier: MIT OR Apache-2.0
//! Noise by time. What interrupts the host of the emulated machine is in these figures as well, so
//! the scenarios run in turn, several times, on the same machine, and of each figure the median is
//! given beside the smallest and the largest.

use anyhow::{Context, Result};
use serde::Serialize;

use super::measure::Sample;
use super::scenario::Scenario;
use crate::bench::layout;
use crate::bench::spread::Spread;

/// What is measured if nothing else is said, the bare machine first.
pub const SCENARIOS: [Scenario; 5] = [
    Scenario::Bare,
    Scenario::Alone,
    Scenario::Neighbour,
    Scenario::KvmAlone,
    Scenario::KvmNeighbour,
];

/// How often a scenario is tried in which the host did not run the neighbour all the while.
const ATTEMPTS: u32 = 3;

/// One scenario with one kind of tick.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub scenario: Scenario,
    /// Whether the guest's timer ticks.
    pub tick: bool,
    /// Detours in a second.
    pub per_second: Spread,
    /// The longest one, in microseconds.
    pub longest_us: Spread,
    /// Share of the span that was lost in detours, in per cent.
    pub lost_per_cent: Spread,
    /// How often the guest went through its loop, as a part of that on the bare machine in the same
    /// round.
    pub pace_of_bare: Option<Spread>,
    /// The same as a part of that without work on the other CPU, where there is some.
    pub pace_of_alone: Option<Spread>,
}

/// All scenarios in turn, so many times, with what `measure` gives.
///
/// # Errors
/// When a scenario fails again and again.
pub fn measure(
    repeat: u32,
    scenarios: &[Scenario],
    measure: impl Fn(Scenario) -> Result<Vec<Sample>>,
) -> Result<Vec<Vec<Sample>>> {
    let round = |number| {
        eprintln!("round {number} of {repeat}");
        let samples: Result<Vec<_>> =
            scenarios.iter().map(|&scenario| persistent(|| measure(scenario))).collect();
        Ok(samples?.concat())
    };
    (1..=repeat).map(round).collect()
}

/// Tries again what has failed.
fn persistent<T>(run: impl Fn() -> Result<T>) -> Result<T> {
    for attempt in 1..ATTEMPTS {
        match run() {
            Err(error) => eprintln!("attempt {attempt} of {ATTEMPTS}: {error:#}"),
            result => return result,
        }
    }
    run()
}

/// The figures of all rounds, by scenario and tick in the order of the first round.
///
/// # Errors
/// When a round lacks a scenario.
pub fn rows(rounds: &[Vec<Sample>]) -> Result<Vec<Row>> {
    let first = rounds.first().context("nothing was run")?;
    first.iter().map(|sample| row(rounds, sample.scenario, sample.span.tick.is_some())).collect()
}

fn row(rounds: &[Vec<Sample>], scenario: Scenario, tick: bool) -> Result<Row> {
    let of = |figure: &dyn Fn(&Sample) -> f64| {
        let all: Option<Vec<_>> =
            rounds.iter().map(|round| find(round, scenario, tick).map(figure)).collect();
        all.and_then(Spread::of).with_context(|| format!("{} is missing", scenario.title()))
    };
    let compared = |with: Scenario| {
        let ratio = |round: &Vec<Sample>| {
            Some(pace(find(round, scenario, tick)?) / pace(find(round, with, tick)?))
        };
        Spread::of(rounds.iter().map(ratio).collect::<Option<_>>()?)
    };
    Ok(Row {
        scenario,
        tick,
        per_second: of(&|sample| sample.figures.per_second)?,
        longest_us: of(&|sample| microseconds(sample.figures.longest, sample.tsc_hz))?,
        lost_per_cent: of(&|sample| sample.figures.lost * 100.0)?,
        pace_of_bare: compared(Scenario::Bare),
        pace_of_alone: scenario.alone().and_then(compared),
    })
}

fn find(round: &[Sample], scenario: Scenario, tick: bool) -> Option<&Sample> {
    round.iter().find(|sample| sample.scenario == scenario && sample.span.tick.is_some() == tick)
}

/// Rounds of the guest's loop per tick.
fn pace(sample: &Sample) -> f64 {
    sample.span.samples as f64 / sample.span.length.max(1) as f64
}

/// Ticks as time.
pub fn microseconds(ticks: u64, tsc_hz: u64) -> f64 {
    ticks as f64 * 1e6 / tsc_hz.max(1) as f64
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let head = [
        "scenario",
        "guest's tick",
        "detours per second",
        "longest, µs",
        "time lost, %",
        "pace / bare machine",
        "pace / alone",
    ];
    let ratio = |spread: Option<Spread>| spread.map_or("–".into(), |spread| spread.text(2));
    let line = |row: &Row| {
        vec![
            row.scenario.title().to_owned(),
            if row.tick { "on" } else { "off" }.to_owned(),
            row.per_second.text(0),
            row.longest_us.text(0),
            row.lost_per_cent.text(2),
            ratio(row.pace_of_bare),
            ratio(row.pace_of_alone),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows.iter().map(line)).collect()
}

/// For a terminal.
pub fn text(rows: &[Row], repeat: u32) -> String {
    let mut text = layout::text(&cells(rows));
    text.push_str(&format!(
        "median of {repeat} rounds, smallest and largest; pace: how often the guest went through its \
         loop\ntimes of an emulated machine, with what else its host does: compare the rows, not \
         runs\n"
    ));
    text
}

/// For the book.
pub fn markdown(rows: &[Row]) -> String {
    layout::markdown(&cells(rows))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::{bail, ensure};

    use super::*;
    use crate::bench::noise::figures::Figures;
    use crate::bench::noise::parse::{Detour, Span};

    const HZ: u64 = 2_000_000;

    fn sample(scenario: Scenario, tick: bool, samples: u64, detours: &[u64]) -> Sample {
        let detours = detours.iter().map(|&duration| Detour { start: 0, duration }).collect();
        let tick = tick.then_some(10);
        let span = Span { tick, length: HZ, samples, shortest: 1, timer_ticks: 0, detours };
        let figures = Figures::new(&span, HZ);
        Sample { scenario, tsc_hz: HZ, figures, exits: None, neighbour_exits: None, span }
    }

    /// A round in which the host runs the machine so fast.
    fn round(pace: u64, detour: u64) -> Vec<Sample> {
        vec![
            sample(Scenario::Bare, false, 100 * pace, &[]),
            sample(Scenario::Alone, false, 90 * pace, &[detour]),
            sample(Scenario::Neighbour, false, 45 * pace, &[detour, 3 * detour]),
        ]
    }

    #[test]
    fn paces_are_compared_within_a_round() {
        let rows = rows(&[round(1, 2000), round(7, 4000), round(3, 40)]).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].pace_of_bare.unwrap().text(2), "1.00 (1.00–1.00)");
        assert_eq!(rows[1].pace_of_bare.unwrap().text(2), "0.90 (0.90–0.90)");
        assert_eq!(rows[2].pace_of_alone.unwrap().text(2), "0.50 (0.50–0.50)");
        assert_eq!(rows[1].pace_of_alone, None);
        assert_eq!(rows[2].longest_us, Spread { min: 60.0, median: 3000.0, max: 6000.0 });
        let line = "| `Alcazar, 2 CPUs, alone` | off | 1 (1–1) | 1000 (20–2000) \
                    | 0.10 (0.00–0.20) | 0.90 (0.90–0.90) | – |";
        assert!(markdown(&rows).contains(line), "{}", markdown(&rows));
    }

    #[test]
    fn ticks_are_told_apart_and_nothing_may_be_missing() {
        let mut rounds = [round(1, 10), round(1, 10)];
        rounds[0].push(sample(Scenario::Bare, true, 50, &[7]));
        assert!(rows(&rounds).unwrap_err().to_string().contains("bare machine is missing"));
        rounds[1].push(sample(Scenario::Bare, true, 50, &[7]));
        let rows = rows(&rounds).unwrap();
        assert_eq!((rows[0].per_second.max, rows[3].per_second.max), (0.0, 1.0));
        assert!(super::rows(&[]).is_err());
    }

    #[test]
    fn what_fails_is_tried_again() {
        let calls = Cell::new(0);
        let measured = measure(2, &[Scenario::Bare, Scenario::Alone], |scenario| {
            calls.set(calls.get() + 1);
            ensure!(calls.get() != 2, "the neighbour was not busy");
            Ok(vec![sample(scenario, false, 1, &[])])
        });
        assert_eq!(measured.unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(calls.get(), 5);
        calls.set(0);
        let failed = measure(1, &[Scenario::Bare], |_| {
            calls.set(calls.get() + 1);
            bail!("no machine")
        });
        assert!(failed.is_err());
        assert_eq!(calls.get(), ATTEMPTS);
    }
}
