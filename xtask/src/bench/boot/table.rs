// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of boots as a table and as a picture.

use anyhow::Result;

use super::{Boot, Figures};
use crate::bench::layout;
use crate::bench::place::Place;
use crate::bench::plot::bars::{Bars, Group, Layout, Series};
use crate::bench::plot::{palette, scale};
use crate::bench::results::grouped;

/// A row: its name, its figure, and what the ratio of Alcazar's to the bare machine's should not
/// exceed.
struct Row {
    name: &'static str,
    figure: fn(&Boot) -> Option<u64>,
    target: Option<f64>,
}

const ROWS: [Row; 5] = [
    Row { name: "kernel-to-init", figure: |boot| Some(boot.ticks), target: Some(1.05) },
    Row { name: "guest-clock-at-init", figure: |boot| Some(boot.clock), target: Some(0.90) },
    Row { name: "creation-to-first-entry", figure: |boot| boot.creation, target: None },
    Row { name: "cokernel-to-ready", figure: |boot| boot.ready, target: None },
    Row { name: "exits", figure: |boot| boot.exits, target: None },
];

impl Row {
    fn of(&self, figures: &Figures, place: Place) -> Option<u64> {
        (self.figure)(figures.boots.get(&place)?)
    }

    fn ratio(&self, figures: &Figures, place: Place) -> Option<f64> {
        let bare = self.of(figures, Place::Bare).filter(|&bare| bare > 0)?;
        Some(self.of(figures, place)? as f64 / bare as f64)
    }
}

fn cells(figures: &Figures) -> Vec<Vec<String>> {
    let places = || figures.boots.keys().copied();
    let others = || places().filter(|&place| place != Place::Bare);
    let dash = || "–".to_owned();
    let ratio = |ratio: f64| format!("{ratio:.3}");
    let mut head = vec!["boot".to_owned()];
    head.extend(places().map(|place| place.title().to_owned()));
    head.extend(others().map(|place| format!("{} / bare", place.title())));
    head.push("target".to_owned());
    let line = |row: &Row| {
        let mut line = vec![row.name.to_owned()];
        line.extend(places().map(|place| row.of(figures, place).map_or_else(dash, grouped)));
        line.extend(others().map(|place| row.ratio(figures, place).map_or_else(dash, ratio)));
        line.push(row.target.map_or_else(dash, |target| format!("≤ {target:.2}")));
        line
    };
    std::iter::once(head).chain(ROWS.iter().map(line)).collect()
}

/// For a terminal.
pub fn text(figures: &Figures) -> String {
    format!(
        "{}instructions, and nanoseconds of the guest's clock; the target is for Alcazar / bare\n\
         not counted: {} instructions of firmware on the bare machine\n",
        layout::text(&cells(figures)),
        grouped(figures.bare_firmware)
    )
}

/// For the book.
pub fn markdown(figures: &Figures) -> String {
    layout::markdown(&cells(figures))
}

/// The first two rows as bars.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(figures: &Figures) -> Result<String> {
    let places: Vec<Place> = figures.boots.keys().copied().collect();
    let series =
        |place: &Place| Series { name: place.title().to_owned(), colour: palette::of(*place) };
    let group = |(row, name): (&Row, &str)| {
        let value = |&place| row.of(figures, place).map(|value| (value as f64 / 1e6).round());
        Group::new(name, places.iter().map(value).collect())
    };
    let names = ["kernel entry to /init", "guest's clock at /init"];
    Bars {
        title: "Boot of the Debian kernel".into(),
        axis: "millions of instructions (above), milliseconds of the guest's clock (below)".into(),
        scale: scale::Kind::Linear,
        digits: 0,
        layout: Layout::Grouped,
        series: places.iter().map(series).collect(),
        groups: ROWS.iter().zip(names).map(group).collect(),
        mark: None,
    }
    .svg()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figures() -> Figures {
        let bare = Boot { ticks: 2_000_000, clock: 1000, ..Boot::default() };
        let alcazar = Boot {
            ticks: 1_900_000,
            clock: 850,
            creation: Some(7000),
            ready: Some(6000),
            exits: Some(5),
        };
        Figures {
            unit: "instructions",
            boots: BTreeMap::from([(Place::Bare, bare), (Place::Alcazar, alcazar)]),
            bare_firmware: 123_456,
        }
    }

    #[test]
    fn targets_stand_beside_the_ratios() {
        let markdown = markdown(&figures());
        for line in [
            "| `kernel-to-init` | 2,000,000 | 1,900,000 | 0.950 | ≤ 1.05 |",
            "| `guest-clock-at-init` | 1,000 | 850 | 0.850 | ≤ 0.90 |",
            "| `creation-to-first-entry` | – | 7,000 | – | – |",
        ] {
            assert!(markdown.contains(line), "{markdown}");
        }
        assert!(text(&figures()).contains("123,456"));
    }

    #[test]
    fn the_picture_names_both_places() {
        let svg = svg(&figures()).unwrap();
        assert!(svg.contains("Alcazar") && svg.contains("bare machine"), "{svg}");
    }
}
