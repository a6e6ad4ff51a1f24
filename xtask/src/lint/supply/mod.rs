// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes from others: licenses, sources and versions as `deny.toml` has them, and a reason
//! for each direct dependency in `docs/dependencies.md`.
//!
//! This is the part of `cargo deny` that needs nothing but Cargo, so that it holds on every
//! machine; `cargo xtask deny` has all of it.

mod graph;
mod license;
mod policy;
mod reasons;

use std::path::Path;

use anyhow::{Context, Result};

use graph::Graph;
use policy::Policy;

/// What states the rules.
const POLICY: &str = "deny.toml";
/// What states why each direct dependency is there.
const REASONS: &str = "docs/dependencies.md";

/// Names what breaks the rules.
///
/// # Errors
/// When Cargo does not describe the workspace, or a file with the rules cannot be read.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))
    };
    let policy = Policy::parse(&read(POLICY)?);
    let graph = Graph::of_workspace(root)?;
    let mut breaches = policy.breaches(&graph);
    breaches.extend(reasons::breaches(&graph, &read(REASONS)?));
    Ok(breaches)
}
