// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bootable image: the VMM on the co-kernel.
//!
//! It reads the bundle that the boot loader passed as a module, runs the VMs that the bundle's
//! manifest lists, and writes a report to the log.
#![no_std]
#![no_main]

extern crate alloc;

mod console;
#[cfg(feature = "fault-injection")]
mod faults;
#[cfg(not(feature = "fault-injection"))]
#[path = "no_faults.rs"]
mod faults;
mod host;
mod interrupts;
mod overdue;
mod report;
mod round;
mod service;
mod torture;
mod vm;

use cokernel::{BootInfo, ExitCode, machine::MachineExit};
use vmm_core::{
    backend::{Backend, Unsupported},
    svm::Svm,
    vmx::Vmx,
};
use wire::{Bundle, machine_exit};

use host::COKERNEL;

cokernel::entry!(
    main,
    MachineExit { debug_exit_port: machine_exit::PORT, panic_code: machine_exit::PANIC }
);

fn main(boot: &'static BootInfo) -> ExitCode {
    let archive = boot.modules.first().map_or(&[][..], |module| module.bytes());
    let bundle = match Bundle::read(archive) {
        Ok(bundle) => bundle,
        Err(error) => {
            log::error!("{error}");
            return ExitCode(machine_exit::BAD_BUNDLE);
        }
    };
    match run(&bundle) {
        Ok(()) => ExitCode(machine_exit::DONE),
        Err(error) => {
            log::error!("{error}");
            ExitCode(machine_exit::UNSUPPORTED)
        }
    }
}

/// Runs the bundle on the backend of this machine, which is chosen here for good.
fn run(bundle: &Bundle<'_>) -> Result<(), Unsupported> {
    match Svm::probe(&COKERNEL) {
        Ok(backend) => run_on(backend, bundle),
        Err(Unsupported::NoExtension) => run_on(Vmx::probe(&COKERNEL)?, bundle),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn run_on<B: Backend>(backend: B, bundle: &Bundle<'_>) {
    log::info!("{} with {}", B::NAME, backend.capabilities().join(", "));
    let report = service::run(backend, bundle);
    match serde_json::to_string(&report) {
        Ok(json) => cokernel::write_line(&alloc::format!("{}{json}", wire::REPORT_PREFIX)),
        Err(error) => log::error!("the report could not be written: {error}"),
    }
}
