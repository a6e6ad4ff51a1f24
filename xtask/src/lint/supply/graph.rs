// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crates that are compiled, as Cargo describes them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo_build::cargo;
use crate::process;

/// Cargo's platform for dependencies that only some have.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
pub struct Graph {
    packages: Vec<Package>,
    workspace_members: HashSet<String>,
    resolve: Resolve,
}

/// A crate.
#[derive(Deserialize)]
pub struct Package {
    id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// An SPDX expression.
    pub license: Option<String>,
    /// Where it was fetched from; nothing for what is in this repository.
    pub source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
}

impl Graph {
    /// That of this workspace.
    ///
    /// # Errors
    /// When Cargo does not describe it.
    pub fn of_workspace(root: &Path) -> Result<Self> {
        let mut command = cargo();
        command.current_dir(root).args(["metadata", "--locked", "--format-version", "1"]);
        command.args(["--filter-platform", PLATFORM]);
        let json = process::succeed(&mut command, "reading the dependencies")?;
        serde_json::from_slice(&json).context("cargo metadata cannot be read")
    }

    /// The crates of others that some crate of the workspace leads to.
    pub fn foreign(&self) -> impl Iterator<Item = &Package> {
        let reached = self.reached();
        self.packages.iter().filter(move |package| {
            reached.contains(package.id.as_str()) && !self.is_member(package)
        })
    }

    /// Names of the crates of others that crates of the workspace name.
    pub fn direct(&self) -> BTreeSet<&str> {
        let members = self.packages.iter().filter(|package| self.is_member(package));
        let dependencies = members.flat_map(|member| &member.dependencies);
        dependencies.filter(|one| one.path.is_none()).map(|one| one.name.as_str()).collect()
    }

    fn is_member(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }

    /// Optional dependencies that nobody asked for are described, too, but not reached.
    fn reached(&self) -> HashSet<&str> {
        let nodes: HashMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        let mut reached = HashSet::new();
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
                open.extend(edges.map(|edge| edge.pkg.as_str()));
            }
        }
        reached
    }
}

/// A workspace with the crate `own`, which uses `good` by two ways, and nobody uses `unused`.
#[cfg(test)]
pub const EXAMPLE: &str = r#"{
    "packages": [
        {"id": "o", "name": "own", "version": "1.0.0", "license": null, "source": null,
         "dependencies": [{"name": "good", "path": null}, {"name": "other", "path": "/o"}]},
        {"id": "g", "name": "good", "version": "1.2.3", "license": "MIT OR GPL-3.0",
         "source": "registry+https://github.com/rust-lang/crates.io-index",
         "dependencies": [{"name": "old", "path": null}]},
        {"id": "h", "name": "good", "version": "0.4.5", "license": "MIT",
         "source": "registry+https://github.com/rust-lang/crates.io-index", "dependencies": []},
        {"id": "u", "name": "unused", "version": "1.0.0", "license": null, "source": "git+x",
         "dependencies": []}],
    "workspace_members": ["o"],
    "resolve": {"nodes": [
        {"id": "o", "deps": [{"pkg": "g"}]}, {"id": "g", "deps": [{"pkg": "h"}]},
        {"id": "h", "deps": []}, {"id": "u", "deps": []}]}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_counts() {
        let graph: Graph = serde_json::from_str(EXAMPLE).unwrap();
        let foreign: Vec<_> = graph.foreign().map(|package| package.version.as_str()).collect();
        assert_eq!(foreign, ["1.2.3", "0.4.5"]);
        assert_eq!(graph.direct().into_iter().collect::<Vec<_>>(), ["good"]);
    }
}
