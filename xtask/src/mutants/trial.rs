// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the copy of the tree with a mutation and runs the test that has to notice it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::catalogue::Mutation;
use super::outcome::{Outcome, Verdict};
use super::tree::Tree;
use crate::cargo_build::{self, cargo};
use crate::paths::Paths;
use crate::process::{self, OwnedChild};
use crate::progress::Progress;

/// Time for a unit test: one that a mutation has made endless is noticed as well.
const UNIT_LIMIT: Duration = Duration::from_secs(60);

/// Debug information takes as long as the compiler's work on a changed crate, and no one reads it.
const BUILD: [(&str, &str); 2] =
    [("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_PROFILE_TEST_DEBUG", "0")];

/// Begin of the names of the compiler's logs of outdated mutations.
const OUTDATED: &str = "outdated-";

/// The copy of the tree, what is built of it, and the right to use both.
#[derive(Debug)]
pub struct Workshop {
    tree: Tree,
    /// Target folder of the copy, kept from run to run.
    target: PathBuf,
    log: PathBuf,
    /// Locked as long as this exists.
    _lock: File,
}

/// How a test ended.
#[derive(Debug)]
enum Ended {
    Passed,
    Failed,
    /// It ran into its time limit.
    Endless,
}

impl Workshop {
    /// Brings the copy up to date. Waits while another command works in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(paths: &Paths) -> Result<Self> {
        let folder = paths.target.join("mutants");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            let _waiting = Progress::start("waiting for another 'cargo xtask mutants'");
            lock.lock()?;
        }
        remove_old_logs(&folder)?;
        let tree = Tree::refresh(&paths.root, folder.join("tree"))?;
        let (target, log) = (folder.join("target"), folder.join("test.log"));
        Ok(Self { tree, target, log, _lock: lock })
    }

    /// Runs all unit tests that are to notice something on the code as it is: they exist, and pass.
    ///
    /// # Errors
    /// When one does not.
    pub fn check_tests(&self, mutations: &[Mutation]) -> Result<()> {
        let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for mutation in mutations {
            let tests = tests.entry(&mutation.package).or_default();
            if !tests.contains(&mutation.test.as_str()) {
                tests.push(&mutation.test);
            }
        }
        for (package, tests) in tests {
            let _progress = Progress::start(&format!("building and running tests of {package}"));
            let binary = self.build_tests(package)?.with_context(|| {
                format!("{package} does not compile; see {}", self.log.display())
            })?;
            let ended = self.run_tests(&binary, &tests, UNIT_LIMIT * tests.len() as u32)?;
            let output = fs::read_to_string(&self.log)?;
            let expected = format!("test result: ok. {} passed;", tests.len());
            ensure!(
                matches!(ended, Ended::Passed) && output.contains(&expected),
                "{package}: not all tests of the lists exist and pass without a mutation; see {}",
                self.log.display()
            );
        }
        Ok(())
    }

    /// Makes a mutation, runs its test and takes the mutation back. `number` tells it from others.
    ///
    /// # Errors
    /// When the test cannot be run.
    pub fn attempt(&self, mutation: &Mutation, number: usize) -> Result<Outcome> {
        let start = Instant::now();
        let applied = self.tree.mutate(mutation)?;
        let mut log = None;
        let verdict = match self.build_tests(&mutation.package)? {
            Some(binary) => match self.run_tests(&binary, &[&mutation.test], UNIT_LIMIT)? {
                Ended::Passed => Verdict::Survived,
                Ended::Failed | Ended::Endless => Verdict::Killed,
            },
            None => {
                let kept = self.log.with_file_name(format!("{OUTDATED}{number}.log"));
                fs::rename(&self.log, &kept)?;
                log = Some(kept);
                Verdict::Outdated
            }
        };
        drop(applied);
        Ok(Outcome {
            class: mutation.class.clone(),
            what: mutation.what.clone(),
            file: mutation.file.clone(),
            test: mutation.test.clone(),
            verdict,
            seconds: start.elapsed().as_secs_f64(),
            log,
        })
    }

    /// Builds the unit tests of a crate's library; none if they do not compile.
    fn build_tests(&self, package: &str) -> Result<Option<PathBuf>> {
        let mut command = self.cargo();
        command.args(["test", "--package", package, "--lib", "--no-run"]);
        command.args(["--message-format", "json-render-diagnostics"]);
        let output = process::capture_silently(&mut command)?;
        if !output.status.success() {
            fs::write(&self.log, &output.stderr)?;
            ensure!(
                String::from_utf8_lossy(&output.stderr).contains("error: could not compile"),
                "Cargo failed before the compiler did; see {}",
                self.log.display()
            );
            return Ok(None);
        }
        let built = cargo_build::executables(&String::from_utf8_lossy(&output.stdout));
        let (_, path) = built.into_iter().next().context("Cargo made no tests")?;
        Ok(Some(path))
    }

    /// Runs tests by their full names; their output goes to the log.
    fn run_tests(&self, binary: &Path, tests: &[&str], limit: Duration) -> Result<Ended> {
        let mut command = Command::new(binary);
        // Failing cases of property tests would be noted down as such in the copy.
        command.current_dir(self.tree.path()).env("PROPTEST_FAILURE_PERSISTENCE", "off");
        command.arg("--exact").args(tests);
        let ended = self.run_limited(command, limit)?;
        if matches!(ended, Ended::Failed) {
            let output = fs::read_to_string(&self.log)?;
            ensure!(
                output.contains("test result: FAILED"),
                "the tests were not run to their end; see {}",
                self.log.display()
            );
        }
        Ok(ended)
    }

    fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(self.tree.path()).envs(BUILD).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Runs a command with its output in the log.
    fn run_limited(&self, mut command: Command, limit: Duration) -> Result<Ended> {
        let log = File::create(&self.log)?;
        command.stdin(std::process::Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let mut child = OwnedChild::spawn(&mut command)?;
        Ok(match child.wait_until(Instant::now() + limit)? {
            Some(status) if status.success() => Ended::Passed,
            Some(_) => Ended::Failed,
            None => Ended::Endless,
        })
    }
}

/// Removes the compiler's logs of an earlier run.
fn remove_old_logs(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(OUTDATED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
