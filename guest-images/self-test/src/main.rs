// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux guest's look at its own machine: a static program in the guest's initial RAM disk.
//!
//! `self-test TEST [NAME=VALUE …] …` runs the named tests one after the other, prints a line for
//! each thing that it looks at, and ends with the totals, as the bare-metal guests do. The exit
//! status is 0 if nothing failed. `self-test help` lists the tests.

mod affinity;
mod clock;
mod cpus;
mod fork;
mod hotplug;
mod interrupts;
mod kernel_log;
mod memory;
mod report;
mod shootdown;
mod stamps;

use std::env;
use std::process::ExitCode;

use report::Report;

/// A test: its name, what it looks at, the words it understands, and what runs it.
struct Test {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Report, &Options),
}

const TESTS: &[Test] = &[
    Test { name: "cpus", about: "all CPUs are online and run threads; cpus=N", run: cpus::run },
    Test { name: "memory", about: "all memory is there and keeps data; mib=N", run: memory::run },
    Test { name: "clock", about: "clock sources agree, on all CPUs; seconds=N", run: clock::run },
    Test { name: "interrupts", about: "/proc/interrupts is sane", run: interrupts::run },
    Test {
        name: "shootdown",
        about: "TLB shootdowns, IPIs and wake-ups between all CPUs; seconds=N",
        run: shootdown::run,
    },
    Test { name: "fork", about: "processes come and go; seconds=N", run: fork::run },
    Test { name: "hotplug", about: "CPUs go off and on; rounds=N", run: hotplug::run },
    Test { name: "log", about: "the kernel did not complain", run: kernel_log::run },
];

/// What a child of the fork test is started with.
const CHILD: &str = "exit-with";

/// The words `NAME=VALUE` that follow a test.
#[derive(Default)]
struct Options(Vec<(String, u64)>);

impl Options {
    /// The value of an option, if it was given.
    fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().rev().find(|(given, _)| given == name).map(|&(_, value)| value)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [first, status] = words.as_slice()
        && first == CHILD
    {
        return ExitCode::from(status.parse().unwrap_or(u8::MAX));
    }
    let runs = match parse(&words) {
        Ok(runs) if !runs.is_empty() => runs,
        Ok(_) => return usage("no test is named"),
        Err(problem) => return usage(&problem),
    };
    let mut report = Report::default();
    for (test, options) in &runs {
        report.begin(test.name);
        (test.run)(&mut report, options);
    }
    report.finish()
}

/// Tests with the options that follow each.
fn parse(words: &[String]) -> Result<Vec<(&'static Test, Options)>, String> {
    let mut runs: Vec<(&'static Test, Options)> = Vec::new();
    for word in words {
        if let Some((name, value)) = word.split_once('=') {
            let number = value.parse().map_err(|_| format!("'{word}' has no number"))?;
            let (_, options) = runs.last_mut().ok_or_else(|| format!("'{word}' has no test"))?;
            options.0.push((name.to_owned(), number));
        } else {
            let test = TESTS.iter().find(|test| test.name == word);
            let test = test.ok_or_else(|| format!("there is no test '{word}'"))?;
            runs.push((test, Options::default()));
        }
    }
    Ok(runs)
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("self-test: {problem}\nusage: self-test TEST [NAME=VALUE ...] [TEST ...] ...");
    for test in TESTS {
        eprintln!("  {:<12}{}", test.name, test.about);
    }
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_belong_to_the_test_before_them() {
        let runs = parse(&words("cpus cpus=4 memory mib=512 mib=64")).unwrap();
        let names: Vec<&str> = runs.iter().map(|(test, _)| test.name).collect();
        assert_eq!(names, ["cpus", "memory"]);
        assert_eq!((runs[0].1.get("cpus"), runs[0].1.get("mib")), (Some(4), None));
        assert_eq!(runs[1].1.get("mib"), Some(64));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, problem) in [
            ("clok", "there is no test 'clok'"),
            ("seconds=3", "'seconds=3' has no test"),
            ("clock seconds=x", "'seconds=x' has no number"),
        ] {
            assert_eq!(parse(&words(text)).err().as_deref(), Some(problem));
        }
    }
}
