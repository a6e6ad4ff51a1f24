// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask regress`: boots guests on every machine there is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use wire::RunReport;

use crate::paths::Paths;
use crate::platform::Platform;
use crate::test::{Invocation, Log, Row, Tally, count, run_rows};
use crate::{cargo_build, image, setup};

/// Boots guests on the matrix of platform, CPU, paging and guest, and prints a table.
#[derive(Clone, Debug, Args)]
pub struct RegressOptions {
    /// Write the table to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only rows whose name contains this
    #[arg(long, value_name = "STRING")]
    pub filter: Option<String>,
    /// Only rows on this platform
    #[arg(long, value_enum)]
    pub platform: Option<Platform>,
    /// Only rows on this CPU model
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// All combinations, not only those that differ in one thing from the default
    #[arg(long)]
    pub full: bool,
}

/// One CPU to run the co-kernel on.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    platform: Platform,
    model: &'static str,
    paging: &'static str,
}

/// One guest and what shows that it came up.
#[derive(Clone, Copy, Debug)]
struct Guest {
    name: &'static str,
    package: &'static str,
    memory_mib: &'static str,
    vcpus: &'static str,
}

/// The first is the default.
const CPUS: &[Cpu] = &[
    Cpu { platform: Platform::Qemu, model: "max", paging: "nested" },
    Cpu { platform: Platform::Qemu, model: "max,-x2apic", paging: "nested" },
    Cpu { platform: Platform::Qemu, model: "EPYC", paging: "nested" },
];

/// The first is the default.
const GUESTS: &[Guest] = &[
    Guest { name: "cloud", package: image::DEFAULT_KERNEL, memory_mib: "512", vcpus: "1" },
    Guest { name: "cloud-smp2", package: image::DEFAULT_KERNEL, memory_mib: "512", vcpus: "2" },
    Guest { name: "cloud-3g", package: image::DEFAULT_KERNEL, memory_mib: "3072", vcpus: "1" },
    Guest { name: "full", package: "linux-image-amd64", memory_mib: "512", vcpus: "1" },
];

/// A CPU model of Bochs that has what the VMM needs, and what runs there.
struct BochsCpu {
    model: &'static str,
    /// `test` boots Linux here.
    linux_always: bool,
    /// Bare-metal guests, and whether `test` runs them.
    guests: &'static [(&'static str, bool)],
}

/// On the AMD models five other guests end the emulated machine, some in Bochs 2.7's own panic;
/// for `exceptions`, `mmio` and `strio` the cause is not known.
const BOCHS_AMD_GUESTS: &[(&str, bool)] =
    &[("hello", false), ("nmi", false), ("timers", false), ("denied", false)];

const BOCHS_INTEL_GUESTS: &[(&str, bool)] = &[
    ("hello", false),
    ("exceptions", false),
    ("modes", false),
    ("msr_cpuid", false),
    ("mmio", false),
    ("nmi", false),
    ("strio", false),
    ("acpi", false),
];

const BOCHS_CPUS: &[BochsCpu] = &[
    BochsCpu {
        model: "ryzen",
        linux_always: false,
        guests: &[("hello", true), ("nmi", true), ("timers", true), ("denied", false)],
    },
    BochsCpu { model: "zambezi", linux_always: false, guests: BOCHS_AMD_GUESTS },
    BochsCpu { model: "phenom_8650_toliman", linux_always: false, guests: BOCHS_AMD_GUESTS },
    BochsCpu {
        model: "tigerlake",
        linux_always: true,
        guests: &[
            ("hello", true),
            ("exceptions", true),
            ("modes", true),
            ("msr_cpuid", true),
            ("nmi", true),
            ("mmio", false),
            ("timers", false),
            ("denied", false),
            ("strio", false),
            ("acpi", false),
        ],
    },
    BochsCpu { model: "corei7_skylake_x", linux_always: false, guests: BOCHS_INTEL_GUESTS },
    BochsCpu { model: "corei7_haswell_4770", linux_always: false, guests: BOCHS_INTEL_GUESTS },
    BochsCpu {
        model: "corei7_sandy_bridge_2600k",
        linux_always: false,
        guests: BOCHS_INTEL_GUESTS,
    },
];

/// A row of the table.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Entry {
    platform: &'static str,
    cpu: &'static str,
    /// Empty if the run did not get as far as a report.
    backend: String,
    paging: &'static str,
    guest: &'static str,
    seconds: f64,
    exits: u64,
    result: String,
}

type Table = Arc<Mutex<Vec<Entry>>>;

/// Runs the matrix; the exit status is 0 if every guest came up.
///
/// # Errors
/// When what every row needs cannot be set up, or the table not be written.
pub fn run(paths: &Paths, options: &RegressOptions) -> Result<u8> {
    setup::ensure_all(false)?;
    cargo_build::cokernel(paths)?;
    let mut target = options.json.as_deref().map(JsonFile::prepare).transpose()?;
    let table = Table::default();
    if options.platform == Some(Platform::Bochs) || options.full {
        setup::ensure_bochs()?;
    }
    let mut rows = matrix_rows(paths, options.full, &table);
    if let Some(platform) = options.platform {
        let part = format!("/{}/", platform.name());
        rows.retain(|row| row.name.contains(&part));
    }
    if let Some(cpu) = &options.cpu {
        let part = format!("/{cpu}/");
        rows.retain(|row| row.name.contains(&part));
    }
    if let Some(filter) = &options.filter {
        rows.retain(|row| row.name.contains(filter));
    }
    ensure!(!rows.is_empty(), "no row is left: give another --filter, --platform or --cpu");
    let finished = run_rows(paths, rows)?;
    let failed = finished.iter().filter(|row| row.tally.failed > 0).count();
    let mut entries = table.lock().unwrap_or_else(PoisonError::into_inner).clone();
    entries.sort_by_key(|entry| (entry.platform, entry.cpu, entry.paging, entry.guest));
    print!("{}", text(&entries));
    if let Some(target) = target.take() {
        target.write(&entries)?;
    }
    Ok(u8::from(failed > 0))
}

/// The rows that `test` runs.
pub fn test_rows(paths: &Paths, quick: bool) -> Vec<Row> {
    let mut rows = matrix_rows(paths, false, &Table::default());
    if quick {
        rows.truncate(1);
    }
    rows
}

fn matrix_rows(paths: &Paths, full: bool, table: &Table) -> Vec<Row> {
    let mut rows = Vec::new();
    for (cpu_index, &cpu) in CPUS.iter().enumerate() {
        for (guest_index, &guest) in GUESTS.iter().enumerate() {
            if !full && cpu_index > 0 && guest_index > 0 {
                continue;
            }
            rows.push(boot_row(paths, cpu, guest, table));
        }
    }
    rows.extend(bochs_rows(paths, full, table));
    rows
}

/// A row that boots Linux.
fn boot_row(paths: &Paths, cpu: Cpu, guest: Guest, table: &Table) -> Row {
    let (paths, table) = (paths.clone(), Arc::clone(table));
    let name = format!("boot/{}/{}/{}/{}", cpu.platform.name(), cpu.model, cpu.paging, guest.name);
    Row::new(name, move |log| boot(&paths, cpu, guest, &table, log))
}

/// Guests on Bochs: Linux and bare-metal ones.
fn bochs_rows(paths: &Paths, full: bool, table: &Table) -> Vec<Row> {
    let mut rows = Vec::new();
    for bochs in BOCHS_CPUS {
        let cpu = Cpu { platform: Platform::Bochs, model: bochs.model, paging: "nested" };
        if let Some(&guest) = GUESTS.first().filter(|_| full || bochs.linux_always) {
            rows.push(boot_row(paths, cpu, guest, table));
        }
        for &(guest, always) in bochs.guests {
            if !full && !always {
                continue;
            }
            let (paths, table) = (paths.clone(), Arc::clone(table));
            let name =
                format!("bare-metal/{}/{}/{}/{guest}", cpu.platform.name(), cpu.model, cpu.paging);
            rows.push(Row::new(name, move |log| {
                let mut entry = entry(cpu, guest);
                let result = run_bare_metal(&paths, cpu, &mut entry, log);
                enter(entry, &result, &table);
                result
            }));
        }
    }
    rows
}

/// Runs a bare-metal guest, counts its tests and notes what the report says.
fn run_bare_metal(paths: &Paths, cpu: Cpu, entry: &mut Entry, log: &mut Log) -> Result<Tally> {
    setup::ensure_bochs()?;
    let guests = cargo_build::bare_metal_binaries(paths, "bare-metal")?;
    let kernel = guests.iter().find(|(name, _)| name == entry.guest);
    let kernel = &kernel.with_context(|| format!("there is no guest '{}'", entry.guest))?.1;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.json");
    let (kernel, place) = (kernel.to_string_lossy(), report.to_string_lossy());
    let options = ["run", "--timeout", "240", "--mem", "64", "--platform", entry.platform];
    let more = ["--cpu", cpu.model, "--kernel", &kernel, "--report", &place];
    let begin = Instant::now();
    let answer =
        Invocation::xtask(options.iter().chain(&more))?.limit(Duration::from_secs(300)).run(log)?;
    entry.seconds = begin.elapsed().as_secs_f64();
    if let Ok(bytes) = std::fs::read(&report) {
        let report: RunReport = serde_json::from_slice(&bytes)?;
        entry.exits = exits(&report);
        entry.backend = report.machine.backend;
    }
    match count(&answer.stdout) {
        // Its exit value is the number of failures.
        Ok(tally) if answer.status == i32::try_from(tally.failed)? => {
            if tally.failed > 0 {
                entry.result = format!("{} of its tests failed", tally.failed);
            }
            Ok(tally)
        }
        _ => answer.expect_status(0).map(|()| Tally::ONE),
    }
}

/// An entry for a run that has not begun.
fn entry(cpu: Cpu, guest: &'static str) -> Entry {
    Entry {
        platform: cpu.platform.name(),
        cpu: cpu.model,
        backend: String::new(),
        paging: cpu.paging,
        guest,
        seconds: 0.0,
        exits: 0,
        result: "ok".into(),
    }
}

/// Puts a finished entry into the table.
fn enter<T>(mut entry: Entry, result: &Result<T>, table: &Table) {
    if let Err(error) = result {
        entry.result = format!("{error:#}");
    }
    table.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
}

/// Boots a guest, looks around in it, and enters what happened into the table.
fn boot(paths: &Paths, cpu: Cpu, guest: Guest, table: &Table, log: &mut Log) -> Result<Tally> {
    let mut entry = entry(cpu, guest.name);
    let result = try_boot(paths, cpu, guest, &mut entry, log);
    enter(entry, &result, table);
    result.map(|()| Tally::ONE)
}

fn try_boot(paths: &Paths, cpu: Cpu, guest: Guest, entry: &mut Entry, log: &mut Log) -> Result<()> {
    let kernel = image::kernel(paths, guest.package)?;
    let kernel = kernel.to_string_lossy();
    let command = "nproc; dmesg | grep -E 'BUG|Oops|Call Trace|rcu:.*stall'; true";
    let accelerator: &[&str] = match cpu.platform {
        Platform::Qemu => &["--accel", "tcg"],
        Platform::Bochs => &[],
    };
    let options = [
        "run",
        "--json",
        "--timeout",
        "180",
        "--platform",
        entry.platform,
        "--cpu",
        cpu.model,
        "--paging",
        cpu.paging,
        "--kernel",
        &kernel,
        "--mem",
        guest.memory_mib,
        "--smp",
        guest.vcpus,
        "--exec",
        command,
    ];
    let answer = Invocation::xtask(options.iter().chain(accelerator))?
        .limit(Duration::from_secs(240))
        .run(log)?;
    let json: serde_json::Value =
        serde_json::from_str(&answer.stdout).context("the run gave no result")?;
    entry.seconds = json["seconds"].as_f64().unwrap_or_default();
    if let Ok(report) = serde_json::from_value::<RunReport>(json["report"].clone()) {
        entry.exits = exits(&report);
        entry.backend = report.machine.backend;
    }
    answer.expect_status(0)?;
    let expected = format!("{}\n", guest.vcpus);
    let output = json["output"].as_str().unwrap_or_default();
    ensure!(output == expected, "the guest says {output:?}, expected {expected:?}");
    Ok(())
}

fn exits(report: &RunReport) -> u64 {
    let vcpus = report.vms.iter().flat_map(|vm| &vm.vcpus);
    vcpus.flat_map(|vcpu| &vcpu.exits).map(|exit| exit.count).sum()
}

fn text(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:<9} {:<20} {:<8} {:<7} {:<11} {:>8} {:>9}  {}\n",
        "platform", "CPU", "backend", "paging", "guest", "seconds", "exits", "result"
    );
    for entry in entries {
        text.push_str(&format!(
            "{:<9} {:<20} {:<8} {:<7} {:<11} {:>8.1} {:>9}  {}\n",
            entry.platform,
            entry.cpu,
            entry.backend,
            entry.paging,
            entry.guest,
            entry.seconds,
            entry.exits,
            entry.result
        ));
    }
    text
}

/// A file for the table that appears whole or not at all.
struct JsonFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl JsonFile {
    fn prepare(path: &Path) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
            .with_context(|| format!("--json: cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(self, entries: &[Entry]) -> Result<()> {
        serde_json::to_writer_pretty(self.file.as_file(), entries)?;
        self.file
            .persist(&self.path)
            .map_err(|error| error.error)
            .with_context(|| format!("--json: cannot write {}", self.path.display()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_differ_in_one_thing_unless_all_are_wanted() {
        let folder = Path::new("/nonexistent");
        let paths = Paths { root: folder.into(), target: folder.into() };
        let count = |full| matrix_rows(&paths, full, &Table::default()).len();
        let guests = |full: bool| {
            BOCHS_CPUS
                .iter()
                .flat_map(move |cpu| cpu.guests.iter().filter(move |g| full || g.1))
                .count()
        };
        let linux = BOCHS_CPUS.iter().filter(|cpu| cpu.linux_always).count();
        assert_eq!(count(false), CPUS.len() + GUESTS.len() - 1 + linux + guests(false));
        let all = CPUS.len() * GUESTS.len() + BOCHS_CPUS.len() + guests(true);
        assert_eq!(count(true), all);
    }

    #[test]
    fn the_table_has_a_line_for_each_entry() {
        let entry = Entry {
            platform: "qemu",
            cpu: "max",
            backend: "svm".into(),
            paging: "nested",
            guest: "cloud",
            seconds: 1.25,
            exits: 7,
            result: "ok".into(),
        };
        let text = text(&[entry]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("7  ok\n"));
    }
}
