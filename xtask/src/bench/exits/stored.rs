// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures in the repository that exit paths must not outgrow.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Column;
use crate::paths::Paths;

/// By how much a row may grow, in per cent, before that is a failure: another compiler or a
/// harmless change moves figures a little.
const SLACK_PER_CENT: u64 = 10;
/// By how much a row may shrink, in per cent, before its figure is to be stored anew: with an old
/// one it could grow again unseen.
const IMPROVEMENT_PER_CENT: u64 = 25;
/// Both in instructions, for short rows.
const SLACK: u64 = 20;

/// Medians by row.
type Medians = BTreeMap<String, u64>;

fn path(paths: &Paths) -> PathBuf {
    paths.root.join("benches/exit-costs.json")
}

/// Stores the figures.
///
/// # Errors
/// When the file cannot be written.
pub fn write(paths: &Paths, column: &Column) -> Result<()> {
    let mut json = serde_json::to_string_pretty(&medians(column))?;
    json.push('\n');
    let path = path(paths);
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// What is wrong with the figures, one line for each row.
///
/// # Errors
/// When the stored figures cannot be read.
pub fn compare(paths: &Paths, column: &Column) -> Result<Vec<String>> {
    let path = path(paths);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let stored: Medians = serde_json::from_slice(&text)
        .with_context(|| format!("{} holds no figures", path.display()))?;
    Ok(complaints(&stored, &medians(column)))
}

fn medians(column: &Column) -> Medians {
    column.rows.iter().map(|(name, figures)| (name.clone(), figures.median)).collect()
}

fn complaints(stored: &Medians, now: &Medians) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, &before) in stored {
        let most = before + (before * SLACK_PER_CENT / 100).max(SLACK);
        let least = before.saturating_sub((before * IMPROVEMENT_PER_CENT / 100).max(SLACK));
        match now.get(name) {
            None => complaints.push(format!("{name}: no longer measured")),
            Some(&count) if count > most => complaints.push(format!(
                "{name}: {count} instructions, stored {before}, at most {most} allowed"
            )),
            Some(&count) if count < least => complaints.push(format!(
                "{name}: {count} instructions, stored {before}: so much better that the new figure \
                 is to be stored"
            )),
            Some(_) => {}
        }
    }
    let new = now.keys().filter(|name| !stored.contains_key(*name));
    complaints.extend(new.map(|name| format!("{name}: no figure is stored")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(&str, u64)]) -> Medians {
        rows.iter().map(|&(name, median)| (name.to_owned(), median)).collect()
    }

    #[test]
    fn what_became_much_better_is_to_be_stored_anew() {
        let stored = of(&[("a", 1000), ("b", 40)]);
        assert!(complaints(&stored, &of(&[("a", 750), ("b", 20)])).is_empty());
        let found = complaints(&stored, &of(&[("a", 749), ("b", 19)]));
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("749") && found[0].contains("to be stored"), "{found:?}");
    }

    #[test]
    fn growth_beyond_the_slack_is_named() {
        let stored = of(&[("a", 1000), ("b", 10), ("c", 5)]);
        assert!(complaints(&stored, &of(&[("a", 1100), ("b", 30), ("c", 1)])).is_empty());
        let found = complaints(&stored, &of(&[("a", 1101), ("b", 31), ("d", 1)]));
        assert_eq!(found.len(), 4);
        assert!(found[0].starts_with("a: 1101") && found[0].contains("at most 1100"));
        assert!(found[2].starts_with("c: no longer") && found[3].starts_with("d: no figure"));
    }
}
