// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots and tests the co-kernel on the machine it finds.
//!
//! The last line of the log says `N passed, N failed`. The command line can ask for more:
//! `panic` and `fault=KIND` (`page`, `opcode`, `protection`, `stack`) end the machine by a
//! panic or an exception; `far-deadline` adds a test of 5 seconds; `console` echoes what
//! arrives on the first serial port until a byte 4, and then says how much it was.
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod cpus;
mod faults;
mod memory;
mod pages;
mod timers;

use cokernel::{BootInfo, ExitCode, machine::MachineExit};

cokernel::entry!(main, MachineExit { debug_exit_port: 0xF4, panic_code: 0x12 });

/// All tests passed.
const PASSED: ExitCode = ExitCode(0x10);
/// A test failed.
const FAILED: ExitCode = ExitCode(0x11);

/// What a test says: nothing, or what was wrong.
type Outcome = Result<(), &'static str>;

/// A test: its name and what it does.
type Test = (&'static str, fn() -> Outcome);

/// Fails the test with `complaint` unless `condition` holds.
fn ensure(condition: bool, complaint: &'static str) -> Outcome {
    if condition { Ok(()) } else { Err(complaint) }
}

fn main(boot: &'static BootInfo) -> ExitCode {
    describe(boot);
    if boot.flag("panic") {
        panic!("as asked on the command line");
    }
    if let Some(kind) = boot.option("fault") {
        faults::cause(kind);
    }
    if boot.flag("console") {
        console::echo();
    }
    let long: &[Test] = if boot.flag("far-deadline") { timers::LONG } else { &[] };
    let (mut passed, mut failed) = (0, 0);
    let tests = [memory::TESTS, pages::TESTS, timers::TESTS, cpus::TESTS, long];
    for (name, test) in tests.into_iter().flatten() {
        match test() {
            Ok(()) => {
                passed += 1;
                log::debug!("ok: {name}");
            }
            Err(complaint) => {
                failed += 1;
                log::error!("FAILED: {name}: {complaint}");
            }
        }
    }
    log::info!("{passed} passed, {failed} failed");
    if failed == 0 { PASSED } else { FAILED }
}

fn describe(boot: &BootInfo) {
    log::info!("{:?}", cokernel::machine_facts());
    log::info!("command line: {:?}", boot.command_line);
    for module in &boot.modules {
        let sum = module.bytes().iter().fold(0u64, |sum, byte| sum + u64::from(*byte));
        log::info!("module at {}: {} bytes, sum {sum}", module.start, module.length);
    }
}
