// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clock sources: each can be used, all go at the same rate, and time never goes back, whichever
//! CPU asks.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::affinity;
use crate::report::Report;
use crate::stamps::{Stamp, clock, tsc};

const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
/// What two clock sources may differ by, in parts per million.
const MAX_PPM: f64 = 100.0;
/// How long CPUs compare their time.
const COMPARE: Duration = Duration::from_millis(500);

/// Looks at all clock sources; the one in use is restored.
pub fn run(report: &mut Report, options: &Options) {
    let seconds = options.get("seconds").unwrap_or(2);
    let read = |name: &str| fs::read_to_string(format!("{FOLDER}/{name}"));
    let Some(available) = report.need("available", read("available_clocksource")) else { return };
    let Some(original) = report.need("current", read("current_clocksource")) else { return };
    report.check("current", true, original.trim());
    for needed in ["tsc", "hpet", "acpi_pm"] {
        let there = available.split_whitespace().any(|source| source == needed);
        report.check(format_args!("{needed} is available"), there, available.trim());
    }
    monotonic(report, "TSC", tsc);
    let mut reference = None;
    for source in available.split_whitespace() {
        let chosen = fs::write(format!("{FOLDER}/current_clocksource"), source);
        if report.need(format_args!("{source} can be chosen"), chosen).is_none() {
            continue;
        }
        let current = read("current_clocksource").unwrap_or_default();
        report.equal(format_args!("{source} is in use"), current.trim(), source);
        let rate = rate(source, Duration::from_secs(seconds));
        let base = *reference.get_or_insert(rate);
        let ppm = (rate / base - 1.0) * 1e6;
        let (good, detail) = (ppm.abs() < MAX_PPM, format!("{ppm:+.1} ppm"));
        report.check(format_args!("{source} agrees with the first one"), good, detail);
        monotonic(report, source, || clock(libc::CLOCK_MONOTONIC).as_nanos() as u64);
    }
    let restored = fs::write(format!("{FOLDER}/current_clocksource"), original.trim());
    report.need("restored", restored);
}

/// The rate of the raw clock against the time-stamp counter. What was measured is printed for
/// those who know the rate of the time-stamp counter.
fn rate(source: &str, time: Duration) -> f64 {
    let first = Stamp::take(libc::CLOCK_MONOTONIC_RAW);
    thread::sleep(time);
    let last = Stamp::take(libc::CLOCK_MONOTONIC_RAW);
    let (elapsed, ticks) = last.since(&first);
    println!("clock {source}: {} ns in {ticks} ticks", elapsed.as_nanos());
    elapsed.as_nanos() as f64 * 1e9 / ticks as f64
}

/// Threads on all CPUs read a clock and look whether any of them has seen a later time before.
fn monotonic(report: &mut Report, name: &str, read: impl Fn() -> u64 + Copy + Send) {
    let Some(cpus) = report.need("online", affinity::online()) else { return };
    let (latest, back, reads) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let unbound = AtomicBool::new(false);
    let end = Instant::now() + COMPARE;
    thread::scope(|scope| {
        for &cpu in &cpus {
            let (latest, back, reads, unbound) = (&latest, &back, &reads, &unbound);
            scope.spawn(move || {
                unbound.fetch_or(affinity::bind(cpu).is_err(), Ordering::Relaxed);
                while Instant::now() < end {
                    for _ in 0..100 {
                        let before = latest.load(Ordering::SeqCst);
                        let now = read();
                        latest.fetch_max(now, Ordering::SeqCst);
                        back.fetch_add(u64::from(now < before), Ordering::Relaxed);
                    }
                    reads.fetch_add(100, Ordering::Relaxed);
                }
            });
        }
    });
    let (back, reads) = (back.into_inner(), reads.into_inner());
    let good = back == 0 && reads > 0 && !unbound.into_inner();
    let detail = format!("{back} of {reads} readings on {} CPUs", cpus.len());
    report.check(format_args!("{name} goes back in"), good, detail);
}
