// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: measurements.

mod boot;
pub mod exits;
mod figures;
mod layout;
mod machine;
mod memory;
mod paging;
mod peer;
mod place;
mod plot;
mod probe;
mod results;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::paths::Paths;

/// Measures Alcazar.
#[derive(Clone, Debug, Args)]
pub struct BenchOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Boot(boot::BootOptions),
    Exits(exits::ExitsOptions),
    Memory(memory::MemoryOptions),
    Paging(paging::PagingOptions),
}

/// Measures what was asked for and prints it.
///
/// # Errors
/// When a measurement fails.
pub fn run(paths: &Paths, options: &BenchOptions) -> Result<u8> {
    match &options.what {
        What::Boot(options) => boot::run(paths, options)?,
        What::Exits(options) => exits::run(paths, options)?,
        What::Memory(options) => memory::run(paths, *options)?,
        What::Paging(options) => paging::run(paths, options)?,
    }
    Ok(0)
}
