// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every memory instruction form a compiler emits, against memory-mapped registers.
//!
//! The same instruction runs twice at the same linear address, once with memory behind it that
//! holds the same bytes as the device and once with the device: the CPU itself says what an
//! emulator should have made of registers and flags. Devices are a page that nobody owns, for
//! every width, and a redirection entry of the IOAPIC, whose new value is compared too.
//!
//! Option: `more` adds forms that are rare: shifts, multiplications, CMPXCHG8B, SETcc, CMOVcc.

#[macro_use]
mod oracle;
mod fault;
mod forms;
mod rare;
mod register;
mod string;

use crate::rt::report::Report;
use crate::rt::start_info;

/// Runs the tests.
pub fn run() -> u32 {
    let mut report = Report::default();
    forms::run(&mut report);
    string::run(&mut report);
    register::run(&mut report);
    fault::run(&mut report);
    if start_info::has_word("more") {
        rare::run(&mut report);
    }
    report.finish()
}
