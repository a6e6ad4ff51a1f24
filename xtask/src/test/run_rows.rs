// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `run` promises, tried with the Linux guest: on the bare machine, where the emulator alone
//! decides, and under Alcazar.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wire::RunReport;

use super::invoke::{Answer, Invocation};
use super::row::{Log, Row, Tally};
use crate::image;
use crate::paths::Paths;
use crate::run::COMMAND_LINE;
use crate::run::outcome::{FAILED, TIMED_OUT};

/// A promise: its name and how it is tried. The options say where the guest runs.
type Promise = (&'static str, fn(&mut Log, Where) -> Result<()>);

/// Where the guest runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    Bare,
    Alcazar,
}

/// Tried in both places.
const EVERYWHERE: &[Promise] = &[
    ("exec-prints-only-the-output", exec_output),
    ("exec-status", exec_status),
    ("exec-is-byte-exact", exec_bytes),
    ("script-from-a-pipe", script),
    ("script-of-any-length", long_script),
    ("mem-and-append", memory_and_command_line),
    ("json", json),
    ("smp", smp),
    ("timeout", timeout),
    ("early-power-off", early_power_off),
    ("two-at-once", two_at_once),
];

/// Tried under Alcazar only.
const ALCAZAR: &[Promise] =
    &[("report-adds-up", report), ("no-svm", no_svm), ("elf-kernel-by-pvh", elf_kernel)];

/// All rows of this kind.
pub fn rows(_: &Paths, quick: bool) -> Vec<Row> {
    let bare = EVERYWHERE.iter().filter(|_| !quick).map(|promise| (promise, Where::Bare));
    let alcazar = EVERYWHERE.iter().chain(ALCAZAR).map(|promise| (promise, Where::Alcazar));
    bare.chain(alcazar)
        .map(|(&(name, promise), place)| {
            let group = if place == Where::Bare { "run-bare" } else { "run" };
            Row::new(format!("{group}/{name}"), move |log| {
                promise(log, place)?;
                Ok(Tally::ONE)
            })
        })
        .collect()
}

fn run(place: Where, options: &[&str]) -> Result<Invocation> {
    let bare = (place == Where::Bare).then_some("--bare");
    Invocation::xtask(["run"].into_iter().chain(bare).chain(options.iter().copied()))
}

fn expect_output(answer: &Answer, output: &str) -> Result<()> {
    answer.expect_status(0)?;
    ensure!(answer.stdout == output, "output {:?}, expected {output:?}", answer.stdout);
    Ok(())
}

fn exec_output(log: &mut Log, place: Where) -> Result<()> {
    let command = "uname -s; nproc; echo to-stderr >&2; read -r x || echo no-input";
    let answer = run(place, &["--exec", command])?.run(log)?;
    expect_output(&answer, "Linux\n1\nto-stderr\nno-input\n")
}

fn exec_status(log: &mut Log, place: Where) -> Result<()> {
    let answer = run(place, &["--exec", "exit 7"])?.run(log)?;
    answer.expect_status(7)?;
    ensure!(answer.stdout.is_empty(), "there is output");
    Ok(())
}

/// Linux knows by which protocol it was started: 0xB0 is PVH without Xen (Linux,
/// arch/x86/platform/pvh/enlighten.c).
fn elf_kernel(log: &mut Log, place: Where) -> Result<()> {
    let kernel = image::vmlinux(&Paths::find()?, image::DEFAULT_KERNEL)?;
    let command = "cat /proc/sys/kernel/bootloader_type; exit 7";
    let options = ["--kernel", &kernel.to_string_lossy(), "--exec", command];
    let answer = run(place, &options)?.run(log)?;
    answer.expect_status(7)?;
    ensure!(answer.stdout == "176\n", "output {:?}, expected 176", answer.stdout);
    Ok(())
}

fn exec_bytes(log: &mut Log, place: Where) -> Result<()> {
    let command = r"printf 'a\r\nb\tc\0d\n\n'; printf '@alcazar 0 end 1\n'; printf 'no end'";
    let answer = run(place, &["--exec", command])?.run(log)?;
    expect_output(&answer, "a\r\nb\tc\0d\n\n@alcazar 0 end 1\nno end")
}

fn script(log: &mut Log, place: Where) -> Result<()> {
    let answer = run(place, &[])?.stdin("echo $((6*7))\npoweroff -f\n").run(log)?;
    expect_output(&answer, "42\n")?;
    // Without power-off, and ending within a line that its last command reads.
    let answer = run(place, &[])?.stdin("echo a; exec cat\nb").run(log)?;
    expect_output(&answer, "a\nb")
}

fn long_script(log: &mut Log, place: Where) -> Result<()> {
    const LINES: usize = 3000;
    let line = "0123456789abcdef0123456789abcde\n";
    let mut script = "sleep 2\nwc -c <<end\n".to_owned();
    script.extend(std::iter::repeat_n(line, LINES));
    script.push_str("end\nexit 5\n");
    let answer = run(place, &[])?.stdin(script).run(log)?;
    answer.expect_status(5)?;
    ensure!(answer.stdout.trim() == (LINES * line.len()).to_string(), "input was lost");
    Ok(())
}

fn memory_and_command_line(log: &mut Log, place: Where) -> Result<()> {
    let command = "cat /proc/cmdline; grep MemTotal /proc/meminfo";
    let options = ["--mem", "1100", "--append", "alcazar.test=1 debug", "--exec", command];
    let answer = run(place, &options)?.run(log)?;
    answer.expect_status(0)?;
    let mut lines = answer.stdout.lines();
    let line = lines.next().context("no command line")?;
    let expected = format!("{COMMAND_LINE} alcazar.test=1 debug");
    ensure!(line == expected, "command line '{line}', expected '{expected}'");
    let memory: u64 = lines
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .context("no MemTotal")?;
    ensure!((1000..1100).contains(&(memory >> 10)), "MemTotal is {memory} kB");
    Ok(())
}

fn json(log: &mut Log, place: Where) -> Result<()> {
    let answer = run(place, &["--json", "--exec", "echo hi; exit 3"])?.run(log)?;
    answer.expect_status(3)?;
    let json: serde_json::Value = serde_json::from_str(&answer.stdout)?;
    ensure!(json["output"] == "hi\n" && json["status"] == 3, "wrong JSON: {json}");
    Ok(())
}

fn smp(log: &mut Log, place: Where) -> Result<()> {
    let answer = run(place, &["--smp", "2", "--exec", "nproc"])?.run(log)?;
    expect_output(&answer, "2\n")
}

fn timeout(log: &mut Log, place: Where) -> Result<()> {
    let begin = Instant::now();
    let answer = run(place, &["--timeout", "15", "--exec", "echo started; while :; do :; done"])?
        .run(log)?;
    answer.expect_status(i32::from(TIMED_OUT))?;
    answer.expect_one_error("time limit reached")?;
    ensure!(answer.stdout == "started\n", "output {:?}", answer.stdout);
    ensure!(begin.elapsed() < Duration::from_secs(60), "it took far too long");
    Ok(())
}

fn early_power_off(log: &mut Log, place: Where) -> Result<()> {
    let answer = run(place, &["--exec", "poweroff -f; sleep 100"])?.run(log)?;
    answer.expect_status(i32::from(FAILED))?;
    answer.expect_one_error("before the command did")
}

fn two_at_once(log: &mut Log, place: Where) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = std::thread::spawn(move || -> Result<()> {
        let mut log = Log::create(folder.path(), "other")?;
        let answer = run(place, &["--exec", "echo second"])?.run(&mut log)?;
        expect_output(&answer, "second\n")
    });
    let answer = run(place, &["--exec", "echo first"])?.run(log)?;
    expect_output(&answer, "first\n")?;
    other.join().map_err(|_| anyhow::anyhow!("the other run panicked"))?
}

fn report(log: &mut Log, place: Where) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("r.json");
    let answer = run(place, &["--report", &path.to_string_lossy(), "--exec", "true"])?.run(log)?;
    answer.expect_status(0)?;
    let report: RunReport = serde_json::from_slice(&std::fs::read(&path)?)?;
    let [vm] = &report.vms[..] else { anyhow::bail!("{} VMs in the report", report.vms.len()) };
    for vcpu in &vm.vcpus {
        let exits: u64 = vcpu.exits.iter().map(|exit| exit.count).sum();
        ensure!(
            exits == vcpu.entries && exits > 0,
            "vCPU {}: {} entries, but {exits} exits",
            vcpu.index,
            vcpu.entries
        );
    }
    ensure!(report.before == report.after, "the VM left memory behind in the co-kernel");
    Ok(())
}

fn no_svm(log: &mut Log, place: Where) -> Result<()> {
    let answer =
        run(place, &["--accel", "tcg", "--cpu", "max,-svm", "--exec", "true"])?.run(log)?;
    answer.expect_status(i32::from(FAILED))?;
    answer.expect_one_error("the machine lacks what the co-kernel needs")
}
