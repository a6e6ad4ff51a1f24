// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux KVM on the same machine: Debian's cloud kernel, its KVM modules and our runner.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::machine;
use super::place::{self, Job, Outcome};
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
}

/// Runs the guest.
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
    write_initrd(paths, job.guest, &initrd)?;
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

fn write_initrd(paths: &Paths, guest: &Path, to: &Path) -> Result<()> {
    let modules = image::kvm_modules(paths, image::DEFAULT_KERNEL)?;
    let runner = cargo_build::kvm_runner(paths)?;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::create(to)?;
    for folder in ["dev", "modules"] {
        archive.directory(folder, 0o755)?;
    }
    // The kernel opens it before /dev is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, &read(&runner)?)?;
    archive.file("guest", 0o644, &read(guest)?)?;
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
    fn the_runner_is_told_behind_the_dashes() {
        let job = Job {
            guest: Path::new("g"),
            words: "a b=1",
            memory_mib: 64,
            cpus: 2,
            deterministic: true,
        };
        let line = command_line(job, Setting { nested: false, loads: &["fork"] });
        assert!(line.starts_with(run::COMMAND_LINE));
        assert!(
            line.ends_with(" -- memory=64 cpus=2 npt=0 append=a append=b=1 load=fork"),
            "{line}"
        );
    }
}
