// SPDX-License-Identifier: MIT OR Apache-2.0
//! Computations by time. Times of an emulated machine mean little by themselves and change with
//! what else its host does; so the places run in turn, several times, of each run the shortest round
//! counts, which was disturbed least, it is compared with that of the bare machine just before, and
//! of these ratios the median is given.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Column, PLACES, agree};
use crate::bench::layout;
use crate::bench::place::Place;
use crate::bench::plot::bars::{Bars, Group, Layout, Series};
use crate::bench::plot::{palette, scale};
use crate::bench::spread::Spread;

/// Ratios to the bare machine's time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// Where.
    pub place: Place,
    /// Of all rounds.
    #[serde(flatten)]
    pub spread: Spread,
}

/// One operation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The guest's name for it.
    pub name: String,
    /// By place, without the bare machine.
    pub ratios: Vec<Ratio>,
}

/// All places in turn, so many times, with what `measure` gives.
///
/// # Errors
/// When a measurement fails or results differ.
pub fn measure(repeat: u32, measure: impl Fn(Place) -> Result<Column>) -> Result<Vec<Vec<Column>>> {
    let round = |number| {
        eprintln!("round {number} of {repeat}");
        let columns = PLACES.into_iter().map(&measure).collect::<Result<Vec<_>>>()?;
        agree(&columns)?;
        Ok(columns)
    };
    (1..=repeat).map(round).collect()
}

/// The ratios of all rounds, by operation.
///
/// # Errors
/// When a place lacks an operation.
pub fn rows(rounds: &[Vec<Column>]) -> Result<Vec<Row>> {
    let first = rounds.first().and_then(|columns| columns.first()).context("nothing was run")?;
    let row = |(name, _): &(String, _)| {
        let ratios = (1..PLACES.len()).map(|index| ratio(rounds, index, name));
        Ok(Row { name: name.clone(), ratios: ratios.collect::<Result<_>>()? })
    };
    first.rows.iter().map(row).collect()
}

fn ratio(rounds: &[Vec<Column>], index: usize, name: &str) -> Result<Ratio> {
    let one = |columns: &Vec<Column>| {
        let time = |index: usize| columns.get(index)?.row(name).map(|row| row.min as f64);
        Some(time(index)? / time(0).filter(|&bare| bare > 0.0)?)
    };
    let all: Option<Vec<f64>> = rounds.iter().map(one).collect();
    let spread = all.and_then(Spread::of);
    let spread = spread.with_context(|| format!("{name} was not measured everywhere"))?;
    let place = PLACES.get(index).copied().context("there is no such place")?;
    Ok(Ratio { place, spread })
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let mut head = vec!["operation".to_owned()];
    head.extend(PLACES.iter().skip(1).map(|place| format!("{} / bare machine", place.title())));
    let line = |row: &Row| {
        let ratio = |ratio: &Ratio| ratio.spread.text(2);
        std::iter::once(row.name.clone()).chain(row.ratios.iter().map(ratio)).collect()
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

/// For a terminal.
pub fn text(rows: &[Row], repeat: u32) -> String {
    let mut text = layout::text(&cells(rows));
    text.push_str(&format!("median of {repeat} ratios of times, smallest and largest\n"));
    text
}

/// The medians as bars.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(rows: &[Row]) -> Result<String> {
    let series =
        |place: &Place| Series { name: place.title().to_owned(), colour: palette::of(*place) };
    let group = |row: &Row| Group {
        name: row.name.clone(),
        values: row.ratios.iter().map(|ratio| Some(ratio.spread.median)).collect(),
        ranges: row
            .ratios
            .iter()
            .map(|Ratio { spread, .. }| Some((spread.min, spread.max)))
            .collect(),
    };
    Bars {
        title: "Time of computations".into(),
        axis: "times that of the bare machine: median, smallest and largest".into(),
        scale: scale::Kind::Linear,
        digits: 2,
        layout: Layout::Grouped,
        series: PLACES.iter().skip(1).map(series).collect(),
        groups: rows.iter().map(group).collect(),
        mark: Some((1.0, "bare machine".into())),
    }
    .svg()
}

/// For the book.
pub fn markdown(rows: &[Row]) -> String {
    layout::markdown(&cells(rows))
}

#[cfg(test)]
mod tests {
    use super::super::tests::column;
    use super::*;

    /// A machine that becomes slower all the time, with two VMMs that cost a tenth and a half.
    fn rounds() -> Vec<Vec<Column>> {
        let round = |base: u64| {
            let times = [base, base * 11 / 10, base * 3 / 2];
            PLACES.into_iter().zip(times).map(|(p, time)| column(p, &[("x", time)], "0")).collect()
        };
        [1000, 9000, 4000].map(round).to_vec()
    }

    #[test]
    fn a_drift_of_the_host_does_not_matter() {
        let rows = rows(&rounds()).unwrap();
        assert_eq!(rows[0].ratios.len(), 2);
        for (ratio, expected) in rows[0].ratios.iter().zip([1.1, 1.5]) {
            let Spread { min, median, max } = ratio.spread;
            assert!((median - expected).abs() < 1e-9, "{ratio:?}");
            assert!(min <= median && median <= max);
        }
        assert!(markdown(&rows).contains("| `x` | 1.10 (1.10–1.10) | 1.50 (1.50–1.50) |"));
        assert!(svg(&rows).unwrap().contains("bare machine"));
    }

    #[test]
    fn the_median_is_of_the_ratios() {
        let mut rounds = rounds();
        rounds[0][1] = column(Place::Alcazar, &[("x", 5000)], "0");
        let rows = rows(&rounds).unwrap();
        let Spread { median, max, .. } = rows[0].ratios[0].spread;
        assert!((median - 1.1).abs() < 1e-9 && (max - 5.0).abs() < 1e-9, "{median} {max}");
        rounds[2][1] = column(Place::Alcazar, &[], "0");
        assert!(super::rows(&rounds).is_err());
    }

    #[test]
    fn different_results_end_it() {
        let place = |place| {
            let check = if place == Place::Kvm { "1" } else { "0" };
            Ok(column(place, &[("x", 1)], check))
        };
        assert!(measure(2, place).is_err());
        assert_eq!(measure(2, |place| Ok(column(place, &[("x", 1)], "0"))).unwrap().len(), 2);
    }
}
