// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waits in loops of PAUSEs.

use anyhow::{Result, ensure};
use wire::RunReport;

/// Capabilities, as the backends name them, of CPUs that tell of such a loop.
const LIMITS: [&str; 2] = ["pause_filter", "pause_loop_exiting"];

/// What is counted, as reports name it.
const REASON: &str = "pause";

/// Most exits in a run that waits for a tenth of a second or two. With one for each PAUSE there
/// would be hundreds of thousands.
const MOST: u64 = 5_000;

/// Checks that a guest that waited in a loop was noticed, where the CPU can, but not often.
///
/// # Errors
/// When it was not, or too often.
pub fn is_noticed(report: &RunReport) -> Result<()> {
    let count: u64 = report.exits_for(REASON).map(|exits| exits.count).sum();
    let capabilities = &report.machine.capabilities;
    let able = capabilities.iter().any(|name| LIMITS.contains(&name.as_str()));
    ensure!(able == (count > 0), "{count} exits by PAUSE on a CPU with {capabilities:?}");
    ensure!(count <= MOST, "{count} exits by PAUSE, expected at most {MOST}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn report(capability: &str, count: u64) -> RunReport {
        let mut report = sample::report("svm");
        report.machine.capabilities.push(capability.to_owned());
        report.vms[0].vcpus[0].exits.push(sample::exits(REASON, count, 0));
        report
    }

    #[test]
    fn some_exits_are_expected_where_the_cpu_can() {
        assert!(is_noticed(&report("pause_filter", 300)).is_ok());
        assert!(is_noticed(&report("pause_loop_exiting", 0)).is_err());
        assert!(is_noticed(&report("pause_filter", 300_000)).is_err());
        assert!(is_noticed(&report("nrip_save", 0)).is_ok());
        assert!(is_noticed(&report("nrip_save", 1)).is_err());
    }
}
