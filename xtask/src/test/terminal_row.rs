// SPDX-License-Identifier: MIT OR Apache-2.0
//! `run` at a terminal: keys, Ctrl-A X, and a terminal that is left as it was found.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::row::{Log, Row, Tally};
use crate::paths::Paths;
use crate::process::OwnedChild;

/// All rows of this kind.
pub fn rows(_: &Paths) -> Vec<Row> {
    [("run-bare/terminal", true), ("run/terminal", false)]
        .map(|(name, bare)| {
            Row::new(name, move |log| {
                keys_and_quit(bare, log)?;
                killed(bare, log)?;
                Ok(Tally::ONE.plus(Tally::ONE))
            })
        })
        .into()
}

/// A pseudo-terminal with `run` on it.
struct Session {
    user: File,
    terminal: OwnedFd,
    child: OwnedChild,
    seen: String,
}

impl Session {
    fn start(bare: bool) -> Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let name = ptsname(&user, Vec::new())?;
        let terminal = File::options().read(true).write(true).open(name.to_str()?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").args(bare.then_some("--bare")).env("TERM", "dumb");
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?);
        command.stderr(terminal.try_clone()?);
        let child = OwnedChild::spawn(&mut command)?;
        Ok(Self { user: user.into(), terminal: terminal.into(), child, seen: String::new() })
    }

    /// Reads until `text` appears.
    fn expect(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        while !self.seen.contains(text) {
            if Instant::now() > deadline {
                bail!("'{text}' did not appear");
            }
            let mut fds = [PollFd::new(&self.user, PollFlags::IN)];
            if poll(&mut fds, Some(&second))? > 0 {
                let mut buffer = [0; 4096];
                let count = self.user.read(&mut buffer)?;
                let bytes = buffer.get(..count).unwrap_or_default();
                self.seen.push_str(&String::from_utf8_lossy(bytes));
            }
        }
        self.seen.clear();
        Ok(())
    }

    fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(&self.terminal)?.local_modes.contains(LocalModes::ICANON))
    }

    fn wait(&mut self) -> Result<i32> {
        let status = self.child.wait_until(Instant::now() + Duration::from_secs(20))?;
        status.context("it did not end")?.code().context("it was killed")
    }
}

fn keys_and_quit(bare: bool, log: &mut Log) -> Result<()> {
    let mut session = Session::start(bare)?;
    session.expect("guest:/root# ")?;
    ensure!(session.is_raw()?, "the terminal is not in raw mode");
    session.user.write_all(b"echo $((6*7))$((1+1))\r")?;
    session.expect("422")?;
    // An interrupt is the guest's, not ours.
    session.user.write_all(b"sleep 1000\r")?;
    session.expect("sleep 1000")?;
    std::thread::sleep(Duration::from_millis(500));
    session.user.write_all(b"\x03")?;
    session.expect("guest:/root# ")?;
    session.user.write_all(b"\x01x")?;
    let status = session.wait()?;
    log.line(format_args!("Ctrl-A X: status {status}"));
    ensure!(status == 0, "status {status} after Ctrl-A X");
    ensure!(!session.is_raw()?, "the terminal was left in raw mode");
    Ok(())
}

fn killed(bare: bool, log: &mut Log) -> Result<()> {
    let mut session = Session::start(bare)?;
    session.expect("guest:/root# ")?;
    let id = i32::try_from(session.child.inner().id())?;
    let id = rustix::process::Pid::from_raw(id).context("no process")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = session.wait()?;
    log.line(format_args!("SIGTERM: status {status}"));
    ensure!(status == 143, "status {status} after SIGTERM");
    ensure!(!session.is_raw()?, "the terminal was left in raw mode");
    Ok(())
}
