// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the exit paths from growing: instruction counts against those stored in the repository.

use anyhow::bail;

use super::row::{Row, Tally};
use crate::bench::exits;
use crate::paths::Paths;

/// The row.
pub fn row(paths: &Paths) -> Row {
    let paths = paths.clone();
    Row::new("bench/exit-costs", move |log| {
        let column = exits::under_alcazar(&paths)?;
        let complaints = exits::stored::compare(&paths, &column)?;
        for complaint in &complaints {
            log.line(complaint);
        }
        if let Some(first) = complaints.first() {
            bail!(
                "{} of {} exit paths have grown: {first}; when that is meant, store the new \
                 figures by 'cargo xtask bench exits --places alcazar --store'",
                complaints.len(),
                column.rows.len()
            );
        }
        Ok(Tally { passed: u32::try_from(column.rows.len())?, failed: 0 })
    })
}
