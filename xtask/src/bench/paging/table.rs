// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of paging costs, for a terminal and for the book.

use super::{Cost, Row, Way};
use crate::bench::layout;
use crate::bench::results::grouped;

/// Heads and lines: of each way instructions and exits, then the ratios.
fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let mut head = vec!["loop".to_owned()];
    head.extend(Way::ALL.iter().flat_map(|way| [way.title().to_owned(), "exits".to_owned()]));
    head.extend(["shadow / nested", "no cache / shadow"].map(str::to_owned));
    let line = |row: &Row| {
        let Row { name, nested, shadow, shadow_uncached } = row;
        let mut line = vec![(*name).to_owned()];
        for cost in [nested, shadow, shadow_uncached] {
            line.extend([grouped(cost.instructions.median), format!("{:.2}", cost.exits)]);
        }
        line.extend([ratio(shadow, nested), ratio(shadow_uncached, shadow)]);
        line
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

fn ratio(of: &Cost, to: &Cost) -> String {
    match to.instructions.median {
        0 => "–".to_owned(),
        median => format!("{:.2}", of.instructions.median as f64 / median as f64),
    }
}

/// For a terminal.
pub fn text(rows: &[Row]) -> String {
    let mut text = layout::text(&cells(rows));
    text.push_str("instructions: median of the rounds; exits: average of a round\n");
    text
}

/// For the book.
pub fn markdown(rows: &[Row]) -> String {
    layout::markdown(&cells(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Statistics;

    fn cost(median: u64, exits: f64) -> Cost {
        let instructions =
            Statistics { rounds: 1000, min: median, median, p99: median, max: median };
        Cost { instructions, exits }
    }

    fn row() -> Row {
        Row {
            name: "fork-exec",
            nested: cost(2000, 0.0),
            shadow: cost(30_000, 12.5),
            shadow_uncached: cost(120_000, 61.25),
        }
    }

    #[test]
    fn ways_stand_beside_each_other() {
        let line =
            "| `fork-exec` | 2,000 | 0.00 | 30,000 | 12.50 | 120,000 | 61.25 | 15.00 | 4.00 |";
        let markdown = markdown(&[row()]);
        assert!(markdown.contains(line), "{markdown}");
        let text = text(&[row()]);
        let widths: Vec<usize> = text.lines().take(2).map(|line| line.chars().count()).collect();
        assert_eq!(widths[0], widths[1], "{text}");
    }

    #[test]
    fn nothing_has_no_ratio() {
        let row = Row { nested: cost(0, 0.0), ..row() };
        assert!(markdown(&[row]).contains("| – | 4.00 |"));
    }
}
