// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run report for the tests of what looks at reports.

use wire::{ExitCounter, RunReport};

/// So many exits, of which nothing else is known.
pub fn exits(reason: &str, count: u64, accesses: u64) -> ExitCounter {
    let (reason, histogram) = (reason.to_owned(), Vec::new());
    ExitCounter { reason, count, cycles: 0, max_cycles: 0, accesses, histogram }
}

/// The report of one VM with one vCPU that did nothing.
pub fn report(backend: &str) -> RunReport {
    let json = serde_json::json!({
        "version": wire::FORMAT_VERSION,
        "machine": {
            "cpu": "", "cpus": 1, "memory_bytes": 0, "tsc_hz": 1, "backend": backend,
            "capabilities": [], "image_bytes": 0, "boot_tsc": 0,
        },
        "vms": [{
            "name": "guest",
            "size": {"memory_bytes": 0, "vcpus": 1, "paging": "nested"},
            "rounds": 1,
            "milestones": [],
            "vcpus": [{
                "index": 0, "cpu": 0, "entries": 0, "injected": [], "unclaimed": [],
                "exits": [], "guest_tsc": 0, "idle_tsc": 0,
            }],
            "memory": {"heap_bytes": 0, "page_table_bytes": 0, "control_bytes": 0},
            "end": {"kind": "exit_port", "detail": "", "exit_code": 0},
        }],
        "before": {"free_frames": 0, "heap_bytes": 0},
        "after": {"free_frames": 0, "heap_bytes": 0},
    });
    serde_json::from_value(json).unwrap()
}
