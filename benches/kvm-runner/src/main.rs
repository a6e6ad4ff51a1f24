// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a bare-metal guest under Linux KVM: the peer that benchmarks compare Alcazar with.
//!
//! It is the one program of an initial RAM disk: it loads the KVM modules that lie beside it, runs
//! the guest (an ELF file, or a Linux kernel with its own initial RAM disk) as an ordinary KVM user
//! does (in-kernel interrupt controllers and timer, memory with transparent huge pages), prints
//! what the guest wrote to its serial port, and switches the machine off. Nothing is printed while
//! the guest runs, so that the host's console does not disturb what is measured.
//!
//! Behind what the guest wrote it says what that took:
//!
//! ```text
//! timing created=TICKS guest_tsc=TICKS
//! memory before NAME=KIB …
//! memory after NAME=KIB …
//! ```
//!
//! with the ticks from the VM's creation to the first entry into the guest, the guest's own counter
//! at that moment, and the kernel's memory before the VM was made and before it is ended.
//!
//! Options come from the kernel's command line, behind `--`:
//! `memory=MIB`, `cpus=N`, `npt=0|1`, `apart=0|1`, and, which may be repeated, `append=WORD` for the
//! guest and `load=NAME` for other work of the host, see [`load`]. With `apart=1` each vCPU has a
//! CPU for itself, and other work the rest, see [`cpus`].

mod clock;
mod cpus;
mod host;
mod image;
mod linux;
mod load;
mod memory;
mod mp_table;
mod options;
mod ports;
mod serial;
mod start;
mod usage;
mod vm;

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};

use cpus::Share;
use load::{Load, Running};
use memory::GuestMemory;
use options::Options;

/// The guest, in the initial RAM disk, and the one that it gets if it is Linux.
const GUEST: &str = "/guest";
const INITRD: &str = "/initrd";

/// Begins the line that says how it went.
const MARK: &str = "@kvm-runner";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(load::NOTHING) => return ExitCode::SUCCESS,
        Some(load::WORK) => return work(arguments.next().unwrap_or_default().as_str()),
        _ => {}
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

/// Is one of the host's other processes.
fn work(name: &str) -> ExitCode {
    let Err(error) = Load::parse(name).and_then(Load::work);
    eprintln!("load {name}: {error:#}");
    ExitCode::FAILURE
}

/// The CPUs of each vCPU, and those of other work.
fn shares(options: &Options) -> Result<(Vec<Share>, Share)> {
    let vcpus = usize::try_from(options.cpus)?;
    if options.apart {
        let cpus = thread::available_parallelism().context("cannot count the CPUs")?;
        cpus::apart(cpus.get(), vcpus)
    } else {
        Ok((vec![Share::Any; vcpus], Share::Any))
    }
}

/// Runs the guest and gives its exit value.
fn run() -> Result<u32> {
    let options = Options::parse(std::env::args().skip(1))?;
    host::prepare(&options)?;
    let file = fs::read(GUEST).with_context(|| format!("cannot read {GUEST}"))?;
    let initrd = match fs::read(INITRD) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {INITRD}"))?,
    };
    let before = usage::line()?;
    let begin = clock::tsc();
    let mut memory = GuestMemory::allocate(options.memory_mib << 20)?;
    let entry = image::load(&file, &initrd, &options, &mut memory)?;
    let (vcpus, others) = shares(&options)?;
    let mut loads =
        options.loads.iter().map(|load| load.start(others)).collect::<Result<Vec<_>>>()?;
    let end = vm::run(vcpus, memory, entry)?;
    loads.iter_mut().try_for_each(Running::check)?;
    println!("{}", String::from_utf8_lossy(&end.console));
    println!("timing created={} guest_tsc={}", end.started.host - begin, end.started.guest);
    println!("memory before {before}");
    println!("memory after {}", end.memory);
    Ok(end.code)
}
