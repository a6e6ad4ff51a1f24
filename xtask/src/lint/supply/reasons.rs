// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every direct dependency has a line that says why it is there.

use std::collections::BTreeSet;

use super::REASONS;
use super::graph::Graph;

/// Names the dependencies without a line in `text`, and the lines without a dependency.
pub fn breaches(graph: &Graph, text: &str) -> Vec<String> {
    let (used, listed) = (graph.direct(), listed(text));
    let missing =
        used.difference(&listed).map(|name| format!("{name}: say in {REASONS} why it is used"));
    let stale = listed
        .difference(&used)
        .map(|name| format!("{name}: {REASONS} lists it, and no crate depends on it"));
    missing.chain(stale).collect()
}

/// The names in the first column of the tables.
fn listed(text: &str) -> BTreeSet<&str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::EXAMPLE;
    use super::*;

    #[test]
    fn lists_and_dependencies_agree() {
        let graph = serde_json::from_str(EXAMPLE).unwrap();
        let of = |text| breaches(&graph, text);
        assert!(of("| crate | why |\n|---|---|\n| `good` | for `this` |\n").is_empty());
        assert_eq!(of("").len(), 1);
        assert_eq!(of("| `good` | x |\n| `bad` | y |\n").len(), 1);
    }
}
