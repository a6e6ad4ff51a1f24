// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a command for a row and notes everything in its log.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::row::Log;
use crate::process::{self, OwnedChild};

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command with its input and time limit.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Invocation {
    /// This very program with other arguments.
    ///
    /// # Errors
    /// When its file cannot be found.
    pub fn xtask(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        Ok(Self::new(command))
    }

    /// Any command.
    pub fn new(command: Command) -> Self {
        Self { command, stdin: Vec::new(), limit: Duration::from_secs(120) }
    }

    /// Gives it standard input; there is none by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Gives it more or less time than two minutes.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, does not end in time or is killed.
    pub fn run(mut self, log: &mut Log) -> Result<Answer> {
        log.line(format_args!("$ {}", process::command_line(&self.command)));
        let mut stdin = tempfile::tempfile()?;
        stdin.write_all(&self.stdin)?;
        stdin.rewind()?;
        let (stdout, stderr) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
        self.command.stdin(stdin).stdout(reopen(&stdout)?).stderr(reopen(&stderr)?);
        let mut child = OwnedChild::spawn(&mut self.command)?;
        let status = child.wait_until(Instant::now() + self.limit)?;
        drop(child);
        let (stdout, stderr) = (fs::read(stdout.path())?, fs::read(stderr.path())?);
        log.write(&stderr);
        log.write(&stdout);
        let Some(status) = status else {
            bail!("it did not end within {} s", self.limit.as_secs());
        };
        log.line(format_args!("=> {status}"));
        Ok(Answer {
            status: status.code().context("it was killed")?,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

fn reopen(file: &tempfile::NamedTempFile) -> Result<File> {
    Ok(file.as_file().try_clone()?)
}

impl Answer {
    /// Checks the exit status.
    ///
    /// # Errors
    /// When it is another one.
    pub fn expect_status(&self, status: i32) -> Result<()> {
        ensure!(self.status == status, "exit status {}, expected {status}", self.status);
        Ok(())
    }

    /// Checks that there is exactly one error line and that it contains `text`.
    ///
    /// # Errors
    /// When that is not so.
    pub fn expect_one_error(&self, text: &str) -> Result<()> {
        let lines: Vec<&str> =
            self.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        let [line] = lines[..] else { bail!("{} error lines, expected one", lines.len()) };
        ensure!(line.contains(text), "the error line does not contain '{text}': {line}");
        Ok(())
    }
}
