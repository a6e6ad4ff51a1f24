// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUID, model-specific, control and debug registers, and the instructions around them.

mod control;
mod identification;
mod msr;
mod system_call;
mod virtualization;

use crate::rt::report::Report;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    identification::run(&mut report);
    msr::run(&mut report);
    system_call::run(&mut report);
    control::run(&mut report);
    virtualization::run(&mut report);
    report.finish()
}
