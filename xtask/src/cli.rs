// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::fmt;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::check::CheckOptions;
use crate::clean::CleanOptions;
use crate::disk::Need;
use crate::faults::FaultsOptions;
use crate::fuzz::FuzzOptions;
use crate::iso::IsoOptions;
use crate::miri::MiriOptions;
use crate::mutants::MutantsOptions;
use crate::paths::Paths;
use crate::platform::bochs::{self, BochsOptions};
use crate::regress::RegressOptions;
use crate::run::options::RunOptions;
use crate::test::TestOptions;
use crate::torture::TortureOptions;
use crate::{
    bench, check, clean, deny, disk, faults, fuzz, image, iso, lint, miri, mutants, regress, run,
    setup, test, torture,
};

/// Exit status of usage errors.
pub const USAGE: u8 = 2;

/// Runs, tests and packages Alcazar.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunOptions>),
    Check(CheckOptions),
    Test(TestOptions),
    Regress(RegressOptions),
    Bench(BenchOptions),
    Faults(FaultsOptions),
    Fuzz(FuzzOptions),
    Mutants(MutantsOptions),
    Torture(TortureOptions),
    Iso(IsoOptions),
    Setup(SetupOptions),
    /// Is a machine made by Bochs
    #[command(name = bochs::COMMAND, hide = true)]
    BochsMachine(BochsOptions),
    /// Fetches the untouched kernel of a Debian package and prints its path, for --kernel
    Image {
        /// Kernel package, for example linux-image-amd64 or linux-image-686-pae:i386; a meta
        /// package is followed
        package: String,
        /// Unpack it: the path is that of the ELF file inside, which is started by PVH
        #[arg(long)]
        elf: bool,
    },
    Miri(MiriOptions),
    /// Has cargo-deny check the dependencies by deny.toml; installs it if it is missing
    Deny,
    /// Checks rules of this repository: license lines, dependencies between its crates and on
    /// others, and what the code of one CPU vendor and the rest may know of each other
    Lint,
    Clean(CleanOptions),
}

/// Installs what is missing: Debian packages and the Rust target. It says what it does; without
/// root or sudo it prints the command to run instead.
#[derive(Clone, Copy, Debug, Args)]
struct SetupOptions {
    /// Also what 'iso' needs
    #[arg(long)]
    iso: bool,
    /// Also what '--platform bochs' needs
    #[arg(long)]
    bochs: bool,
    /// Also what 'test' and '.ci/run' need: both of these, and enough space on the disk
    #[arg(long)]
    tests: bool,
}

impl SetupOptions {
    fn run(self) -> Result<u8> {
        setup::ensure_all(self.iso || self.tests)?;
        if self.bochs || self.tests {
            setup::ensure_bochs()?;
        }
        Ok(0)
    }
}

/// The command line cannot be understood.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Reads the command line. Prints help and version where asked for, and ends the program then.
///
/// # Errors
/// A [`UsageError`] of one line.
pub fn parse() -> Result<Cli> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => UsageError(one_line(&error.to_string())).into(),
    })
}

/// The parser's message, without usage and hints, on one line.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let first: Vec<&str> =
        message.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    format!("{} (see --help)", first.join(" "))
}

impl Command {
    /// What it needs on the disk, if it builds anything.
    fn need(&self) -> Option<Need> {
        match self {
            Self::Setup(SetupOptions { tests: true, .. }) => Some(Need::TESTS),
            Self::Test(options) if !options.list => Some(Need::TESTS),
            Self::Regress(_) | Self::Bench(_) | Self::Torture(_) => Some(Need::MACHINES),
            Self::Faults(_) | Self::Fuzz(_) | Self::Miri(_) => Some(Need::APART),
            Self::Mutants(options) if !options.list => Some(Need::APART),
            Self::Run(_) | Self::Iso(_) | Self::Setup(_) => Some(Need::RUN),
            Self::Test(_) | Self::Mutants(_) | Self::Check(_) | Self::BochsMachine(_) => None,
            Self::Image { .. } | Self::Deny | Self::Lint | Self::Clean(_) => None,
        }
    }
}

impl Cli {
    /// Does what was asked for and gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn execute(self) -> Result<u8> {
        let paths = Paths::find()?;
        if let Some(need) = self.command.need() {
            disk::ensure(&paths.target, need)?;
        }
        match self.command {
            Command::Run(options) => run::run(&paths, &options),
            Command::Check(options) => check::run(&paths, options),
            Command::Test(options) => test::run(&paths, &options),
            Command::Regress(options) => regress::run(&paths, &options),
            Command::Bench(options) => bench::run(&paths, &options),
            Command::Faults(options) => faults::run(&paths, &options),
            Command::Fuzz(options) => fuzz::run(&paths, &options),
            Command::Mutants(options) => mutants::run(&paths, &options),
            Command::Torture(options) => torture::run(&paths, &options),
            Command::Iso(options) => iso::run(&paths, &options),
            Command::Setup(options) => options.run(),
            Command::BochsMachine(options) => bochs::drive(&options),
            Command::Image { package, elf } => {
                let path = match elf {
                    true => image::vmlinux(&paths, &package)?,
                    false => image::kernel(&paths, &package)?,
                };
                println!("{}", path.display());
                Ok(0)
            }
            Command::Miri(options) => miri::run(&paths, &options),
            Command::Deny => deny::run(&paths),
            Command::Lint => lint::run(&paths),
            Command::Clean(options) => clean::run(&paths, options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let error = Cli::try_parse_from(["xtask", "run", "--paging", "flat"]).unwrap_err();
        let line = one_line(&error.to_string());
        assert!(line.contains("invalid value 'flat'") && line.contains("nested"), "{line}");
        assert!(!line.contains('\n'));
    }
}
