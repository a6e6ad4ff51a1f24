// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of `deny.toml`, as far as they are checked here.

use std::collections::BTreeMap;

use super::graph::{Graph, Package};
use super::license::is_allowed;

/// Where crates come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licenses, and versions that may be there beside another one.
pub struct Policy {
    licenses: Vec<String>,
    /// Name and start of the version, with an @ between them.
    skipped: Vec<String>,
}

impl Policy {
    /// Reads the two lists; each of their entries has a line of its own.
    pub fn parse(text: &str) -> Self {
        let list = |name: &str| {
            let start = format!("{name} = [");
            let lines = text.lines().skip_while(move |line| *line != start).skip(1);
            let lines = lines.take_while(|line| *line != "]");
            lines.filter_map(|line| line.split('"').nth(1)).map(String::from).collect()
        };
        Self { licenses: list("allow"), skipped: list("skip") }
    }

    /// Names the crates that break the rules.
    pub fn breaches(&self, graph: &Graph) -> Vec<String> {
        let mut breaches = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in graph.foreign() {
            let Package { name, version, license, source, .. } = package;
            let license = license.as_deref().unwrap_or("none");
            if !is_allowed(license, &self.licenses) {
                breaches.push(format!("{name} {version}: its license, {license}, is not allowed"));
            }
            if source.as_deref() != Some(REGISTRY) {
                breaches.push(format!("{name} {version}: it does not come from crates.io"));
            }
            if !self.is_skipped(package) {
                versions.entry(name).or_default().push(package);
            }
        }
        for (name, packages) in versions.iter().filter(|(_, packages)| packages.len() > 1) {
            let versions: Vec<_> = packages.iter().map(|one| one.version.as_str()).collect();
            breaches.push(format!("{name}: there are versions {}", versions.join(" and ")));
        }
        breaches
    }

    fn is_skipped(&self, Package { name, version, .. }: &Package) -> bool {
        self.skipped.iter().filter_map(|entry| entry.split_once('@')).any(|(skipped, start)| {
            let rest = version.strip_prefix(start);
            skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::EXAMPLE;
    use super::*;

    const POLICY: &str = "[licenses]\nallow = [\n    \"MIT\",\n]\n[bans]\nskip = [\n    { crate = \"good@0.4\" },\n]\n";

    fn breaches(policy: &str, graph: &str) -> Vec<String> {
        Policy::parse(policy).breaches(&serde_json::from_str(graph).unwrap())
    }

    #[test]
    fn each_rule_is_checked() {
        assert!(breaches(POLICY, EXAMPLE).is_empty());
        let found = breaches(&POLICY.replace("good@0.4", "good@0"), EXAMPLE);
        assert!(found.is_empty(), "{found:?}");
        let found = breaches(&POLICY.replace("good@0.4", "good@0.45"), EXAMPLE);
        assert_eq!(found, ["good: there are versions 1.2.3 and 0.4.5"]);
        let found = breaches(&POLICY.replace("MIT", "Zlib"), EXAMPLE);
        assert_eq!(found.len(), 2, "{found:?}");
        let elsewhere = EXAMPLE.replace("registry+https", "git+https");
        assert_eq!(breaches(POLICY, &elsewhere).len(), 2);
    }
}
