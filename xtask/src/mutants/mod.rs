// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: breaks the code on purpose, one rule at a time, and looks whether a test
//! notices.
//!
//! The mutations are data, in `tests/mutants/`, a file for each class of bugs. They are made in a
//! copy of the tree below `target/mutants/`, never in the tree itself.

mod catalogue;
mod outcome;
mod tree;
mod trial;

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use self::catalogue::{Catalogue, Mutation};
use self::outcome::Outcome;
use self::trial::Workshop;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::result_file::ResultFile;

/// Breaks the code on purpose, one rule at a time in a copy of the tree, and checks that the test
/// named for it fails. The last line is "N killed, N survived"
#[derive(Clone, Debug, Args)]
pub struct MutantsOptions {
    /// Only mutations whose class, file or description contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// Write what was found to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// List the mutations, and check that each still fits the code, instead of making them
    #[arg(long)]
    pub list: bool,
}

/// Makes the mutations; the exit status is 1 if a test did not notice one, or one does not compile.
///
/// # Errors
/// When a mutation does not fit the code any more, or its test fails without it.
pub fn run(paths: &Paths, options: &MutantsOptions) -> Result<u8> {
    let mut mutations = Catalogue::read(&paths.root)?.mutations;
    for mutation in &mutations {
        mutation.apply(&paths.root)?;
    }
    if let Some(filter) = &options.filter {
        mutations.retain(|mutation| mutation.mentions(filter));
    }
    ensure!(!mutations.is_empty(), "no mutation is left: give another --filter");
    if options.list {
        for mutation in &mutations {
            println!("{}", outcome::row(mutation, ""));
        }
        println!("{} mutations", mutations.len());
        return Ok(0);
    }
    let json = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let json = json.transpose()?;
    let outcomes = try_all(paths, &mutations)?;
    if let Some(file) = json {
        file.write_json(&outcomes)?;
    }
    let (line, status) = outcome::summary(outcomes.iter().map(|outcome| outcome.verdict));
    println!("{line}");
    Ok(status)
}

/// Tries one after the other, for each change needs the compiler, which uses all CPUs.
fn try_all(paths: &Paths, mutations: &[Mutation]) -> Result<Vec<Outcome>> {
    let workshop = Workshop::open(paths)?;
    workshop.check_tests(mutations)?;
    let mut outcomes = Vec::with_capacity(mutations.len());
    for (index, mutation) in mutations.iter().enumerate() {
        let number = index + 1;
        // Elsewhere the table itself tells how far it is.
        let progress = std::io::stderr()
            .is_terminal()
            .then(|| Progress::start(&format!("mutation {number} of {}", mutations.len())));
        let outcome = workshop.attempt(mutation, number)?;
        drop(progress);
        println!("{}", outcome::row(mutation, outcome.verdict.word()));
        if let Some(log) = &outcome.log {
            println!("{:<8}  log: {}", "", log.display());
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
