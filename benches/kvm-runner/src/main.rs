// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a bare-metal guest under Linux KVM: the peer that benchmarks compare Alcazar with.
//!
//! It is the one program of an initial RAM disk: it loads the KVM modules that lie beside it, runs
//! the guest as an ordinary KVM user does (in-kernel interrupt controllers and timer, memory with
//! transparent huge pages), prints what the guest wrote to its serial port, and switches the
//! machine off. Nothing is printed while the guest runs, so that the host's console does not
//! disturb what is measured.
//!
//! Options come from the kernel's command line, behind `--`:
//! `memory=MIB`, `cpus=N`, `npt=0|1`, and, which may be repeated, `append=WORD` for the guest and
//! `load=NAME` for other work of the host, see [`load`].

mod host;
mod image;
mod load;
mod memory;
mod options;
mod ports;
mod vm;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use memory::GuestMemory;
use options::Options;

/// The guest, in the initial RAM disk.
const GUEST: &str = "/guest";

/// Begins the line that says how it went.
const MARK: &str = "@kvm-runner";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == load::NOTHING) {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(code) => println!("{MARK} guest ended with {code}"),
        Err(error) => println!("{MARK} error: {error:#}"),
    }
    // Comes back only if this is not process 1 of a machine of its own.
    match host::power_off() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvm-runner is the init program of a benchmark machine: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the guest and gives its exit value.
fn run() -> Result<u32> {
    let options = Options::parse(std::env::args().skip(1))?;
    host::prepare(&options)?;
    let mut memory = GuestMemory::allocate(options.memory_mib << 20)?;
    let file = fs::read(GUEST).with_context(|| format!("cannot read {GUEST}"))?;
    let entry = image::load(&file, &options.append.join(" "), &mut memory)?;
    for load in &options.loads {
        load.start()?;
    }
    let end = vm::run(&options, memory, entry)?;
    print!("{}", String::from_utf8_lossy(&end.console));
    Ok(end.code)
}
