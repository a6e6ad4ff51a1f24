// SPDX-License-Identifier: MIT OR Apache-2.0
//! Developer and operator commands, started as `cargo xtask`.

mod architecture;
mod bench;
mod cargo_build;
mod check;
mod clean;
mod cli;
mod console;
mod cpio;
mod deny;
mod disk;
mod faults;
mod fuzz;
mod image;
mod iso;
mod kernel_file;
mod lint;
mod memory;
mod miri;
mod mutants;
mod paths;
mod platform;
mod process;
mod progress;
mod regress;
mod result_file;
mod run;
mod setup;
mod test;
mod torture;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse().and_then(cli::Cli::execute) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.is::<cli::UsageError>();
            ExitCode::from(if usage { cli::USAGE } else { run::outcome::FAILED })
        }
    }
}
