// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of the rows: a table for people, JSON for programs.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use wire::RunReport;

use super::drift::Drift;
use super::guest::Guest;
use super::matrix::Cpu;

/// A line of the table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Entry {
    /// Machine.
    pub platform: &'static str,
    /// CPU model.
    pub cpu: &'static str,
    /// Whose virtualization was used; empty if the run did not get as far as a report.
    pub backend: String,
    /// How guest-physical addresses were translated.
    pub paging: &'static str,
    /// `on` if the CPU did what it can of the local APICs' work.
    pub apicv: &'static str,
    /// Guest.
    pub guest: &'static str,
    /// Time that passed outside the machine.
    pub seconds: f64,
    /// Exits of all vCPUs.
    pub exits: u64,
    /// How much the guest's clocks drift, in rows that measure it.
    pub clocks: Vec<Drift>,
    /// `ok`, or what was wrong.
    pub result: String,
}

impl Entry {
    /// An entry for a run that has not begun.
    pub fn new(cpu: &Cpu, guest: &Guest) -> Self {
        Self {
            platform: cpu.platform.name(),
            cpu: cpu.model,
            backend: String::new(),
            paging: cpu.paging.name(),
            apicv: cpu.apicv.name(),
            guest: guest.name,
            seconds: 0.0,
            exits: 0,
            clocks: Vec::new(),
            result: "ok".into(),
        }
    }

    /// Notes what a report tells.
    pub fn note(&mut self, report: &RunReport) {
        self.exits = report.exits().map(|exits| exits.count).sum();
        self.backend.clone_from(&report.machine.backend);
    }
}

/// The entries, collected from rows that run at once.
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Mutex<Vec<Entry>>>);

impl Table {
    /// Adds a line.
    pub fn enter(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// The lines in an order that does not depend on which row ended first.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        entries.sort_by_key(|entry| {
            let Entry { platform, cpu, paging, apicv, guest, .. } = *entry;
            (platform, cpu, paging, apicv, guest)
        });
        entries
    }
}

/// The table for people.
pub fn text(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:<9} {:<25} {:<8} {:<7} {:<5} {:<14} {:>8} {:>9}  {}\n",
        "platform", "CPU", "backend", "paging", "apicv", "guest", "seconds", "exits", "result"
    );
    for entry in entries {
        text.push_str(&format!(
            "{:<9} {:<25} {:<8} {:<7} {:<5} {:<14} {:>8.1} {:>9}  {}\n",
            entry.platform,
            entry.cpu,
            entry.backend,
            entry.paging,
            entry.apicv,
            entry.guest,
            entry.seconds,
            entry.exits,
            entry.result
        ));
    }
    text + &clocks(entries)
}

/// The drift of each clock in each row that measures it.
fn clocks(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries.iter().filter(|entry| !entry.clocks.is_empty()) {
        let Entry { platform, cpu, paging, guest, .. } = entry;
        text.push_str(&format!("drift in ppm, {platform} {cpu} {paging} {guest}:"));
        for Drift { clock, ppm } in &entry.clocks {
            text.push_str(&format!(" {clock} {ppm:+.2}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regress::matrix::CPUS;

    fn entry() -> Entry {
        let cpu = &CPUS[0];
        let entry = Entry::new(cpu, &cpu.tested[0]);
        Entry { backend: "svm".into(), seconds: 1.25, exits: 7, ..entry }
    }

    #[test]
    fn the_table_has_a_line_for_each_entry() {
        let text = text(&[entry()]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("7  ok\n"));
    }

    #[test]
    fn drifts_follow_the_table() {
        let clocks = vec![Drift { clock: "hpet".into(), ppm: -1.5 }];
        let text = text(&[entry(), Entry { clocks, ..entry() }]);
        let last = text.lines().last().unwrap();
        assert!(text.lines().count() == 4 && last.ends_with("cloud: hpet -1.50"), "{text}");
    }

    #[test]
    fn an_entry_names_everything() {
        let json = serde_json::to_value([entry()]).unwrap();
        let names = [
            "platform", "cpu", "backend", "paging", "apicv", "guest", "seconds", "exits", "clocks",
        ];
        for name in names {
            assert!(!json[0][name].is_null(), "{name}");
        }
    }
}
