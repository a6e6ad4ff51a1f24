// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all other code may not name: control blocks and their fields.

use super::VENDORS;
use super::layout::Layout;
use super::source::{NamedPath, Source};

/// Modules of the crate `x86` that name VMCS fields and the instructions on them.
const CONTROL_BLOCKS: &[&[&str]] = &[&["x86", "vmx"], &["x86", "bits64", "vmx"]];

/// Adds what `source`, which is no vendor's file, may not name: each line once.
pub fn check(source: &Source, layout: &Layout, breaches: &mut Vec<String>) {
    let mut found: Vec<(usize, String)> = Vec::new();
    for word in source.words() {
        let text = word.to_string();
        if layout.has(&text) {
            found.push((word.span().start().line, text));
        }
    }
    let paths = source.paths();
    found.extend(
        paths
            .iter()
            .filter(|path| is_control_block(path) || layout.has_path(&path.parts))
            .map(|path| (path.line, path.text())),
    );
    found.sort();
    found.dedup_by_key(|(line, _)| *line);
    breaches.extend(found.into_iter().map(|(line, what)| {
        format!("{}:{line}: {what} belongs to a vendor's control block", source.name)
    }));
}

fn is_control_block(path: &NamedPath) -> bool {
    let is_layout = VENDORS.iter().any(|vendor| {
        vendor
            .layouts
            .iter()
            .any(|layout| path.parts.windows(2).any(|pair| pair == [vendor.module, *layout]))
    });
    is_layout || CONTROL_BLOCKS.iter().any(|module| path.is_within(module))
}
