// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: random inputs for everything that reads what others wrote.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::paths::Paths;
use crate::process;
use crate::progress::Progress;
use crate::result_file::ResultFile;
use crate::setup;

/// The program that has all targets.
const PROGRAM: &str = "fuzz";
/// Names the target to it.
const TARGET_VARIABLE: &str = "ALCAZAR_FUZZ_TARGET";
/// The machine that the fuzz targets are built for.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Memory that a target may use, in MiB; more is a finding.
const MEMORY_MIB: u32 = 2048;
/// Seconds that one input may take; more is a finding.
const INPUT_SECONDS: u32 = 10;

/// Runs the fuzz targets, as many side by side as there are CPUs, each from its seeds and from
/// what earlier runs found worth keeping.
#[derive(Clone, Debug, Args)]
pub struct FuzzOptions {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub seconds: u32,
    /// So many inputs for each target instead, always the same ones
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Only targets whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// Write what was done to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What became of one target.
#[derive(Debug, Serialize)]
struct Campaign {
    target: String,
    /// Inputs that were tried.
    runs: u64,
    /// Edges of the control flow that were reached.
    edges: u64,
    /// Seconds that it took.
    seconds: f64,
    /// What failed, if something did.
    finding: Option<Finding>,
}

/// An input that a target failed for.
#[derive(Debug, PartialEq, Serialize)]
struct Finding {
    /// The file that has it.
    input: PathBuf,
    /// What the target said.
    what: String,
}

/// Runs the targets; the exit status is 1 if one has a finding.
///
/// # Errors
/// When they cannot be built or started.
pub fn run(paths: &Paths, options: &FuzzOptions) -> Result<u8> {
    ensure!(
        options.seconds > 0 || options.runs.is_some(),
        "--seconds 0 leaves no time: give at least 1"
    );
    ensure!(options.runs != Some(0), "--runs 0 leaves nothing to run: give at least 1");
    let mut targets = targets(paths)?;
    if let Some(filter) = &options.filter {
        targets.retain(|target| target.contains(filter));
    }
    ensure!(!targets.is_empty(), "no fuzz target is left: give another --filter");
    let json = options.json.as_deref().map(|path| ResultFile::prepare("--json", path));
    let json = json.transpose()?;
    setup::rust::ensure_fuzzer()?;
    let folder = paths.target.join("fuzz");
    build(paths, &folder)?;
    let campaigns = fuzz_all(paths, &folder, targets, options)?;
    if let Some(file) = json {
        file.write_json(&campaigns)?;
    }
    let findings = campaigns.iter().filter(|campaign| campaign.finding.is_some()).count();
    println!("{} passed, {findings} failed", campaigns.len() - findings);
    Ok(u8::from(findings > 0))
}

/// Fuzzes the targets on all CPUs, and prints a line for each when it is done.
fn fuzz_all(
    paths: &Paths,
    folder: &Path,
    targets: Vec<String>,
    options: &FuzzOptions,
) -> Result<Vec<Campaign>> {
    let progress = Progress::start(&format!("fuzzing {}", targets.join(", ")));
    let queue = Mutex::new(VecDeque::from(targets));
    let campaigns = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(target) = next else { break };
                    let campaign = fuzz(paths, folder, &target, options);
                    if let Ok(campaign) = &campaign {
                        println!("{}", line(campaign, folder));
                    }
                    campaigns.lock().unwrap_or_else(PoisonError::into_inner).push(campaign);
                }
            });
        }
    });
    drop(progress);
    let campaigns = campaigns.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut campaigns: Vec<Campaign> = campaigns.into_iter().collect::<Result<_>>()?;
    campaigns.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(campaigns)
}

/// Names of the targets, in order: each has a folder of seeds.
fn targets(paths: &Paths) -> Result<Vec<String>> {
    let folder = paths.root.join("fuzz/seeds");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir()
            && let Some(name) = path.file_name()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn build(paths: &Paths, folder: &Path) -> Result<()> {
    let mut command = setup::rust::plain("cargo");
    command.current_dir(&paths.root).args(["+nightly", "fuzz", "build", "--target", HOST]);
    command.arg("--target-dir").arg(folder);
    process::succeed(&mut command, "building the fuzz targets").map(drop)
}

fn fuzz(paths: &Paths, folder: &Path, target: &str, options: &FuzzOptions) -> Result<Campaign> {
    let corpus = folder.join("corpus").join(target);
    let findings = folder.join("findings").join(target);
    for folder in [&corpus, &findings] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let begin = Instant::now();
    let mut command = Command::new(program(folder));
    command.env(TARGET_VARIABLE, target);
    // The mock host keeps memory by displaced addresses, which looks like a leak.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command.args(["-detect_leaks=0", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).arg(format!("-timeout={INPUT_SECONDS}"));
    match options.runs {
        Some(runs) => command.arg("-seed=1").arg(format!("-runs={runs}")),
        None => command.arg(format!("-max_total_time={}", options.seconds)).arg(&corpus),
    };
    command.arg(paths.root.join("fuzz/seeds").join(target));
    let output = process::capture_silently(&mut command)?;
    let text = String::from_utf8_lossy(&output.stderr);
    let log = findings.with_extension("log");
    std::fs::write(&log, &*output.stderr)?;
    let finding = finding(&text);
    ensure!(
        output.status.success() || finding.is_some(),
        "fuzz target {target} failed ({}) without a finding; see {}",
        output.status,
        log.display()
    );
    let runs = number_after(&text, "stat::number_of_executed_units:");
    let (edges, seconds) = (number_after(&text, "cov:"), begin.elapsed().as_secs_f64());
    Ok(Campaign { target: target.to_owned(), runs, edges, seconds, finding })
}

/// The program that was built.
fn program(folder: &Path) -> PathBuf {
    folder.join(HOST).join("release").join(PROGRAM)
}

fn line(campaign: &Campaign, folder: &Path) -> String {
    let Campaign { target, runs, edges, finding, .. } = campaign;
    match finding {
        None => format!("ok    {target}: {runs} inputs, {edges} edges"),
        Some(Finding { input, what }) => {
            let (program, input) = (program(folder), input.display());
            format!(
                "FAIL  {target}: {what}\n      again: {TARGET_VARIABLE}={target} {} {input}",
                program.display()
            )
        }
    }
}

/// What libFuzzer says of a failing input, and where it wrote it to.
fn finding(text: &str) -> Option<Finding> {
    let (before, rest) = text.split_once("Test unit written to ")?;
    let input = rest.lines().next().map(|path| PathBuf::from(path.trim()))?;
    Some(Finding { input, what: complaint(before).to_owned() })
}

/// The message of a panic, which stands below its place; else what libFuzzer found by itself.
fn complaint(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    let panic = lines.by_ref().find(|line| line.contains("panicked at")).and_then(|_| lines.next());
    let error = || text.lines().find_map(|line| line.split_once("ERROR: ")).map(|(_, what)| what);
    panic.or_else(error).unwrap_or(process::NO_MESSAGE)
}

/// The number behind the last `label`; 0 without one.
fn number_after(text: &str, label: &str) -> u64 {
    let number = text.rsplit_once(label).and_then(|(_, rest)| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "#8 NEW    cov: 12 ft: 3\n#16 NEW    cov: 15 ft: 9\n\
        thread '<unnamed>' panicked at x.rs:7:5:\nit is broken\n==9== ERROR: deadly signal\n\
        artifact_prefix='/f/'; Test unit written to /f/crash-12\nBase64: AA==\n\
        stat::number_of_executed_units: 345\n";

    #[test]
    fn reads_what_libfuzzer_says() {
        assert_eq!(number_after(OUTPUT, "cov:"), 15);
        assert_eq!(number_after(OUTPUT, "stat::number_of_executed_units:"), 345);
        assert_eq!(number_after("nothing", "cov:"), 0);
        let expected = Finding { input: "/f/crash-12".into(), what: "it is broken".into() };
        assert_eq!(finding(OUTPUT), Some(expected));
        assert_eq!(finding("all went well"), None);
        assert_eq!(complaint("==9== ERROR: libFuzzer: timeout\n"), "libFuzzer: timeout");
        assert_eq!(complaint(""), process::NO_MESSAGE);
    }
}
