// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of it, and whose fault it is.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::Result;
use serde::Serialize;
use wire::{Counter, ROUND_PREFIX, RunReport, TORTURE_PREFIX, TortureFault, TortureReport};
use wire::{HostMemory, machine_exit};

use super::machine::Limit;
use super::plan::{NEIGHBOUR, Plan};
use crate::process::NO_MESSAGE;
use crate::run::outcome::exit_status;
use crate::run::report;

/// A machine that has ended.
#[derive(Debug)]
pub struct Run {
    /// Its exit status; `None` if it had to be ended.
    pub status: Option<ExitStatus>,
    /// How long it took.
    pub seconds: f64,
    /// What the co-kernel wrote.
    pub log: String,
    /// What the emulator said.
    pub errors: Vec<u8>,
    /// Where the log is.
    pub log_file: PathBuf,
}

/// What was done and found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    platform: &'static str,
    cpu: String,
    paging: &'static str,
    backend: String,
    seed: u64,
    seconds: f64,
    rounds: u64,
    ends: Vec<Counter>,
    exits: Vec<Counter>,
    checks: u64,
    watched_bytes: u64,
    /// How the neighbour ended.
    neighbour: String,
    before: Option<HostMemory>,
    after: Option<HostMemory>,
    /// What was not as it should be.
    faults: Vec<TortureFault>,
    /// How the emulator died, each time it did: that says nothing of Alcazar.
    emulator: Vec<TortureFault>,
    log: PathBuf,
}

impl Outcome {
    /// Makes it of a run.
    ///
    /// # Errors
    /// When a report cannot be read.
    pub fn judge(plan: &Plan, run: &Run) -> Result<Self> {
        let mut outcome = Self {
            platform: plan.platform.name(),
            cpu: plan.cpu.clone(),
            paging: plan.paging_name(),
            backend: String::new(),
            seed: plan.torture.first_seed,
            seconds: run.seconds,
            rounds: 0,
            ends: Vec::new(),
            exits: Vec::new(),
            checks: 0,
            watched_bytes: 0,
            neighbour: String::new(),
            before: None,
            after: None,
            faults: Vec::new(),
            emulator: Vec::new(),
            log: run.log_file.clone(),
        };
        let seed = last_seed(&run.log).unwrap_or(plan.torture.first_seed);
        let tortured = torture_report(&run.log)?;
        let report = report::parse(&run.log)?;
        match end(run) {
            Ended::Well => {}
            Ended::Emulator(what) => {
                outcome.rounds = rounds_begun(&run.log);
                outcome.emulator.push(TortureFault { seed, what });
            }
            Ended::Badly(what) => outcome.fault(seed, what),
        }
        match (&tortured, &report) {
            (Some(tortured), Some(report)) => outcome.take(plan, seed, tortured, report),
            _ if outcome.emulator.is_empty() && outcome.faults.is_empty() => {
                outcome.fault(seed, "the co-kernel wrote no report".into());
            }
            _ => {}
        }
        Ok(outcome)
    }

    fn take(&mut self, plan: &Plan, seed: u64, tortured: &TortureReport, report: &RunReport) {
        self.backend.clone_from(&report.machine.backend);
        self.rounds = tortured.rounds;
        self.ends.clone_from(&tortured.ends);
        self.exits.clone_from(&tortured.exits);
        self.checks = tortured.checks;
        self.watched_bytes = tortured.watched_bytes;
        self.faults.extend(tortured.faults.iter().cloned());
        (self.before, self.after) = (Some(report.before), Some(report.after));
        if report.before != report.after {
            self.fault(seed, "memory was left behind".into());
        }
        if plan.torture.neighbour.is_some() {
            let neighbour = report.vms.iter().find(|vm| vm.name == NEIGHBOUR);
            let end = neighbour.map(|vm| &vm.end);
            self.neighbour = end.map_or("it was not run".into(), |end| end.detail.clone());
            if end.and_then(|end| end.exit_code) != Some(0) {
                self.fault(seed, format!("the neighbour was disturbed: {}", self.neighbour));
            }
        }
        if self.rounds == 0 || self.checks == 0 {
            self.fault(seed, "nothing was run".into());
        }
        if let Limit::Rounds(rounds) = plan.limit
            && self.rounds != rounds
            && self.faults.is_empty()
        {
            self.fault(seed, format!("{} rounds instead of {rounds}", self.rounds));
        }
    }

    /// The seed with which to go on, if the emulator died.
    pub fn next_seed(&self) -> Option<u64> {
        let last = self.emulator.last().filter(|_| self.faults.is_empty())?;
        Some(last.seed.wrapping_add(1))
    }

    /// Adds what came of going on.
    pub fn add(&mut self, next: Self) {
        add_counts(&mut self.ends, next.ends);
        add_counts(&mut self.exits, next.exits);
        self.seconds += next.seconds;
        self.rounds += next.rounds;
        self.checks += next.checks;
        self.faults.extend(next.faults);
        self.emulator.extend(next.emulator);
        self.watched_bytes = self.watched_bytes.max(next.watched_bytes);
        (self.backend, self.neighbour) = (next.backend, next.neighbour);
        (self.before, self.after) = (next.before, next.after);
    }

    fn fault(&mut self, seed: u64, what: String) {
        self.faults.push(TortureFault { seed, what });
    }

    /// Whether nothing was found.
    pub fn is_well(&self) -> bool {
        self.faults.is_empty() && self.emulator.is_empty()
    }

    /// How long it took.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Exits of the VMs of all rounds.
    pub fn exits(&self) -> u64 {
        self.exits.iter().map(|counter| counter.count).sum()
    }

    /// Whose virtualization was used.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// What was found.
    pub fn faults(&self) -> &[TortureFault] {
        &self.faults
    }

    /// For people.
    pub fn text(&self) -> String {
        let counts = |counters: &[Counter]| -> String {
            let one = |counter: &Counter| format!("{} {}", counter.count, counter.name);
            counters.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "{} {} {}: {} rounds from seed {} in {:.0} s\n  ends: {}\n  exits: {}\n",
            self.platform,
            self.cpu,
            self.paging,
            self.rounds,
            self.seed,
            self.seconds,
            counts(&self.ends),
            counts(&self.exits)
        );
        text.push_str(&format!(
            "  memory: {} MiB watched, found as it was {} times\n  neighbour: {}\n",
            self.watched_bytes >> 20,
            self.checks,
            self.neighbour
        ));
        let again = |seed| {
            let Self { platform, cpu, paging, .. } = self;
            let paging = match *paging {
                "default" => String::new(),
                paging => format!(" --paging {paging}"),
            };
            format!(
                "cargo xtask torture --seed {seed} --rounds 1 --platform {platform} --cpu {cpu}{paging}"
            )
        };
        for fault in &self.faults {
            text.push_str(&format!(
                "FAIL  seed {}: {}\n      again: {}\n",
                fault.seed,
                fault.what,
                again(fault.seed)
            ));
        }
        for TortureFault { seed, what } in &self.emulator {
            text.push_str(&format!("DIED  seed {seed}: the emulator itself: {what}\n"));
        }
        if !self.is_well() {
            text.push_str(&format!("      log: {}\n", self.log.display()));
        }
        let verdict = if self.is_well() { "ok" } else { "not ok" };
        text + &format!("{verdict}: the co-kernel, its memory and the neighbour\n")
    }
}

fn add_counts(counters: &mut Vec<Counter>, more: Vec<Counter>) {
    for one in more {
        match counters.iter_mut().find(|counter| counter.name == one.name) {
            Some(counter) => counter.count += one.count,
            None => counters.push(one),
        }
    }
}

/// How the machine ended.
enum Ended {
    Well,
    /// The emulator failed: an assertion, a crash, a panic of its own.
    Emulator(String),
    /// The co-kernel ended it, or it was reset or hung.
    Badly(String),
}

fn end(run: &Run) -> Ended {
    let Some(status) = run.status else {
        return Ended::Badly("the machine does not come to an end: the co-kernel hangs".into());
    };
    let said = first_line(&run.errors);
    if let Some(signal) = status.signal() {
        return Ended::Emulator(format!("signal {signal}: {said}"));
    }
    let code = status.code().unwrap_or_default();
    let is = |expected| code == exit_status(expected);
    match code {
        _ if is(machine_exit::DONE) => Ended::Well,
        _ if is(machine_exit::PANIC) => {
            let mut lines = run.log.lines();
            let line = lines.find(|line| line.contains("panic") || line.contains("exception "));
            Ended::Badly(format!("the co-kernel panicked: {}", line.unwrap_or("see the log")))
        }
        0 => Ended::Badly("the machine was reset, by a triple fault of the co-kernel".into()),
        1 => Ended::Emulator(said),
        _ => Ended::Badly(format!("the machine ended with status {code}")),
    }
}

/// The first thing the emulator said, which is more than the asterisks of glib's assertions: QEMU
/// lets the state of the CPU follow.
fn first_line(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let first = text.lines().map(str::trim).find(|line| !matches!(*line, "" | "**"));
    first.unwrap_or(NO_MESSAGE).to_owned()
}

fn rounds_begun(log: &str) -> u64 {
    log.lines().filter(|line| line.starts_with(ROUND_PREFIX)).count() as u64
}

/// Seed of the last round that began.
fn last_seed(log: &str) -> Option<u64> {
    log.lines().rev().find_map(|line| line.strip_prefix(ROUND_PREFIX)?.trim().parse().ok())
}

fn torture_report(log: &str) -> Result<Option<TortureReport>> {
    let json = log.lines().rev().find_map(|line| line.strip_prefix(TORTURE_PREFIX));
    Ok(json.map(serde_json::from_str).transpose()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::platform::Platform;

    fn judged(raw: Option<i32>, log: &str, errors: &str) -> Outcome {
        let plan = Plan::new(Platform::Qemu, "max", None, 7, Limit::Rounds(1)).unwrap();
        let run = Run {
            status: raw.map(ExitStatus::from_raw),
            seconds: 1.0,
            log: log.into(),
            errors: errors.into(),
            log_file: "log".into(),
        };
        Outcome::judge(&plan, &run).unwrap()
    }

    fn exited(code: u8) -> Option<i32> {
        Some(exit_status(code) << 8)
    }

    #[test]
    fn what_ends_the_emulator_is_not_taken_for_a_fault_of_ours() {
        let died = judged(Some(6), "@round 7\n@round 8\n", "qemu: assertion failed\n");
        assert!(died.faults().is_empty() && !died.is_well());
        let what = "signal 6: qemu: assertion failed".to_owned();
        assert_eq!(died.emulator, [TortureFault { seed: 8, what }]);
        assert_eq!((died.rounds, died.next_seed()), (2, Some(9)));
        let bochs = judged(Some(1 << 8), "@round 7\n", "bochs panics\n");
        assert_eq!(bochs.next_seed(), Some(8));
    }

    #[test]
    fn going_on_adds_up() {
        let mut first = judged(Some(6), "@round 7\n@round 8\n", "qemu: assertion failed\n");
        first.add(judged(Some(11), "@round 9\n", "**\n"));
        assert_eq!((first.rounds, first.emulator.len(), first.next_seed()), (3, 2, Some(10)));
        assert!(first.text().contains("DIED  seed 9: the emulator itself: signal 11: no message"));
    }

    #[test]
    fn what_ends_the_co_kernel_is_a_fault_of_the_last_round() {
        let log = "@round 7\n@round 8\nCPU 1: panicked at x.rs\n";
        for (raw, what) in [
            (exited(machine_exit::PANIC), "panicked at x.rs"),
            (Some(0), "triple fault"),
            (None, "hangs"),
            (exited(machine_exit::BAD_BUNDLE), "status"),
            (exited(machine_exit::DONE), "no report"),
        ] {
            let outcome = judged(raw, log, "");
            let [fault] = outcome.faults() else { panic!("{what}: {:?}", outcome.faults()) };
            assert!(fault.what.contains(what) && fault.seed == 8, "{}", fault.what);
            assert!(outcome.emulator.is_empty() && !outcome.is_well());
            assert_eq!(outcome.next_seed(), None);
            assert!(outcome.text().contains("--seed 8 --rounds 1"), "{}", outcome.text());
        }
    }
}
