// SPDX-License-Identifier: MIT OR Apache-2.0
//! What /proc/interrupts says before and after a while of work on all CPUs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::affinity;
use crate::report::Report;

const FILE: &str = "/proc/interrupts";
/// How long all CPUs work.
const WHILE: Duration = Duration::from_secs(1);
/// Lines that count what must not happen: errors of the local APICs, the I/O APIC's missed ends
/// of interrupts, spurious interrupts, machine checks, NMIs.
const NEVER: [&str; 5] = ["ERR", "MIS", "SPU", "MCE", "NMI"];

/// Counts by line and CPU; the lines that have one count only, have it in the first place.
type Table = BTreeMap<String, Vec<u64>>;

/// Looks at the table.
pub fn run(report: &mut Report, _: &Options) {
    let Some(cpus) = report.need("online", affinity::online()) else { return };
    let Some((before, text)) = report.need(FILE, read()) else { return };
    let columns = text.lines().next().map_or(0, |line| line.split_whitespace().count());
    report.equal("columns", columns, cpus.len());
    let serial = text.lines().any(|line| line.contains("IO-APIC") && line.contains("ttyS0"));
    report.check("the console interrupts through the I/O APIC", serial, FILE);
    let end = Instant::now() + WHILE;
    thread::scope(|scope| {
        for &cpu in &cpus {
            scope.spawn(move || {
                if affinity::bind(cpu).is_ok() {
                    while Instant::now() < end {}
                }
            });
        }
    });
    let Some((after, _)) = report.need(FILE, read()) else { return };
    let grown = growth(&before, &after, "LOC");
    let ticking = grown.len() == cpus.len() && grown.iter().all(|&count| count > 0);
    report.check("every CPU's timer ticks", ticking, format_args!("{grown:?}"));
    for name in NEVER {
        let total: u64 = after.get(name).map_or(0, |counts| counts.iter().sum());
        report.equal(format_args!("{name} in all"), total, 0);
    }
}

/// The table now, and its text.
pub fn read() -> io::Result<(Table, String)> {
    let text = fs::read_to_string(FILE)?;
    Ok((parse(&text), text))
}

/// By how much a line has grown, for each CPU.
pub fn growth(before: &Table, after: &Table, name: &str) -> Vec<u64> {
    let none = Vec::new();
    let before = before.get(name).unwrap_or(&none);
    let after = after.get(name).unwrap_or(&none);
    after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before)).collect()
}

fn parse(text: &str) -> Table {
    let lines = text.lines().skip(1).filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let counts = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        Some((name.trim().to_owned(), counts))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "           CPU0       CPU1\n\
        \x20 4:          1          7   IO-APIC   4-edge      ttyS0\n\
        LOC:        100        200   Local timer interrupts\n\
        ERR:          0\n";

    #[test]
    fn reads_counts_by_cpu() {
        let (before, mut after) = (parse(TEXT), parse(TEXT));
        assert_eq!(before["4"], [1, 7]);
        assert_eq!(before["ERR"], [0]);
        after.insert("LOC".into(), vec![101, 250]);
        assert_eq!(growth(&before, &after, "LOC"), [1, 50]);
        assert!(growth(&before, &after, "TLB").is_empty());
    }
}
