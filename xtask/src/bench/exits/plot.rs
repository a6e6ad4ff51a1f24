// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exits table as a picture: a bar for each place.

use anyhow::Result;

use super::Column;
use super::table::names;
use crate::bench::plot::bars::{Bars, Group, Layout, Series};
use crate::bench::plot::{palette, scale};

/// The picture, of medians in this unit.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(columns: &[Column], unit: &str) -> Result<String> {
    let series = |column: &Column| Series {
        name: column.place.title().to_owned(),
        colour: palette::of(column.place),
    };
    let group = |name: &str| {
        let median = |column: &Column| column.row(name).map(|figures| figures.median as f64);
        Group::new(name, columns.iter().map(median).collect())
    };
    Bars {
        title: "What single operations cost".into(),
        axis: format!("{unit}, median (logarithmic)"),
        scale: scale::Kind::Log,
        digits: 0,
        layout: Layout::Grouped,
        series: columns.iter().map(series).collect(),
        groups: names(columns).into_iter().map(group).collect(),
        mark: None,
    }
    .svg()
}
