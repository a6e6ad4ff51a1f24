// SPDX-License-Identifier: MIT OR Apache-2.0
//! Detours as dots, as the papers show them: when each began, and how long it was.

use anyhow::Result;

use super::measure::{Sample, Settings};
use super::wall;
use crate::bench::plot::scatter::{Panel, Scatter};
use crate::bench::results::grouped;

/// The picture: a row for each scenario, without and with the guest's tick. Durations are
/// instructions, or microseconds where the counter counts time.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(title: &str, samples: &[&Sample], settings: Settings<'_>) -> Result<String> {
    let is_time = settings.wall_hz.is_some();
    let duration = |ticks: u64, hz: u64| {
        if is_time { wall::microseconds(ticks, hz) } else { ticks as f64 }
    };
    let unit = if is_time { "microseconds" } else { "instructions" };
    let hz = settings.wall_hz.unwrap_or(1);
    Scatter {
        title: title.to_owned(),
        right: "time in the span, milliseconds of the machine".into(),
        up: format!("duration of a detour, {unit} (logarithmic)"),
        end: settings.span_ms as f64,
        threshold: duration(settings.threshold, hz),
        columns: 2,
        panels: samples.iter().map(|sample| panel(sample, &duration)).collect(),
    }
    .svg()
}

fn panel(sample: &Sample, duration: &dyn Fn(u64, u64) -> f64) -> Panel {
    let tick = if sample.span.tick.is_some() { "tick on" } else { "tick off" };
    let per_ms = sample.tsc_hz as f64 / 1000.0;
    let duration = |ticks| duration(ticks, sample.tsc_hz);
    Panel {
        title: format!("{}, {tick}", sample.scenario.title()),
        note: match sample.figures.detours {
            0 => "no detours".to_owned(),
            count => {
                let longest = duration(sample.figures.longest).round() as u64;
                format!("{} detours, longest {}", grouped(count), grouped(longest))
            }
        },
        colour: sample.scenario.colour(),
        dots: sample
            .span
            .detours
            .iter()
            .map(|detour| (detour.start as f64 / per_ms, duration(detour.duration)))
            .collect(),
    }
}
