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
use results::Output;

/// What is told after the options.
const RESULTS: &str = "\
Figures are instructions, the same on every machine, unless --wall asks for times, of which only \
ratios within one run mean something. A table goes to standard output, progress to standard error, \
all figures to target/bench/NAME.json and plots to target/bench/NAME.svg. What is measured and how \
to read it: docs/performance.md.

Examples:
  cargo xtask bench all --json all.json
  cargo xtask bench exits --places bare,alcazar
  cargo xtask bench noise --wall --repeat 3";

/// Measures what Alcazar costs, beside the bare machine and Linux KVM.
#[derive(Clone, Debug, Args)]
#[command(after_help = RESULTS)]
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
    fn output(&self) -> &Output {
        match self {
            Self::Boot(options) => &options.output,
            Self::Compute(options) => &options.output,
            Self::Exits(options) => &options.output,
            Self::Memory(options) => &options.output,
            Self::Noise(options) => &options.output,
            Self::Paging(options) => &options.output,
        }
    }

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
        Command::All(options) => {
            options.output.check()?;
            all::run(paths, options)
        }
        Command::One(what) => {
            what.output().check()?;
            what.run(paths).map(|()| 0)
        }
    }
}
