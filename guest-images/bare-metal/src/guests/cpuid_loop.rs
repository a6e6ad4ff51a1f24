// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executes CPUID over and over, at one place.
//!
//! Option: `count=N`, how often (10,000 if absent).

use core::hint::black_box;

use crate::rt::{cpu::cpuid, report::Report, start_info};

const DEFAULT_COUNT: u32 = 10_000;

/// Executes them, and checks that all have the same answer.
pub fn run() -> u32 {
    let mut report = Report::default();
    let option = start_info::words().find_map(|word| word.strip_prefix("count="));
    let count = option.and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_COUNT);
    let expected = cpuid(0, 0);
    let mut different = 0;
    for _ in 0..count {
        different += u32::from(cpuid(black_box(0), 0) != expected);
    }
    report.equal("answers that differ", different, 0);
    report.finish()
}
