// SPDX-License-Identifier: MIT OR Apache-2.0
//! Crates of the workspace depend on each other in one direction only.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo_build::cargo;
use crate::process;

/// What each crate may depend on in this workspace. A crate that is not listed may not depend on
/// any, nor may any depend on it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("host-iface", &[]),
    ("host-mock", &["host-iface"]),
    ("wire", &[]),
    ("vmm-core", &["host-iface"]),
    ("vmm-devices", &["host-iface", "vmm-core"]),
    ("cokernel", &[]),
    ("cokernel-glue", &["cokernel", "host-iface", "vmm-core", "vmm-devices", "wire"]),
    ("bare-metal", &["vmm-core"]),
    ("init-stamp", &[]),
    ("self-test", &[]),
    ("bench-guests", &["bare-metal"]),
    ("kvm-runner", &[]),
    ("fuzz-targets", &["host-iface", "host-mock", "vmm-core", "vmm-devices", "wire"]),
    ("xtask", &["wire"]),
];

/// What tests may use beyond that, and optional features for tests.
const FOR_TESTS: &[&str] = &["host-mock"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Present for crates of this workspace.
    path: Option<String>,
    /// `dev`, `build` or nothing.
    kind: Option<String>,
    #[serde(default)]
    optional: bool,
}

impl Dependency {
    fn is_allowed(&self, allowed: &[&str]) -> bool {
        let for_tests = self.optional || self.kind.as_deref() == Some("dev");
        self.path.is_none()
            || allowed.contains(&self.name.as_str())
            || for_tests && FOR_TESTS.contains(&self.name.as_str())
    }
}

/// Names the dependencies that are not allowed.
///
/// # Errors
/// When Cargo does not describe the workspace.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut command = cargo();
    command.current_dir(root).args(["metadata", "--no-deps", "--format-version", "1"]);
    let json = process::succeed(&mut command, "reading the workspace")?;
    let metadata = serde_json::from_slice(&json).context("cargo metadata cannot be read")?;
    Ok(breaches(&metadata))
}

fn breaches(metadata: &Metadata) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let rule = ALLOWED.iter().find(|(name, _)| *name == package.name);
        let Some((_, allowed)) = rule else {
            breaches.push(format!("{}: not in the list of crates of 'xtask lint'", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|one| !one.is_allowed(allowed)) {
            breaches.push(format!("{} must not depend on {}", package.name, dependency.name));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<String> {
        breaches(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn arrows_point_down_only() {
        let upward = r#"{"packages":[{"name":"vmm-core","dependencies":[
            {"name":"host-iface","path":"/x"},{"name":"vmm-devices","path":"/x"},
            {"name":"host-mock","path":"/x","kind":"dev"},
            {"name":"host-mock","path":"/x","optional":true},{"name":"log","path":null}]}]}"#;
        assert_eq!(of(upward), ["vmm-core must not depend on vmm-devices"]);
        let mock = upward.replace("\"dev\"", "null");
        assert_eq!(of(&mock).len(), 2);
        let cokernel = r#"{"packages":[{"name":"cokernel","dependencies":[
            {"name":"vmm-core","path":"/x"}]}]}"#;
        assert_eq!(of(cokernel).len(), 1);
        assert_eq!(of(r#"{"packages":[{"name":"new","dependencies":[]}]}"#).len(), 1);
    }
}
