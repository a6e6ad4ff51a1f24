// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exits table: for people, for the book and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Column;
use crate::bench::figures::Statistics;
use crate::bench::layout;
use crate::bench::place::Place;
use crate::bench::results::grouped;

/// What a program gets.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    /// What the figures are: `instructions` or `ticks` of an emulated machine's clock.
    unit: &'static str,
    rows: Vec<JsonRow<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    /// By place.
    figures: BTreeMap<Place, Statistics>,
}

impl<'a> Json<'a> {
    /// All figures, in this unit.
    pub fn new(columns: &'a [Column], unit: &'static str) -> Self {
        let rows = names(columns)
            .into_iter()
            .map(|name| JsonRow {
                name,
                figures: columns
                    .iter()
                    .filter_map(|column| Some((column.place, *column.row(name)?)))
                    .collect(),
            })
            .collect();
        Self { unit, rows }
    }
}

/// Every row's name once, in the order in which guests measure: a place that lacks a row does not
/// move it.
pub fn names(columns: &[Column]) -> Vec<&str> {
    let longest = columns.iter().max_by_key(|column| column.rows.len());
    let mut names: Vec<&str> = Vec::new();
    for column in longest.into_iter().chain(columns) {
        for (name, _) in &column.rows {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names
}

/// Heads and lines, each with one cell for each place and one for the ratio.
fn cells(columns: &[Column]) -> Vec<Vec<String>> {
    let mut head = vec!["operation".to_owned()];
    head.extend(columns.iter().map(|column| column.place.title().to_owned()));
    head.push("Alcazar / KVM".to_owned());
    let mut lines = vec![head];
    for name in names(columns) {
        let mut line = vec![name.to_owned()];
        line.extend(columns.iter().map(|column| column.row(name).map_or("–".into(), cell)));
        line.push(ratio(columns, name).map_or("–".into(), |ratio| format!("{ratio:.2}")));
        lines.push(line);
    }
    lines
}

/// The median, and how far the longest is above it where it is.
fn cell(figures: &Statistics) -> String {
    match figures.max - figures.median {
        0 => grouped(figures.median),
        above => format!("{} (+{})", grouped(figures.median), grouped(above)),
    }
}

fn ratio(columns: &[Column], name: &str) -> Option<f64> {
    let median = |place| {
        let column = columns.iter().find(|column| column.place == place)?;
        Some(column.row(name)?.median as f64)
    };
    let kvm = median(Place::Kvm).filter(|&kvm| kvm > 0.0)?;
    Some(median(Place::Alcazar)? / kvm)
}

/// For a terminal.
pub fn text(columns: &[Column]) -> String {
    let mut text = layout::text(&cells(columns));
    text.push_str("median of 1000 rounds; in brackets how far the longest is above it\n");
    text
}

/// For the book.
pub fn markdown(columns: &[Column]) -> String {
    layout::markdown(&cells(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(median: u64, max: u64) -> Statistics {
        Statistics { rounds: 1000, min: median, median, p99: median, max }
    }

    fn columns() -> Vec<Column> {
        let column = |place, rows: &[(&str, u64, u64)]| Column {
            place,
            rows: rows.iter().map(|&(name, a, b)| (name.to_owned(), figures(a, b))).collect(),
        };
        vec![
            column(Place::Bare, &[("cpuid", 7, 7), ("timer", 70, 70)]),
            column(Place::Alcazar, &[("cpuid", 300, 300), ("call", 250, 250), ("timer", 900, 900)]),
            column(Place::Kvm, &[("cpuid", 3000, 12_345), ("call", 2500, 2500)]),
        ]
    }

    #[test]
    fn rows_keep_their_order_and_places_may_lack_some() {
        let columns = columns();
        assert_eq!(names(&columns), ["cpuid", "call", "timer"]);
        let text = text(&columns);
        assert!(text.contains("3,000 (+9,345)") && text.contains("0.10"), "{text}");
        assert!(text.lines().nth(3).unwrap().ends_with('–'), "{text}");
        let markdown = markdown(&columns);
        assert!(markdown.contains("| `call` | – | 250 | 2,500 | 0.10 |"), "{markdown}");
    }

    #[test]
    fn programs_get_figures_by_place() {
        let columns = columns();
        let json = serde_json::to_value(Json::new(&columns, "instructions")).unwrap();
        assert_eq!(json["rows"][0]["figures"]["kvm"]["max"], 12_345);
        assert!(json["rows"][1]["figures"].get("bare").is_none());
    }
}
