// SPDX-License-Identifier: MIT OR Apache-2.0
//! Detours as dots, as the papers show them: when each began, and how long it was.

use anyhow::Result;

use super::measure::{Sample, Settings};
use crate::bench::plot::scatter::{Panel, Scatter};
use crate::bench::results::grouped;

/// The picture: a row for each scenario, without and with the guest's tick.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(title: &str, samples: &[&Sample], settings: Settings<'_>) -> Result<String> {
    Scatter {
        title: title.to_owned(),
        right: "time in the span, milliseconds of the machine".into(),
        up: "duration of a detour, instructions".into(),
        end: settings.span_ms as f64,
        least: settings.threshold as f64,
        columns: 2,
        panels: samples.iter().map(|sample| panel(sample)).collect(),
    }
    .svg()
}

fn panel(sample: &Sample) -> Panel {
    let tick = if sample.span.tick.is_some() { "tick on" } else { "tick off" };
    let per_ms = sample.tsc_hz as f64 / 1000.0;
    Panel {
        title: format!("{}, {tick}", sample.scenario.title()),
        note: match sample.figures.detours {
            0 => "no detours".to_owned(),
            count => format!("{}, longest {}", grouped(count), grouped(sample.figures.longest)),
        },
        colour: sample.scenario.colour(),
        dots: sample
            .span
            .detours
            .iter()
            .map(|detour| (detour.start as f64 / per_ms, detour.duration as f64))
            .collect(),
    }
}
