// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps costs from growing: instructions of exits against those stored in the repository, memory
//! and computations against limits, interruptions against none.

use anyhow::{Context, bail};

use super::row::{Row, Tally};
use crate::bench::{compute, exits, memory, noise};
use crate::paths::Paths;

/// Exits and memory, which one run shows.
pub fn exits(paths: &Paths) -> Row {
    let paths = paths.clone();
    Row::new("bench/exit-costs", move |log| {
        let (column, report) = exits::under_alcazar(&paths)?;
        let mut complaints = exits::stored::compare(&paths, &column)?;
        let bytes = memory::total(&report)?;
        log.line(format_args!("memory: {bytes} bytes"));
        complaints.extend(memory::complaint(bytes));
        for complaint in &complaints {
            log.line(complaint);
        }
        if let Some(first) = complaints.first() {
            bail!(
                "{} of {} figures are not what they were: {first}; when that is meant, store the \
                 new ones by 'cargo xtask bench exits --places alcazar --store'",
                complaints.len(),
                column.rows.len() + 1
            );
        }
        Ok(Tally { passed: u32::try_from(column.rows.len() + 1)?, failed: 0 })
    })
}

/// Computations, to which nothing may be added.
pub fn compute(paths: &Paths) -> Row {
    let paths = paths.clone();
    Row::new("bench/compute", move |log| {
        let (complaints, operations) = compute::complaints(&paths)?;
        for complaint in &complaints {
            log.line(complaint);
        }
        let failed = u32::try_from(complaints.len())?;
        let passed = u32::try_from(operations)?.checked_sub(failed).context("rows")?;
        Ok(Tally { passed, failed })
    })
}

/// A computing guest, which nothing may interrupt but its own timer.
pub fn noise(paths: &Paths) -> Row {
    let paths = paths.clone();
    Row::new("bench/noise", move |log| {
        let complaints = noise::complaints(&paths)?;
        for complaint in &complaints {
            log.line(complaint);
        }
        if let Some(first) = complaints.first() {
            bail!("{first}");
        }
        Ok(Tally::ONE)
    })
}
