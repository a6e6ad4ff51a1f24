// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: measurements.

mod all;
mod boot;
pub mod compute;
pub mod exits;
mod figures;
mod layout;
mod machine;
pub mod memory;
pub mod noise;
mod paging;
mod peer;
mod place;
mod plot;
mod probe;
mod results;
mod spread;
mod targets;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::paths::Paths;

/// Measures Alcazar.
#[derive(Clone, Debug, Args)]
pub struct BenchOptions {
    #[command(subcommand)]
    what: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    All(all::AllOptions),
    #[command(flatten)]
    One(What),
}

/// One benchmark.
#[derive(Clone, Debug, Subcommand)]
enum What {
    Boot(boot::BootOptions),
    Compute(compute::ComputeOptions),
    Exits(exits::ExitsOptions),
    Memory(memory::MemoryOptions),
    Noise(noise::NoiseOptions),
    Paging(paging::PagingOptions),
}

impl What {
    fn run(&self, paths: &Paths) -> Result<()> {
        match self {
            Self::Boot(options) => boot::run(paths, options),
            Self::Compute(options) => compute::run(paths, options),
            Self::Exits(options) => exits::run(paths, options),
            Self::Memory(options) => memory::run(paths, options),
            Self::Noise(options) => noise::run(paths, options),
            Self::Paging(options) => paging::run(paths, options),
        }
    }
}

/// Measures what was asked for, prints it, and gives the exit status of the command.
///
/// # Errors
/// When a measurement fails; of all together none does, see [`all::run`].
pub fn run(paths: &Paths, options: &BenchOptions) -> Result<u8> {
    match &options.what {
        Command::All(options) => all::run(paths, options),
        Command::One(what) => what.run(paths).map(|()| 0),
    }
}
