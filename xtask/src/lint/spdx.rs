// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every source file names its license at its top.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::files;

/// The line, after a comment sign.
const LINE: &str = "SPDX-License-Identifier: MIT OR Apache-2.0";

/// The line is looked for in so many first lines: scripts start with another.
const TOP: usize = 2;

/// Names the tracked files that lack it.
///
/// # Errors
/// When git does not list the files, or one cannot be read.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for name in files::tracked(root)? {
        let content = fs::read(root.join(&name)).with_context(|| format!("cannot read {name}"))?;
        if needs_line(&name, &content) && !has_line(&content) {
            breaches.push(format!("{name}: the first lines lack '{LINE}'"));
        }
    }
    Ok(breaches)
}

/// Source files by their names, scripts by their first line.
fn needs_line(name: &str, content: &[u8]) -> bool {
    const SOURCES: [&str; 10] = ["rs", "toml", "sh", "ld", "S", "s", "c", "h", "yml", "py"];
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let source = extension.is_some_and(|extension| SOURCES.contains(&extension));
    source || content.starts_with(b"#!")
}

fn has_line(content: &[u8]) -> bool {
    String::from_utf8_lossy(content).lines().take(TOP).any(|line| line.contains(LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_scripts_need_the_line() {
        assert!(needs_line("a/b.rs", b""));
        assert!(needs_line("Cargo.toml", b""));
        assert!(needs_line(".ci/run", b"#!/bin/bash\n"));
        assert!(!needs_line("README.md", b"# x"));
        assert!(!needs_line("Cargo.lock", b""));
    }

    #[test]
    fn the_line_must_be_at_the_top() {
        assert!(has_line(format!("// {LINE}\n").as_bytes()));
        assert!(has_line(format!("#!/bin/sh\n# {LINE}\n").as_bytes()));
        assert!(!has_line(format!("a\nb\n// {LINE}\n").as_bytes()));
        assert!(!has_line(b""));
    }
}
