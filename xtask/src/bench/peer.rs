// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux KVM on the same machine: Debian's cloud kernel, its KVM modules and our runner.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::place::{self, Job, Outcome};
use super::{figures, machine};
use crate::cpio::Archive;
use crate::paths::Paths;
use crate::platform::Boot;
use crate::run::folder::RunFolder;
use crate::{cargo_build, image, run, setup};

/// What the runner's last line begins with, and how it ends when all is well.
const MARK: &str = "@kvm-runner ";
const SUCCESS: &str = "guest ended with 0";

/// Memory that Linux has beside the guest's, in MiB; with little it uses no huge pages.
const LINUX_MIB: u64 = 960;

/// How Linux is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting<'a> {
    /// Whether KVM uses nested paging; shadow paging otherwise.
    pub nested: bool,
    /// What else Linux has to do, by the runner's names.
    pub loads: &'a [&'a str],
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
    let boot =
        Boot::Kernel { kernel, initrd: Some(initrd), command_line: command_line(job, setting) };
    let answer = machine::run(&place::machine(job, job.memory_mib + LINUX_MIB, boot), folder)?;
    let Some((console, end)) = answer.console.rsplit_once(MARK) else {
        bail!("Linux did not get to running the guest; see {}", answer.log.display());
    };
    let end = end.lines().next().unwrap_or_default().trim();
    if end != SUCCESS {
        bail!("{end}; see {}", answer.log.display());
    }
    Ok(Outcome { console: console.to_owned(), report: None })
}

/// Linux's options, and behind `--` those of the runner.
fn command_line(job: Job<'_>, setting: Setting<'_>) -> String {
    let mut line = format!(
        "{} -- memory={} cpus={} npt={}",
        run::COMMAND_LINE,
        job.memory_mib,
        job.cpus,
        u8::from(setting.nested)
    );
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
    for folder in ["dev", "modules", "proc"] {
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
            cpus: 2,
            deterministic: true,
        };
        let line = command_line(job, Setting { loads: &["fork"], ..Setting::default() });
        assert!(line.starts_with(run::COMMAND_LINE));
        assert!(
            line.ends_with(" -- memory=64 cpus=2 npt=0 append=a append=b=1 load=fork"),
            "{line}"
        );
    }
}
