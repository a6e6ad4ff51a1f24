// SPDX-License-Identifier: MIT OR Apache-2.0
//! All benchmarks in a row. One that fails does not keep the others from being run.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use super::results::{self, Output};
use super::{What, layout, targets};
use crate::paths::Paths;

/// All of them, one after the other, in less than 25 minutes on two cores
///
/// Each with its default settings, in instructions and where there is --wall by time as well. One
/// that fails does not keep the others from being run; the exit status is 1 then. The figures of all
/// are judged by what they should be, and written to target/bench/all.json.
#[derive(Clone, Debug, Args)]
pub struct AllOptions {
    #[command(flatten)]
    pub output: Output,
    /// Store Alcazar's figures of exits as those that 'test' compares with
    #[arg(long)]
    store: bool,
}

/// One benchmark: the name of its figures, and its command line.
type Step = (&'static str, &'static [&'static str]);

/// The benchmarks, shortest first: what is wrong shows early.
const STEPS: [Step; 8] = [
    ("memory", &["memory"]),
    ("exits", &["exits"]),
    ("compute", &["compute"]),
    ("compute-wall", &["compute", "--wall"]),
    ("paging", &["paging"]),
    ("noise", &["noise"]),
    ("noise-wall", &["noise", "--wall"]),
    ("boot", &["boot"]),
];

/// A benchmark's own command line.
#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    what: AnyBenchmark,
}

#[derive(Subcommand)]
enum AnyBenchmark {
    #[command(flatten)]
    Any(What),
}

/// What came of one benchmark.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

/// Runs them and gives the exit status: 1 if any has failed.
///
/// # Errors
/// When the figures of all cannot be written.
pub fn run(paths: &Paths, options: &AllOptions) -> Result<u8> {
    let outcomes = conduct(&STEPS, |step| one(paths, step, options));
    let figures = figures(paths, &outcomes)?;
    options.output.figures(paths, "all", &figures)?;
    let verdicts = targets::judge(&serde_json::to_value(figures)?);
    options.output.table(paths, "targets", &targets::markdown(&verdicts))?;
    print!("\n== targets\n{}{}", targets::text(&verdicts), summary(&outcomes));
    println!("figures and plots are in {}", results::folder(paths)?.display());
    Ok(u8::from(outcomes.iter().any(|outcome| outcome.result.is_err())))
}

/// Runs each by `run` and says on standard error where it is.
fn conduct(steps: &[Step], run: impl Fn(Step) -> Result<()>) -> Vec<Outcome> {
    let one = |(index, &step): (usize, &Step)| {
        let (name, _) = step;
        eprintln!("[{}/{}] {name}", index + 1, steps.len());
        let begin = Instant::now();
        let result = run(step);
        if let Err(error) = &result {
            eprintln!("error: {name}: {error:#}");
        }
        Outcome { name, took: begin.elapsed(), result }
    };
    steps.iter().enumerate().map(one).collect()
}

/// Runs one as if its own command had been given.
fn one(paths: &Paths, (name, words): Step, options: &AllOptions) -> Result<()> {
    println!("\n== {name}");
    let line = std::iter::once("bench").chain(words.iter().copied());
    let line = line.chain(options.output.update_docs.then_some("--update-docs"));
    let line = line.chain((options.store && name == "exits").then_some("--store"));
    let AnyBenchmark::Any(what) = Line::try_parse_from(line)?.what;
    what.run(paths)?;
    Ok(())
}

/// The figures of those that succeeded, by name, as they left them.
fn figures(paths: &Paths, outcomes: &[Outcome]) -> Result<BTreeMap<&'static str, Value>> {
    let succeeded = outcomes.iter().filter(|outcome| outcome.result.is_ok());
    succeeded
        .map(|outcome| {
            let path = results::file(paths, &format!("{}.json", outcome.name))?;
            let json =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((outcome.name, serde_json::from_slice(&json)?))
        })
        .collect()
}

fn summary(outcomes: &[Outcome]) -> String {
    let mut lines = vec![["benchmark", "seconds", "result"].map(str::to_owned).to_vec()];
    for Outcome { name, took, result } in outcomes {
        let result = if result.is_ok() { "done" } else { "FAILED" };
        lines.push(vec![(*name).into(), format!("{:.0}", took.as_secs_f64()), result.into()]);
    }
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    let mut text = format!("\n== all: {:.0} s\n{}", total.as_secs_f64(), layout::text(&lines));
    for Outcome { name, result, .. } in outcomes {
        if let Err(error) = result {
            text.push_str(&format!("{name} failed: {error:#}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failure_does_not_stop_the_others_and_is_named() {
        let outcomes =
            conduct(&[("one", &[]), ("two", &[]), ("three", &[])], |step| match step.0 {
                "two" => bail!("no such machine"),
                _ => Ok(()),
            });
        let good: Vec<_> = outcomes.iter().map(|outcome| outcome.result.is_ok()).collect();
        assert_eq!(good, [true, false, true]);
        let summary = summary(&outcomes);
        assert!(summary.contains("two failed: no such machine"), "{summary}");
        assert_eq!(summary.matches("done").count(), 2, "{summary}");
    }

    #[test]
    fn every_benchmark_is_a_command() {
        for (name, words) in STEPS {
            let line = std::iter::once("bench").chain(words.iter().copied());
            assert!(Line::try_parse_from(line.chain(["--update-docs"])).is_ok(), "{name}");
        }
    }

    #[test]
    fn only_figures_of_this_run_are_put_together() {
        let target = tempfile::tempdir().unwrap();
        let paths = Paths { root: target.path().into(), target: target.path().into() };
        for name in ["old", "new"] {
            results::write_json(&paths, name, &[name]).unwrap();
        }
        let run = |(name, _): Step| if name == "old" { bail!("x") } else { Ok(()) };
        let outcomes = conduct(&[("old", &[]), ("new", &[])], run);
        let figures = figures(&paths, &outcomes).unwrap();
        assert_eq!(figures.into_iter().collect::<Vec<_>>(), [("new", serde_json::json!(["new"]))]);
    }
}
