// SPDX-License-Identifier: MIT OR Apache-2.0
//! What exits may cost.

use anyhow::{Result, ensure};
use wire::RunReport;

/// Backend whose control block is accessed by instructions that are counted.
const VMX: &str = "vmx";

/// What is counted, as reports name it.
const REASON: &str = "cpuid";

/// CPUIDs that the guest executes at least.
const CPUIDS: u64 = 10_000;

/// VMREADs and VMWRITEs for each CPUID exit: of the exit reason, RIP and RFLAGS, and of RIP.
const MOST_ACCESSES: u64 = 4;

/// Places of the guest with a CPUID, at most. The first exit at each costs one access more, which
/// tells the length of the instruction: the CPU alone knows it without a walk of the guest's page
/// tables, which would cost more.
const MOST_PLACES: u64 = 20;

/// Checks the cost of CPUID exits.
///
/// # Errors
/// When it is higher than it may be, or was not counted.
pub fn of_cpuid(report: &RunReport) -> Result<()> {
    let count = report.exits_for(REASON).map(|exits| exits.count).sum::<u64>();
    let accesses = report.exits_for(REASON).map(|exits| exits.accesses).sum::<u64>();
    ensure!(count >= CPUIDS, "{count} CPUID exits, expected at least {CPUIDS}");
    if report.machine.backend != VMX {
        return Ok(());
    }
    ensure!(accesses > 0, "accesses to the VMCS were not counted");
    ensure!(
        accesses <= count * MOST_ACCESSES + MOST_PLACES,
        "{accesses} accesses to the VMCS for {count} CPUID exits, expected {MOST_ACCESSES} for \
         each and at most {MOST_PLACES} more"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn report(backend: &str, count: u64, accesses: u64) -> RunReport {
        let mut report = sample::report(backend);
        report.vms[0].vcpus[0].exits.push(sample::exits(REASON, count, accesses));
        report
    }

    #[test]
    fn four_accesses_are_allowed_and_five_are_not() {
        assert!(of_cpuid(&report("vmx", 10_010, 40_055)).is_ok());
        assert!(of_cpuid(&report("vmx", 10_000, 40_020)).is_ok());
        let error = of_cpuid(&report("vmx", 10_000, 40_021)).unwrap_err().to_string();
        assert!(error.starts_with("40021 accesses to the VMCS for 10000 CPUID exits"), "{error}");
        assert!(of_cpuid(&report("vmx", 10_000, 0)).is_err());
        assert!(of_cpuid(&report("vmx", 10, 40)).is_err());
        assert!(of_cpuid(&report("svm", 10_000, 0)).is_ok());
    }
}
