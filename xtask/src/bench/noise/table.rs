// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of noise, for a terminal and for the book.

use super::measure::{Exits, Sample};
use crate::bench::layout;
use crate::bench::results::grouped;

const HEAD: [&str; 8] = [
    "scenario",
    "guest's tick",
    "timer ticks",
    "detours",
    "per second",
    "longest",
    "time lost",
    "exits in the span",
];

/// Heads and lines.
fn cells(samples: &[Sample]) -> Vec<Vec<String>> {
    let line = |sample: &Sample| {
        let Sample { scenario, figures, exits, span, .. } = sample;
        vec![
            scenario.title().to_owned(),
            if span.tick.is_some() { "on" } else { "off" }.to_owned(),
            grouped(span.timer_ticks),
            grouped(figures.detours),
            format!("{:.0}", figures.per_second),
            grouped(figures.longest),
            format!("{:.4} %", figures.lost * 100.0),
            exits.as_ref().map_or("–".into(), told),
        ]
    };
    let head = HEAD.map(str::to_owned).to_vec();
    std::iter::once(head).chain(samples.iter().map(line)).collect()
}

/// How many, and of what kinds.
fn told(exits: &Exits) -> String {
    let sum: u64 = exits.values().sum();
    let kinds: Vec<_> =
        exits.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect();
    if kinds.is_empty() {
        "0".to_owned()
    } else {
        format!("{}: {}", grouped(sum), kinds.join(", "))
    }
}

/// For a terminal.
pub fn text(samples: &[Sample]) -> String {
    let mut text = layout::text(&cells(samples));
    text.push_str("longest: in instructions; seconds are those of the emulated machine\n");
    for exits in samples.iter().filter_map(|sample| sample.neighbour_exits) {
        text.push_str(&format!("exits of a busy neighbour: {}\n", grouped(exits)));
    }
    text
}

/// For the book.
pub fn markdown(samples: &[Sample]) -> String {
    layout::markdown(&cells(samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::noise::figures::Figures;
    use crate::bench::noise::parse::{Detour, Span};
    use crate::bench::noise::scenario::Scenario;

    fn sample(scenario: Scenario, detours: &[u64], exits: Option<Exits>) -> Sample {
        let span = Span {
            tick: (!detours.is_empty()).then_some(1),
            length: 1_000_000,
            samples: 9,
            shortest: 1,
            timer_ticks: 2,
            detours: detours.iter().map(|&duration| Detour { start: 0, duration }).collect(),
        };
        let figures = Figures::new(&span, scenario.tsc_hz());
        let tsc_hz = scenario.tsc_hz();
        Sample { scenario, tsc_hz, figures, exits, neighbour_exits: None, span }
    }

    #[test]
    fn a_line_says_what_was_lost_and_why() {
        let exits = [("write_msr".to_owned(), 2), ("host_interrupt".to_owned(), 1200)].into();
        let samples = [
            sample(Scenario::Alcazar, &[], Some(Exits::new())),
            sample(Scenario::Alcazar, &[1500, 2500], Some(exits)),
            sample(Scenario::Bare, &[70], None),
        ];
        let markdown = markdown(&samples);
        let lines = [
            "| `Alcazar` | off | 2 | 0 | 0 | 0 | 0.0000 % | 0 |",
            "| `Alcazar` | on | 2 | 2 | 2000 | 2,500 | 0.4000 % \
             | 1,202: 1,200 host_interrupt, 2 write_msr |",
            "| `bare machine` | on | 2 | 1 | 1000 | 70 | 0.0070 % | – |",
        ];
        for line in lines {
            assert!(markdown.contains(line), "{line} is missing in\n{markdown}");
        }
    }
}
