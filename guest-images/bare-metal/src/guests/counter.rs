// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints numbered lines at a steady pace.
//!
//! Options: `lines=N` (20 if absent) and `name=TEXT`, which starts each line.

use crate::rt::{pit, start_info};

const DEFAULT_LINES: u32 = 20;

/// Prints the lines, one every 10 ms.
pub fn run() -> u32 {
    let option = |name: &str| start_info::words().find_map(|word| word.strip_prefix(name));
    let lines = option("lines=").and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_LINES);
    let name = option("name=").unwrap_or("counter");
    for number in 1..=lines {
        println!("{name} {number}");
        pit::wait_10_ms();
    }
    0
}
