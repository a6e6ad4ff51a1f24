// SPDX-License-Identifier: MIT OR Apache-2.0
//! One row of a test run.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How many tests of a row passed and failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
}

impl Tally {
    /// One test that passed.
    pub const ONE: Self = Self { passed: 1, failed: 0 };

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed.saturating_add(other.passed),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// A row's log file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts a log in `folder` for the row `name`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let path = folder.join(format!("{}.log", name.chars().map(plain).collect::<String>()));
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to it. A full disk must not hide a test's own result, so failure is ignored.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.file.write_all(bytes);
    }

    /// Adds a line to it.
    pub fn line(&mut self, line: impl fmt::Display) {
        self.write(format!("{line}\n").as_bytes());
    }
}

/// What a row does; an error counts as one failed test.
type Action = Box<dyn FnOnce(&mut Log) -> Result<Tally> + Send>;

/// One row: a name and what to do.
pub struct Row {
    /// Unique; `group/what`.
    pub name: String,
    /// Whether it uses all CPUs and so runs alone.
    pub exclusive: bool,
    action: Action,
}

impl Row {
    /// A row that may run beside others.
    pub fn new(
        name: impl Into<String>,
        action: impl FnOnce(&mut Log) -> Result<Tally> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), exclusive: false, action: Box::new(action) }
    }

    /// The same row, run alone.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Why it failed.
    pub fn run(self, log: &mut Log) -> Result<Tally> {
        (self.action)(log)
    }
}
