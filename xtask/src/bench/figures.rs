// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines in which benchmark guests give their figures.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What many rounds of one operation took, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// Rounds counted.
    pub rounds: u64,
    /// The shortest.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// Longer than 99 in 100.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// All lines `bench NAME rounds=N min=… median=… p99=… max=…` of a text, in order.
///
/// # Errors
/// When such a line lacks something, or there is none.
pub fn parse(text: &str) -> Result<Vec<(String, Statistics)>> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("bench ") else { continue };
        let (name, values) = rest.split_once(' ').with_context(|| format!("no figures: {line}"))?;
        rows.push((name.to_owned(), statistics(values).with_context(|| line.to_owned())?));
    }
    ensure!(!rows.is_empty(), "the guest printed no figures");
    Ok(rows)
}

/// All lines `check NAME HEX` of a text, in order: names and the bits of results.
pub fn checks(text: &str) -> Vec<(String, String)> {
    let checks = text.lines().filter_map(|line| line.trim().strip_prefix("check "));
    checks
        .filter_map(|rest| rest.split_once(' '))
        .map(|(name, bits)| (name.to_owned(), bits.to_owned()))
        .collect()
}

fn statistics(values: &str) -> Result<Statistics> {
    let value = |name: &str| value(values, name);
    Ok(Statistics {
        rounds: value("rounds")?,
        min: value("min")?,
        median: value("median")?,
        p99: value("p99")?,
        max: value("max")?,
    })
}

/// The number in the word `name=NUMBER`.
///
/// # Errors
/// When there is none.
pub fn value(text: &str, name: &str) -> Result<u64> {
    let found = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = found.with_context(|| format!("there is no '{name}'"))?;
    number.parse().with_context(|| format!("{name}: '{number}' is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures_are_found() {
        let text = "hello\r\nbench a-b rounds=4 min=1 median=2 p99=3 max=40\r\nskip c: no\r\n";
        let expected = Statistics { rounds: 4, min: 1, median: 2, p99: 3, max: 40 };
        assert_eq!(parse(text).unwrap(), [("a-b".to_owned(), expected)]);
        assert!(parse("skip c: no\n").is_err());
        assert!(checks(text).is_empty());
        assert!(parse("bench a rounds=4 min=1\n").is_err());
        assert!(parse("bench a rounds=x min=1 median=2 p99=3 max=4\n").is_err());
    }

    #[test]
    fn bits_of_results_are_found() {
        let text = "bench a rounds=1\r\ncheck sum 00ff\r\ncheck\ncheck error 1\n";
        let expected = [("sum", "00ff"), ("error", "1")];
        let expected = expected.map(|(name, bits)| (name.to_owned(), bits.to_owned()));
        assert_eq!(checks(text), expected);
    }
}
