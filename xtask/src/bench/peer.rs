// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux KVM on the same machine: Debian's cloud kernel, its KVM modules and our runner.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::place::{self, Job, Outcome};
use super::{figures, machine};
use crate::cpio::Archive;
use crate::paths::Paths;
use crate::platform::bochs::{self, models::Model};
use crate::platform::{Boot, Engine, MachineConfig};
use crate::run::folder::RunFolder;
use crate::{cargo_build, image, iso, run, setup};

/// What the runner's last line begins with, and how it ends when all is well.
const MARK: &str = "@kvm-runner ";
const SUCCESS: &str = "guest ended with 0";

/// Memory that Linux has beside the guest's, in MiB; with little it uses no huge pages.
const LINUX_MIB: u64 = 960;

/// The same on Bochs, where it takes a while to make lists of all that memory.
const LINUX_MIB_BOCHS: u64 = 480;

/// Options of a Linux with several CPUs.
///
/// - `maxcpus=1`: the runner brings up the others, since by QEMU's `-icount` Linux hangs in
///   starting them while it boots; see `benches/kvm-runner/src/cpus.rs`.
/// - `tsc=reliable`: the emulated machine does not say that its time-stamp counters agree, and
///   without that Linux uses a slower clock.
const SEVERAL_CPUS: &str = "maxcpus=1 tsc=reliable";

/// How Linux is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting<'a> {
    /// Whether KVM uses nested paging; shadow paging otherwise.
    pub nested: bool,
    /// What else Linux has to do, by the runner's names.
    pub loads: &'a [&'a str],
    /// Whether Linux has one CPU more than the guest, and each vCPU one for itself, apart from what
    /// else Linux does.
    pub apart: bool,
    /// The CPU model if the machine is one of Bochs'.
    pub bochs: Option<&'a Model>,
    /// The guest's own initial RAM disk, if it is Linux.
    pub initrd: Option<&'a Path>,
}

/// Runs the guest. What the runner measured itself follows the guest's own lines.
///
/// # Errors
/// When something cannot be fetched or built, or the guest does not end well.
pub fn run(
    paths: &Paths,
    job: Job<'_>,
    setting: Setting<'_>,
    folder: &RunFolder,
) -> Result<Outcome> {
    setup::ensure_tools(&setup::PACKAGE_TOOLS)?;
    let kernel = image::kernel(paths, image::DEFAULT_KERNEL)?;
    let initrd = folder.file("kvm.cpio");
    write_initrd(paths, job.guest, setting.initrd, &initrd)?;
    let line = command_line(job, setting);
    let boot = match setting.bochs {
        None => Boot::Kernel { kernel, initrd: Some(initrd), command_line: line },
        Some(_) => {
            setup::ensure_bochs()?;
            let image = folder.file("machine.iso");
            iso::make_linux(&image, &kernel, &initrd, &line)?;
            Boot::Iso(image)
        }
    };
    let cpus = linux_cpus(job, setting);
    let linux_mib = if setting.bochs.is_some() { LINUX_MIB_BOCHS } else { LINUX_MIB };
    let mut machine =
        MachineConfig { cpus, ..place::machine(job, job.memory_mib + linux_mib, boot) };
    if let Some(model) = setting.bochs {
        machine.engine = Engine::Bochs;
        machine.cpu = model.name.to_owned();
        machine.log = Some(folder.file("linux.log"));
    }
    let answer = machine::run(&machine, folder)?;
    let Some((console, end)) = answer.console.rsplit_once(MARK) else {
        bail!("Linux did not get to running the guest; see {}", answer.log.display());
    };
    let end = end.lines().next().unwrap_or_default().trim();
    if end != SUCCESS {
        bail!("{end}; see {}", answer.log.display());
    }
    Ok(Outcome { console: console.to_owned(), report: None })
}

/// CPUs of the machine.
fn linux_cpus(job: Job<'_>, setting: Setting<'_>) -> u32 {
    job.cpus + u32::from(setting.apart)
}

/// Linux's options, and behind `--` those of the runner.
fn command_line(job: Job<'_>, setting: Setting<'_>) -> String {
    let mut line = run::COMMAND_LINE.to_owned();
    if linux_cpus(job, setting) > 1 {
        line.push_str(&format!(" {SEVERAL_CPUS}"));
    }
    if let Some(model) = setting.bochs {
        line.push_str(&format!(" {}", bochs::native_kernel_options(model)));
    }
    let Job { memory_mib, cpus, .. } = job;
    let [npt, apart] = [setting.nested, setting.apart].map(u8::from);
    line.push_str(&format!(" -- memory={memory_mib} cpus={cpus} npt={npt} apart={apart}"));
    for word in job.words.split_whitespace() {
        line.push_str(&format!(" append={word}"));
    }
    for load in setting.loads {
        line.push_str(&format!(" load={load}"));
    }
    line
}

/// What the runner says of the guest's start, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// From the beginning of the VM's creation to the first entry into the guest.
    pub created: u64,
    /// The guest's counter at that moment.
    pub guest_tsc: u64,
}

/// The times in the runner's output.
///
/// # Errors
/// When there are none.
pub fn timing(console: &str) -> Result<Timing> {
    let line = said(console, "timing ")?;
    let (created, guest_tsc) =
        (figures::value(line, "created")?, figures::value(line, "guest_tsc")?);
    Ok(Timing { created, guest_tsc })
}

/// By how much a field of the kernel's memory grew while the VM was there, in bytes.
///
/// # Errors
/// When the runner does not say.
pub fn growth(console: &str, field: &str) -> Result<u64> {
    let before = figures::value(said(console, "memory before ")?, field)?;
    let after = figures::value(said(console, "memory after ")?, field)?;
    Ok(after.saturating_sub(before) * 1024)
}

/// The size of KVM's modules, in bytes.
///
/// # Errors
/// When the runner does not say.
pub fn modules(console: &str) -> Result<u64> {
    Ok(figures::value(said(console, "memory after ")?, "Modules")? * 1024)
}

/// The last line that begins so, without that beginning.
fn said<'a>(console: &'a str, start: &str) -> Result<&'a str> {
    let line = console.lines().rev().find_map(|line| line.trim().strip_prefix(start));
    line.with_context(|| format!("the runner does not say '{}'", start.trim()))
}

fn write_initrd(paths: &Paths, guest: &Path, guest_initrd: Option<&Path>, to: &Path) -> Result<()> {
    let modules = image::kvm_modules(paths, image::DEFAULT_KERNEL)?;
    let runner = cargo_build::kvm_runner(paths)?;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::create(to)?;
    for folder in ["dev", "modules", "proc", "sys"] {
        archive.directory(folder, 0o755)?;
    }
    // The kernel opens it before /dev is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, &read(&runner)?)?;
    archive.file("guest", 0o644, &read(guest)?)?;
    if let Some(guest_initrd) = guest_initrd {
        archive.file("initrd", 0o644, &read(guest_initrd)?)?;
    }
    let mut files: Vec<_> = fs::read_dir(&modules)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let name = format!("modules/{}", file.file_name().to_string_lossy());
        archive.file(&name, 0o644, &read(&file.path())?)?;
    }
    archive.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runner_says_is_found() {
        let console = "timing of the guest\r\ntiming created=5 guest_tsc=6\r\n\
                       memory before Slab=10 PageTables=4 Modules=0\r\n\
                       memory after Slab=13 PageTables=3 Modules=7\r\n";
        assert_eq!(timing(console).unwrap(), Timing { created: 5, guest_tsc: 6 });
        assert_eq!(growth(console, "Slab").unwrap(), 3072);
        assert_eq!(growth(console, "PageTables").unwrap(), 0);
        assert_eq!(modules(console).unwrap(), 7168);
        assert!(growth(console, "Percpu").is_err());
        assert!(timing("nothing").is_err());
    }

    #[test]
    fn the_runner_is_told_behind_the_dashes() {
        let job = Job {
            guest: Path::new("g"),
            words: "a b=1",
            memory_mib: 64,
            cpus: 1,
            deterministic: true,
        };
        let line = command_line(job, Setting { loads: &["fork"], ..Setting::default() });
        let runner = "memory=64 cpus=1 npt=0 apart=0 append=a append=b=1 load=fork";
        assert_eq!(line, format!("{} -- {runner}", run::COMMAND_LINE));
    }

    #[test]
    fn a_cpu_apart_is_one_more() {
        let job =
            Job { guest: Path::new("g"), words: "", memory_mib: 64, cpus: 1, deterministic: true };
        let model = bochs::models::find("ryzen").unwrap();
        let setting = Setting { apart: true, bochs: Some(model), ..Setting::default() };
        assert_eq!(linux_cpus(job, setting), 2);
        let line = command_line(job, setting);
        let (kernel, runner) = line.split_once(" -- ").unwrap();
        assert!(kernel.contains(SEVERAL_CPUS), "{kernel}");
        assert!(kernel.ends_with(&bochs::native_kernel_options(model)), "{kernel}");
        assert_eq!(runner, "memory=64 cpus=1 npt=0 apart=1");
    }
}
