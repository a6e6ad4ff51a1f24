// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that runs Bochs.
//!
//! Everything that Bochs needs besides the image and the log is in memory or a terminal, so that
//! nothing stays behind however this process ends; Bochs ends with it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;
use wire::machine_exit;

use super::BochsOptions;
use super::config::{Config, debugger_commands, text};
use super::console::{Terminal, relay};
use super::models::{self, Vendor};
use super::panics::{self, Watch, is_triple_fault};
use crate::process::{OwnedChild, last_line};
use crate::run::outcome::exit_status;
use crate::setup::BOCHS;

/// Exit status for "the emulator failed", as QEMU has it.
const EMULATOR_FAILED: u8 = 1;
/// Exit status for "the machine was reset", as QEMU has it with `-no-reboot`.
const RESET: u8 = 0;

/// After Bochs has closed its serial port it has this long to exit.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs Bochs and gives the status described at [`crate::platform::MachineConfig::command`].
///
/// # Errors
/// When Bochs cannot be started.
pub fn run(options: &BochsOptions) -> Result<u8> {
    let display = Terminal::open()?;
    let console = Terminal::open()?;
    let (mut messages, mut errors) = (memory_file("messages")?, memory_file("errors")?);
    let mut configuration = memory_file("configuration")?;
    let goes_on = models::find(&options.cpu)?.vendor == Vendor::Amd;
    let text = configure(options, &console.name, &path(&messages), goes_on);
    configuration.write_all(text.as_bytes())?;
    let mut commands = memory_file("commands")?;
    commands.write_all(debugger_commands().as_bytes())?;
    // A log of an earlier run would let input in too early, and give its exit code.
    File::create(&options.log)
        .with_context(|| format!("cannot write {}", options.log.display()))?;

    let mut command = Command::new(BOCHS.program);
    command.arg("-q").arg("-f").arg(path(&configuration)).arg("-rc").arg(path(&commands));
    command.env("TERM", "xterm").env_remove("LTDL_LIBRARY_PATH");
    command.stdin(display.machine.try_clone()?).stdout(display.machine);
    command.stderr(errors.try_clone()?);
    let mut child = OwnedChild::spawn(&mut command)?;
    let watch = Watch::begin(messages.try_clone()?, Pid::from_child(child.inner()));
    // Close our copies of the terminals' other sides, so that their ends are seen.
    drop((command, console.machine));
    let mut screen = display.user;
    // It ends with Bochs: what is drawn must be read, or Bochs waits.
    std::thread::spawn(move || {
        let mut drawn = [0; 4096];
        while screen.read(&mut drawn).is_ok_and(|count| count > 0) {}
    });
    relay(console.user, options.log.clone())?;
    child.wait_until(Instant::now() + LAST_WORDS)?;
    drop(watch);
    drop(child);

    let log = std::fs::read(&options.log).unwrap_or_default();
    if let Some(code) = exit_code(&String::from_utf8_lossy(&log)) {
        return Ok(u8::try_from(exit_status(code)).unwrap_or(EMULATOR_FAILED));
    }
    let message = verdict(&contents(&mut messages), &contents(&mut errors));
    eprintln!("{message}");
    Ok(if is_triple_fault(&message) { RESET } else { EMULATOR_FAILED })
}

fn configure(options: &BochsOptions, console: &str, messages: &str, goes_on: bool) -> String {
    let name = |path: &Path| path.to_string_lossy().into_owned();
    text(&Config {
        cpu: &options.cpu,
        cpus: options.cpus,
        memory_mib: options.memory,
        iso: &name(&options.iso),
        console,
        log: &name(&options.log),
        messages,
        goes_on,
    })
}

/// A file without a name, which child processes inherit.
fn memory_file(name: &str) -> Result<File> {
    let fd: OwnedFd = memfd_create(name, MemfdFlags::empty()).context("cannot make a file")?;
    Ok(fd.into())
}

/// Name of an inherited file in a child process.
fn path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // Without its messages Bochs has failed all the same.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code that the co-kernel wrote last.
fn exit_code(log: &str) -> Option<u8> {
    let number = log.lines().rev().find_map(|line| line.strip_prefix(machine_exit::LOG_PREFIX))?;
    number.trim().parse().ok()
}

/// What Bochs says about its end: the panic in its log, else its last words.
fn verdict(messages: &str, errors: &str) -> String {
    let panic = panics::Reader::default().fatal(messages);
    panic.unwrap_or_else(|| last_line(errors.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exit_code_counts() {
        assert_eq!(exit_code("[0.1 cpu0] x\n@exit 16\n"), Some(16));
        assert_eq!(exit_code("@exit 16\r\n@exit 18\r\n"), Some(18));
        assert_eq!(exit_code("@exit 300\n"), None);
        assert_eq!(exit_code("the guest says @exit 16\n"), None);
    }

    #[test]
    fn bochs_own_panic_is_told() {
        let messages = "001i[CPU0] x\n002p[UNMAP ] >>PANIC<< Shutdown port\n003i[SIM] quit\n";
        assert_eq!(verdict(messages, "other"), "Shutdown port");
        assert_eq!(verdict("", "a\nno such file\n"), "no such file");
        assert!(is_triple_fault("exception(): 3rd (13) exception with no resolution"));
    }
}
