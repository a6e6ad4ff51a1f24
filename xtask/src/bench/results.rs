// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where results go: files under `target/bench/` and the tables in the book.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::plot;
use crate::paths::Paths;
use crate::result_file::{self, ResultFile};

/// The page with the tables.
const PAGE: &str = "docs/performance.md";

/// What every benchmark is told about its results.
#[derive(Clone, Debug, Default, Args)]
pub struct Output {
    /// Write all figures to this file as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Put tables and plots into docs/
    #[arg(long)]
    pub update_docs: bool,
}

impl Output {
    /// Finds out before a measurement, which takes minutes, whether its figures can be written.
    ///
    /// # Errors
    /// When `--json` names no file that can be written.
    pub fn check(&self) -> Result<()> {
        self.result_file().map(drop)
    }

    fn result_file(&self) -> Result<Option<ResultFile>> {
        self.json.as_deref().map(|path| ResultFile::prepare("--json", path)).transpose()
    }

    /// Puts the figures of the benchmark `name` where they belong: into `target/bench/NAME.json`
    /// and where else it was asked for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn figures(&self, paths: &Paths, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(paths, name, value)?;
        self.result_file()?.map_or(Ok(()), |file| file.write_json(value))
    }

    /// Puts a table into the book, if that was asked for; see [`update_docs`].
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn table(&self, paths: &Paths, name: &str, markdown: &str) -> Result<()> {
        if self.update_docs { update_docs(paths, name, markdown) } else { Ok(()) }
    }

    /// Writes a plot, also for the book if that was asked for; see [`plot::write`].
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn plot(&self, paths: &Paths, name: &str, svg: &str) -> Result<()> {
        plot::write(paths, name, svg, self.update_docs)
    }
}

/// The folder for results, made if need be.
///
/// # Errors
/// When it cannot be made.
pub fn folder(paths: &Paths) -> Result<PathBuf> {
    let folder = paths.target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// A file in that folder.
///
/// # Errors
/// When the folder cannot be made.
pub fn file(paths: &Paths, name: &str) -> Result<PathBuf> {
    Ok(folder(paths)?.join(name))
}

/// Writes `NAME.json` there.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(paths: &Paths, name: &str, value: &impl Serialize) -> Result<()> {
    let path = file(paths, &format!("{name}.json"))?;
    let json = result_file::json(value)?;
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces what stands between the markers `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` in
/// the book's page.
///
/// # Errors
/// When the page lacks the markers or cannot be written.
pub fn update_docs(paths: &Paths, name: &str, markdown: &str) -> Result<()> {
    let path = paths.root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = replaced(&page, name, markdown)
        .with_context(|| format!("{PAGE} lacks the markers <!-- bench:{name} -->"))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))
}

fn replaced(page: &str, name: &str, markdown: &str) -> Option<String> {
    let (open, close) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
    let (before, rest) = page.split_once(&open)?;
    let (_, after) = rest.split_once(&close)?;
    Some(format!("{before}{open}\n\n{}\n\n{close}{after}", markdown.trim()))
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let groups = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in groups {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let to = |path: PathBuf| Output { json: Some(path), update_docs: false };
        let file = folder.path().join("f.json");
        to(file.clone()).check().unwrap();
        assert!(!file.exists());
        fs::write(&file, "old").unwrap();
        to(file.clone()).check().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        for path in [folder.path().to_owned(), folder.path().join("no/f.json")] {
            let error = to(path.clone()).check().unwrap_err().to_string();
            assert!(error.contains("--json") && error.contains(path.to_str().unwrap()), "{error}");
        }
        Output::default().check().unwrap();
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n";
        let expected = "a\n<!-- bench:x -->\n\nnew\n\n<!-- /bench:x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replaced(expected, "x", "new").as_deref(), Some(expected));
        assert_eq!(replaced(page, "y", "new"), None);
    }
}
