// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crates' own tests.

use std::time::Duration;

use anyhow::ensure;

use super::invoke::Invocation;
use super::row::{Row, Tally};
use crate::cargo_build::cargo;
use crate::paths::Paths;

/// One row for `cargo test`, which covers the workspace's default members.
pub fn rows(paths: &Paths) -> Vec<Row> {
    let paths = paths.clone();
    let row = Row::new("unit/cargo-test", move |log| {
        let mut command = cargo();
        command.current_dir(&paths.root).args(["test", "--no-fail-fast", "--target-dir"]);
        command.arg(&paths.target);
        let answer = Invocation::new(command).limit(Duration::from_secs(1800)).run(log)?;
        let tally = count(&answer.stdout);
        ensure!(
            answer.status == 0 || tally.failed > 0,
            "cargo test failed with status {}",
            answer.status
        );
        Ok(tally)
    });
    vec![row.alone()]
}

/// Adds up the result lines of Rust's test harness.
fn count(output: &str) -> Tally {
    output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test result: "))
        .map(|result| {
            let number = |what: &str| {
                result
                    .split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            Tally { passed: number("passed"), failed: number("failed") }
        })
        .fold(Tally::default(), Tally::plus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_harness_results() {
        let output = "running 2 tests\ntest a ... ok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(output), Tally { passed: 3, failed: 3 });
        assert_eq!(count("test result: nonsense"), Tally::default());
    }
}
