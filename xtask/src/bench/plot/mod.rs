// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plots of results, as SVG files.
//!
//! The same figures give the same bytes on every machine: no font is measured, no date written.
//! Text is in the reader's own sans-serif font, so that widths are estimates with room to spare.

pub mod bars;
mod canvas;
pub mod palette;
pub mod scale;
pub mod scatter;

use std::fs;

use anyhow::{Context, Result};

use super::results;
use crate::paths::Paths;

/// Where the book's plots are.
const BOOK: &str = "docs/plots";

/// Writes the plot to `target/bench/NAME.svg`, and to `docs/plots/NAME.svg` if the book is to be
/// updated.
///
/// # Errors
/// When a file cannot be written.
pub fn write(paths: &Paths, name: &str, svg: &str, update_docs: bool) -> Result<()> {
    let file = format!("{name}.svg");
    let mut targets = vec![results::file(paths, &file)?];
    if update_docs {
        let folder = paths.root.join(BOOK);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {BOOK}"))?;
        targets.push(folder.join(&file));
    }
    for target in targets {
        fs::write(&target, svg).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}
