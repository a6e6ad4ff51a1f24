// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of computations in instructions: for people, for the book and for programs.

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
    unit: &'static str,
    rows: Vec<JsonRow<'a>>,
    /// The bits of the results, which are the same at all places.
    checks: BTreeMap<&'a str, &'a str>,
    /// Exits under Alcazar but for port I/O.
    alcazar_exits: Option<u64>,
}

#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    /// By place.
    figures: BTreeMap<Place, Statistics>,
    /// Of the medians, beyond the bare machine, by place.
    overhead_per_cent: BTreeMap<Place, f64>,
}

impl<'a> Json<'a> {
    /// All figures; the first column is the bare machine's.
    pub fn new(columns: &'a [Column]) -> Self {
        let of = |name| JsonRow {
            name,
            figures: columns.iter().filter_map(|c| Some((c.place, *c.row(name)?))).collect(),
            overhead_per_cent: others(columns)
                .filter_map(|(bare, column)| Some((column.place, column.overhead(bare, name)?)))
                .collect(),
        };
        let checks = columns.first().map(|column| &column.checks).into_iter().flatten();
        Self {
            unit: "instructions",
            rows: names(columns).map(of).collect(),
            checks: checks.map(|(name, bits)| (name.as_str(), bits.as_str())).collect(),
            alcazar_exits: columns.iter().find_map(|column| column.exits),
        }
    }
}

fn names(columns: &[Column]) -> impl Iterator<Item = &str> {
    columns.iter().take(1).flat_map(|column| &column.rows).map(|(name, _)| name.as_str())
}

/// Every column but the first, with the first.
fn others(columns: &[Column]) -> impl Iterator<Item = (&Column, &Column)> {
    columns.first().into_iter().flat_map(|bare| columns.iter().skip(1).map(move |c| (bare, c)))
}

fn cells(columns: &[Column]) -> Vec<Vec<String>> {
    let mut head = vec!["operation".to_owned()];
    head.extend(columns.iter().map(|column| column.place.title().to_owned()));
    head.extend(others(columns).map(|(_, column)| format!("{} adds", column.place.title())));
    let line = |name: &str| {
        let mut line = vec![name.to_owned()];
        let median = |column: &Column| column.row(name).map(|figures| grouped(figures.median));
        line.extend(columns.iter().map(|column| median(column).unwrap_or("–".into())));
        line.extend(others(columns).map(|(bare, column)| {
            column.overhead(bare, name).map_or("–".into(), |percent| format!("{percent:.2} %"))
        }));
        line
    };
    std::iter::once(head).chain(names(columns).map(line)).collect()
}

/// For a terminal.
pub fn text(columns: &[Column]) -> String {
    let mut text = layout::text(&cells(columns));
    text.push_str("median of the rounds; all places came to the same results, bit by bit\n");
    if let Some(exits) = columns.iter().find_map(|column| column.exits) {
        text.push_str(&format!("exits under Alcazar, but for printing: {exits}\n"));
    }
    text
}

/// For the book.
pub fn markdown(columns: &[Column]) -> String {
    layout::markdown(&cells(columns))
}

#[cfg(test)]
mod tests {
    use super::super::tests::column;
    use super::*;

    fn columns() -> [Column; 3] {
        [
            column(Place::Bare, &[("solve", 20_000)], "0"),
            column(Place::Alcazar, &[("solve", 20_000)], "0"),
            column(Place::Kvm, &[("solve", 20_050)], "0"),
        ]
    }

    #[test]
    fn what_each_place_adds_stands_beside_the_counts() {
        let markdown = markdown(&columns());
        let line = "| `solve` | 20,000 | 20,000 | 20,050 | 0.00 % | 0.25 % |";
        assert!(markdown.contains(line), "{markdown}");
        assert!(text(&columns()).contains("but for printing: 3"));
    }

    #[test]
    fn programs_get_the_overhead_by_place() {
        let columns = columns();
        let json = serde_json::to_value(Json::new(&columns)).unwrap();
        assert_eq!(json["rows"][0]["overhead_per_cent"]["alcazar"], 0.0);
        assert_eq!(json["rows"][0]["figures"]["kvm"]["median"], 20_050);
        assert_eq!(json["checks"]["sum"], "0");
    }
}
