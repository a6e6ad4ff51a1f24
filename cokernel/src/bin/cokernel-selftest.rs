// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots and tests the co-kernel on the machine it finds.
#![no_std]
#![no_main]

extern crate alloc;

use cokernel::{BootInfo, ExitCode, machine::MachineExit};

cokernel::entry!(main, MachineExit { debug_exit_port: 0xF4, panic_code: 0x12 });

fn main(boot: &'static BootInfo) -> ExitCode {
    log::info!("hello {:?}", boot.command_line);
    if boot.flag("panic") {
        panic!("asked to")
    }
    ExitCode(0x10)
}
