// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for what another guest has left in registers, and then leaves as much as it can: run twice
//! on one CPU, the second finds what the first left, if anything stays.

use super::neighbour::registers::Registers;
use crate::rt::report::Report;

/// Looks, and fills.
pub fn run() -> u32 {
    let mut report = Report::default();
    let found = Registers::read();
    report.equal("MSRs of system calls, and KernelGSBase", found.msrs, [0; 8]);
    report.equal("breakpoint addresses", found.debug, [0; 4]);
    report.equal("vector registers", found.vectors, [0; 16]);
    let filled = Registers::fill();
    report.holds("registers hold what they are filled with", filled.hold(), filled.debug);
    report.finish()
}
