// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::paths::Paths;
use crate::run::options::RunOptions;
use crate::{image, run};

/// Runs, tests and packages Alcazar.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunOptions>),
    /// Fetches the untouched kernel of a Debian package and prints its path, for --kernel
    Image {
        /// Kernel package, for example linux-image-amd64; a meta package is followed
        package: String,
    },
}

impl Cli {
    /// Does what was asked for and gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn execute(self) -> Result<u8> {
        let paths = Paths::find()?;
        match self.command {
            Command::Run(options) => run::run(&paths, &options),
            Command::Image { package } => {
                println!("{}", image::kernel(&paths, &package)?.display());
                Ok(0)
            }
        }
    }
}
