// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every exception a guest can raise on itself: vector, error code, reported RIP and CR2.
//!
//! Expectations follow the AMD APM volume 2, chapter 8, and the Intel SDM volume 3, chapter 6.

mod debug;
mod delivery;
mod float;
mod page_fault;
mod plain;
mod segment;

use crate::rt::report::Report;
use crate::rt::start_info::is_tcg_cpu;
use crate::rt::trap::Trap;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    plain::run(&mut report);
    debug::run(&mut report);
    segment::run(&mut report);
    page_fault::run(&mut report);
    float::run(&mut report);
    delivery::run(&mut report);
    report.finish()
}

/// Passes for a fault: reported on the instruction itself.
fn fault(report: &mut Report, name: &str, trap: Trap, vector: u64, error: u64) {
    let got = (trap.frame.vector, trap.frame.error, trap.at_instruction());
    report.equal(name, got, (vector, error, true));
}

/// Passes for a trap: reported behind the instruction.
fn trap_behind(report: &mut Report, name: &str, trap: Trap, vector: u64) {
    let got = (trap.frame.vector, trap.frame.error, trap.behind_instruction());
    report.equal(name, got, (vector, 0, true));
}

/// Error code of a fault met in the IDT: the index there, the IDT bit, and the EXT bit for
/// events other than INT n. QEMU's TCG counts the index double and knows no EXT bit.
fn gate_error(vector: u64, external: bool) -> u64 {
    if is_tcg_cpu() { vector * 16 + 2 } else { vector * 8 + 2 + u64::from(external) }
}
