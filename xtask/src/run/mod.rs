// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: the main job.

pub mod bundle;
pub mod folder;
pub mod interrupts;
pub mod job;
pub mod options;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod start;

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::result_file::ResultFile;
use options::RunOptions;
use outcome::{Finished, Status};

/// Command line of the default guest; `--append` is added to it.
///
/// - `console=ttyS0`: the first serial port is the only console there is.
/// - `quiet`: the kernel's messages are for dmesg; on an emulated serial port they also cost
///   time. `--append debug` or `--append loglevel=7` brings them back.
/// - `panic=-1`: a panic restarts at once, which ends the run instead of hanging it.
/// - `no_timer_check`: Linux gives the timer interrupt a deadline in real time, which an emulator
///   on a busy host can miss; as a KVM guest Linux skips this check by itself.
/// - `nowatchdog`: likewise, a host that is busy for seconds is no lockup of the guest, and the
///   watchdog's timers would be noise.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check nowatchdog";

/// Runs a guest and gives the exit status of the command.
///
/// # Errors
/// When nothing could be run; one line that says why and what to do.
pub fn run(paths: &Paths, options: &RunOptions) -> Result<u8> {
    options.check()?;
    let _log_lock = options.log.as_deref().map(|path| claim(path, "--log")).transpose()?;
    let report = options.report.as_deref().map(|path| ResultFile::prepare("--report", path));
    let report = report.transpose()?;
    let folder = folder::RunFolder::create(paths)?;
    let plan = plan::Plan::make(paths, options, &folder)?;
    plan.announce();
    let finished = start::start(&plan, options, &folder)?;
    conclude(finished, options, report)
}

/// Reports what happened in the forms that were asked for.
fn conclude(finished: Finished, options: &RunOptions, report: Option<ResultFile>) -> Result<u8> {
    if let Some(target) = report {
        match &finished.report {
            Some(run_report) => target.write_json(run_report)?,
            None => eprintln!("note: there is no report, the run did not get that far"),
        }
    }
    if options.summary
        && let Some(run_report) = &finished.report
    {
        eprint!("{}", report::summary(run_report));
    }
    if options.json {
        println!("{}", serde_json::to_string(&finished.to_json())?);
    }
    match &finished.status {
        Status::Failed(why) => bail!("{why}; see {}", finished.log.display()),
        Status::TimedOut => {
            eprintln!("error: time limit reached; see {}", finished.log.display());
        }
        Status::Exited(_) | Status::Signal(_) => {}
    }
    Ok(finished.status.exit_code())
}

/// Opens a file that the user named for writing and keeps others from using it meanwhile.
fn claim(path: &Path, option: &str) -> Result<File> {
    let name = path.display();
    let file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("{option}: cannot write {name}, give another file"))?;
    if !file.metadata()?.is_file() {
        bail!("{option}: {name} is not a regular file, give another one");
    }
    if file.try_lock().is_err() {
        bail!("{option}: {name} is in use by another run, give another file");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_claimed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let first = claim(&path, "--log").unwrap();
        assert!(claim(&path, "--log").unwrap_err().to_string().contains("in use"));
        drop(first);
        claim(&path, "--log").unwrap();
        assert!(claim(folder.path(), "--log").is_err());
        assert!(claim(&folder.path().join("no/log"), "--log").is_err());
    }
}
