// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another CPU, which writes memory between two reads.

use std::collections::HashMap;
use std::ops::Range;

/// Bytes that turn into their complement as soon as they were read.
#[derive(Default)]
pub struct Race {
    /// Where they are.
    pub range: Range<u64>,
    /// Every time, and not the first time only.
    pub always: bool,
    /// How often each byte was read.
    pub reads: HashMap<u64, u32>,
}

impl Race {
    /// Notes that bytes were read. Those change that are given back.
    pub fn read(&mut self, address: u64, bytes: u64) -> Vec<u64> {
        let Self { range, always, reads } = self;
        let raced = (address..address + bytes).filter(|at| range.contains(at));
        let changes = raced.filter(|at| {
            let count = reads.entry(*at).or_default();
            *count += 1;
            *always || *count == 1
        });
        changes.collect()
    }

    /// The highest number of times that a byte was read.
    pub fn most_reads(&self) -> u32 {
        self.reads.values().copied().max().unwrap_or(0)
    }
}
