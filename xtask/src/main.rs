// SPDX-License-Identifier: MIT OR Apache-2.0
//! Developer and operator commands, started as `cargo xtask`.

mod cargo_build;
mod cli;
mod console;
mod cpio;
mod image;
mod kernel_file;
mod memory;
mod paths;
mod platform;
mod process;
mod progress;
mod run;
mod setup;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(run::outcome::FAILED)
        }
    }
}
