// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shadow paging has to show.

use anyhow::{Context, Result, ensure};
use wire::RunReport;

/// Shadow tables that fit into 2 MiB.
const TABLES: u64 = (2 << 20) / 4096;

/// Checks that a budget of 2 MiB was too small for the guest, and was kept all the same.
///
/// # Errors
/// When no table had to go, or there were too many.
pub fn evicts_from_two_mib(report: &RunReport) -> Result<()> {
    let evicted = counter(report, "evicted")?;
    ensure!(evicted > 0, "no shadow table had to go: the guest was given too little to do");
    for (name, bound) in [("tables_most", TABLES), ("tables_peak", TABLES)] {
        let count = counter(report, name)?;
        ensure!(count <= bound, "{name} is {count}, above the budget of {bound} shadow tables");
    }
    Ok(())
}

fn counter(report: &RunReport, name: &str) -> Result<u64> {
    let mut counters = report.vms.iter().flat_map(|vm| &vm.shadow);
    let found = counters.find(|counter| counter.name == name);
    Ok(found.with_context(|| format!("the report does not count '{name}'"))?.count)
}

#[cfg(test)]
mod tests {
    use wire::Counter;

    use super::super::sample;
    use super::*;

    fn check(evicted: u64, peak: u64) -> Result<()> {
        let mut report = sample::report("svm");
        let counters = [("evicted", evicted), ("tables_most", TABLES), ("tables_peak", peak)];
        let named = counters.map(|(name, count)| Counter { name: name.to_owned(), count });
        report.vms[0].shadow.extend(named);
        evicts_from_two_mib(&report)
    }

    #[test]
    fn tables_have_to_go_and_to_stay_within_the_budget() {
        assert!(check(1, TABLES).is_ok());
        assert!(check(0, TABLES).is_err());
        assert!(check(1, TABLES + 1).is_err());
        assert!(evicts_from_two_mib(&sample::report("svm")).is_err(), "nested paging");
    }
}
