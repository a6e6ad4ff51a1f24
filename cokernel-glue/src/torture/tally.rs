// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rounds came to.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use wire::{Counter, EndKind, HostMemory, TortureFault, TortureReport, VmReport};

use crate::service::memory_in_use;

/// Faults that are told; no further round begins then.
const MOST_FAULTS: usize = 8;

/// Counts, round by round.
#[derive(Default)]
pub struct Tally {
    seed: u64,
    rounds: u64,
    ends: BTreeMap<String, u64>,
    exits: BTreeMap<String, u64>,
    checks: u64,
    watched_bytes: u64,
    faults: Vec<TortureFault>,
    /// Least and most memory in use between two rounds.
    memory: Option<(HostMemory, HostMemory)>,
}

impl Tally {
    /// A round begins.
    pub fn begin(&mut self, seed: u64) {
        self.seed = seed;
        let now = memory_in_use(&[]);
        let (least, most) = self.memory.get_or_insert((now, now));
        least.free_frames = least.free_frames.min(now.free_frames);
        least.heap_bytes = least.heap_bytes.min(now.heap_bytes);
        most.free_frames = most.free_frames.max(now.free_frames);
        most.heap_bytes = most.heap_bytes.max(now.heap_bytes);
    }

    /// It has ended like this; refused entries whose reasons are `tolerated` are no faults.
    pub fn end(&mut self, reports: &[VmReport], tolerated: &[String]) {
        self.rounds += 1;
        for report in reports {
            let kind = name(report.end.kind);
            log::info!("{} ended: {kind}: {}", self.seed, report.end.detail);
            *self.ends.entry(kind).or_default() += 1;
            for exit in report.vcpus.iter().flat_map(|vcpu| &vcpu.exits) {
                *self.exits.entry(exit.reason.clone()).or_default() += exit.count;
            }
            if super::is_fault(&report.end, tolerated) {
                self.fault(report.end.detail.clone());
            }
        }
    }

    /// How much memory is watched.
    pub fn watched(&mut self, bytes: u64) {
        self.watched_bytes = bytes;
    }

    /// How often it was as it should be.
    pub fn checks(&mut self, checks: u64) {
        self.checks = checks;
    }

    /// Something is not as it should be.
    pub fn fault(&mut self, what: String) {
        log::error!("seed {}: {what}", self.seed);
        self.faults.push(TortureFault { seed: self.seed, what });
    }

    /// Whether enough is not as it should be.
    pub fn is_full(&self) -> bool {
        self.faults.len() >= MOST_FAULTS
    }

    /// The report.
    pub fn report(&self) -> TortureReport {
        let none = HostMemory { free_frames: 0, heap_bytes: 0 };
        let (least, most) = self.memory.unwrap_or((none, none));
        TortureReport {
            rounds: self.rounds,
            ends: counters(&self.ends),
            exits: counters(&self.exits),
            checks: self.checks,
            watched_bytes: self.watched_bytes,
            faults: self.faults.clone(),
            least,
            most,
        }
    }
}

fn counters(counts: &BTreeMap<String, u64>) -> Vec<Counter> {
    counts.iter().map(|(name, &count)| Counter { name: name.clone(), count }).collect()
}

/// The kind's name, as reports write it.
fn name(kind: EndKind) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}
