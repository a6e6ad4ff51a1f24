// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of CPUs, and that each runs threads.

use std::thread;

use crate::Options;
use crate::affinity::{bind, current, online};
use crate::report::Report;

/// Looks at all CPUs.
pub fn run(report: &mut Report, options: &Options) {
    let Some(cpus) = report.need("online", online()) else { return };
    if let Some(expected) = options.get("cpus") {
        report.equal("online", cpus.len() as u64, expected);
    }
    for cpu in cpus {
        let ran = thread::spawn(move || bind(cpu).map(|()| current())).join();
        let ran = ran.ok().and_then(Result::ok).flatten();
        report.equal(format_args!("CPU {cpu} runs a thread"), ran, Some(cpu));
    }
}
