// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the shadow MMU did, counted.

/// Counters of one VM's shadow MMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShadowStatistics {
    /// Tables in use now.
    pub tables: u64,
    /// The most that ever were at once.
    pub tables_peak: u64,
    /// The most that may be.
    pub tables_most: u64,
    /// Page faults of the shadow tables that were mended without the guest's knowledge.
    pub faults_fixed: u64,
    /// Page faults that are the guest's, and were given to it.
    pub faults_forwarded: u64,
    /// Page faults that were accesses to devices, or to where nothing is.
    pub faults_mmio: u64,
    /// Writes of the guest to its tables that were emulated.
    pub table_writes: u64,
    /// Tables that the guest was let write until it drops translations.
    pub unsynced: u64,
    /// Tables that were brought up to date after that.
    pub resynced: u64,
    /// Tables made.
    pub made: u64,
    /// Tables given up because the budget was used up.
    pub evicted: u64,
    /// Tables given up because the guest wrote to what they shadow as if it were data.
    pub flooded: u64,
    /// Roots loaded: CR3 and what changes the mode of paging.
    pub roots_loaded: u64,
    /// Addresses that the guest invalidated.
    pub invalidations: u64,
    /// Flushes of the vCPUs' translations.
    pub flushes: u64,
}

impl ShadowStatistics {
    /// All counters with their names in reports.
    pub fn named(&self) -> [(&'static str, u64); 15] {
        [
            ("tables", self.tables),
            ("tables_peak", self.tables_peak),
            ("tables_most", self.tables_most),
            ("faults_fixed", self.faults_fixed),
            ("faults_forwarded", self.faults_forwarded),
            ("faults_mmio", self.faults_mmio),
            ("table_writes", self.table_writes),
            ("unsynced", self.unsynced),
            ("resynced", self.resynced),
            ("made", self.made),
            ("evicted", self.evicted),
            ("flooded", self.flooded),
            ("roots_loaded", self.roots_loaded),
            ("invalidations", self.invalidations),
            ("flushes", self.flushes),
        ]
    }
}
