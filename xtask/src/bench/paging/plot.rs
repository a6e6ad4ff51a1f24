// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of paging costs as a picture.

use anyhow::Result;

use super::{Row, Way};
use crate::bench::plot::bars::{Bars, Group, Layout, Series};
use crate::bench::plot::{palette, scale};

/// The picture.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(rows: &[Row]) -> Result<String> {
    let series = |way: Way| {
        let (name, colour) = match way {
            Way::Nested => ("nested paging", palette::ALCAZAR),
            Way::Shadow => ("shadow paging", palette::ALCAZAR_OTHER),
            Way::ShadowUncached => ("shadow paging, no cache", palette::BARE),
        };
        Series { name: name.to_owned(), colour }
    };
    let group = |row: &Row| {
        let costs = [&row.nested, &row.shadow, &row.shadow_uncached];
        let values = costs.map(|cost| Some(cost.instructions.median as f64));
        Group::new(row.name, values.to_vec())
    };
    Bars {
        title: "What work with address spaces costs".into(),
        axis: "instructions of a round, median (logarithmic)".into(),
        scale: scale::Kind::Log,
        digits: 0,
        layout: Layout::Grouped,
        series: Way::ALL.map(series).to_vec(),
        groups: rows.iter().map(group).collect(),
        mark: None,
    }
    .svg()
}
