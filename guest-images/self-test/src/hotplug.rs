// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs are stopped and started again while others work.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::Options;
use crate::affinity::{CPU_FOLDER, bind, current, online};
use crate::report::Report;

/// Takes every CPU but the first off and on, each alone and then all together.
pub fn run(report: &mut Report, options: &Options) {
    let rounds = options.get("rounds").unwrap_or(2);
    let Some(all) = report.need("online", online()) else { return };
    let movable: Vec<usize> = all.iter().copied().filter(|&cpu| has_switch(cpu)).collect();
    if movable.is_empty() {
        report.skip("CPUs", "none can be taken off");
        return;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Work that has to move away from a CPU that goes.
        for _ in &all {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            });
        }
        for round in 1..=rounds {
            for &cpu in &movable {
                let result = off_and_on(&all, &[cpu]);
                let detail = describe(&result);
                report.check(format_args!("CPU {cpu}, round {round}"), result.is_ok(), detail);
            }
            let result = off_and_on(&all, &movable);
            let detail = describe(&result);
            report.check(format_args!("all, round {round}"), result.is_ok(), detail);
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn describe(result: &io::Result<()>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| "off and on".into())
}

fn switch(cpu: usize) -> String {
    format!("{CPU_FOLDER}/cpu{cpu}/online")
}

fn has_switch(cpu: usize) -> bool {
    fs::exists(switch(cpu)).unwrap_or(false)
}

/// Takes `cpus` of `all` off, then on, and looks at the result of both.
fn off_and_on(all: &[usize], cpus: &[usize]) -> io::Result<()> {
    cpus.iter().try_for_each(|&cpu| fs::write(switch(cpu), "0"))?;
    let left: Vec<usize> = all.iter().copied().filter(|cpu| !cpus.contains(cpu)).collect();
    expect("off", online()?, left)?;
    cpus.iter().try_for_each(|&cpu| fs::write(switch(cpu), "1"))?;
    expect("on", online()?, all.to_vec())?;
    for &cpu in cpus {
        let ran = thread::spawn(move || bind(cpu).map(|()| current())).join();
        let ran = ran.map_err(|_| io::Error::other("a thread died"))??;
        expect("thread", ran.into_iter().collect(), vec![cpu])?;
    }
    Ok(())
}

fn expect(what: &str, got: Vec<usize>, expected: Vec<usize>) -> io::Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{what}: CPUs {got:?}, expected {expected:?}")))
}
