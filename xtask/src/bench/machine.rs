// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a machine to its end and keeps what it says.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::platform::MachineConfig;
use crate::process::{OwnedChild, last_line};
use crate::run::folder::RunFolder;

/// No benchmark takes longer, even where others use the machine too.
const LIMIT: Duration = Duration::from_secs(900);

/// What came of a machine.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Everything on its first serial port.
    pub console: String,
    /// A copy of that, for people.
    pub log: PathBuf,
}

/// Runs it. It ends with this process or thread, however that ends.
///
/// # Errors
/// When it cannot be started, does not end in time or is killed.
pub fn run(config: &MachineConfig, folder: &RunFolder) -> Result<Answer> {
    let (log, errors) = (folder.file("console.log"), folder.file("machine.stderr"));
    let mut command = config.command()?;
    command.stdin(Stdio::null()).stdout(File::create(&log)?).stderr(File::create(&errors)?);
    let mut child = OwnedChild::spawn(&mut command)?;
    let status = child.wait_until(Instant::now() + LIMIT)?;
    drop(child);
    let Some(status) = status else {
        bail!("it did not end within {} s; see {}", LIMIT.as_secs(), log.display());
    };
    let status = status.code().with_context(|| {
        let message = fs::read(&errors).map(|text| last_line(&text)).unwrap_or_default();
        format!("the emulator was killed: {message}")
    })?;
    let console = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Answer { status, console, log })
}
