// SPDX-License-Identifier: MIT OR Apache-2.0
//! The co-kernel's self-test, on machines that differ in what the co-kernel must cope with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::machine::TestMachine;
use super::row::{Row, Tally};
use crate::cargo_build;
use crate::paths::Paths;
use crate::run::outcome::exit_status;

/// A machine: name, CPUs, CPU model, memory in MiB, part of the quick tests.
const MACHINES: &[(&str, u32, &str, u64, bool)] = &[
    ("one-cpu", 1, "max", 512, false),
    ("four-cpus", 4, "max", 512, true),
    ("xapic", 2, "max,-x2apic", 512, false),
    ("memory-above-4-gib", 1, "max", 6144, false),
];

/// Exit code of a self-test that passed.
const PASSED: u8 = wire::machine_exit::DONE;

/// All rows of this kind.
pub fn rows(paths: &Paths, quick: bool) -> Vec<Row> {
    MACHINES
        .iter()
        .filter(|machine| !quick || machine.4)
        .map(|&(name, cpus, cpu, memory_mib, _)| {
            let paths = paths.clone();
            Row::new(format!("co-kernel/{name}"), move |log| {
                let image = cargo_build::selftest(&paths)?;
                let machine = TestMachine::new(image)?.with(cpus, cpu, memory_mib);
                let answer = machine.run(Duration::from_secs(120), log)?;
                let tally = count(&answer.log)?;
                ensure!(
                    answer.status == exit_status(PASSED) || tally.failed > 0,
                    "it ended with status {}",
                    answer.status
                );
                Ok(tally)
            })
        })
        .collect()
}

/// Reads the last "N passed, N failed" in a text.
///
/// # Errors
/// When there is none.
pub fn count(log: &str) -> Result<Tally> {
    log.lines().rev().find_map(totals).context("it printed no totals")
}

fn totals(line: &str) -> Option<Tally> {
    let (before, failed) = line.trim().strip_suffix(" failed")?.rsplit_once(" passed, ")?;
    let passed = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    Some(Tally { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_totals_behind_a_log_prefix() {
        let log = "[0.2 INFO] 3 passed, 0 failed\r\n[0.3 INFO] 12 passed, 1 failed\r\nbye\n";
        assert_eq!(count(log).unwrap(), Tally { passed: 12, failed: 1 });
        assert!(count("passed, failed").is_err());
    }
}
