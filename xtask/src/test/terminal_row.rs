// SPDX-License-Identifier: MIT OR Apache-2.0
//! `run` at a terminal: keys, Ctrl-A X, and a terminal that is left as it was found.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::bare_metal;
use super::row::{Log, Row, Tally};
use crate::paths::Paths;
use crate::process::OwnedChild;

/// The processes of a machine that is killed end within this time.
const END: Duration = Duration::from_secs(10);

/// All rows of this kind.
pub fn rows(paths: &Paths, quick: bool) -> Vec<Row> {
    let linux = [("run-bare/terminal", &["--bare"][..]), ("run/terminal", &[])];
    let mut rows: Vec<Row> = linux
        .map(|(name, options)| {
            Row::new(name, move |log| {
                keys_and_quit(options, log)?;
                killed(options, PROMPT, log)?;
                Ok(Tally::ONE.plus(Tally::ONE))
            })
        })
        .into();
    if !quick {
        let paths = paths.clone();
        rows.push(Row::new("run-bochs/terminal", move |log| bochs(&paths, log)));
    }
    rows
}

/// What the shell of the Linux guest asks with.
const PROMPT: &str = "guest:/root# ";

/// The bare-metal guest `console` on Bochs, where Linux would take long.
fn bochs(paths: &Paths, log: &mut Log) -> Result<Tally> {
    const READY: &str = "console ready";
    let kernel = bare_metal::path(paths, "console")?;
    let kernel = kernel.to_string_lossy();
    let machine = ["--platform", "bochs", "--cpu", "tigerlake"];
    let options: Vec<&str> =
        machine.into_iter().chain(["--mem", "64", "--kernel", &kernel]).collect();
    let mut session = Session::start(&options)?;
    session.expect(READY)?;
    ensure!(session.is_raw()?, "the terminal is not in raw mode");
    session.user.write_all(b"x\x03")?;
    session.expect("polled 'x'")?;
    session.expect("polled '\\u{3}'")?;
    session.quit(log)?;
    killed(&options, READY, log)?;
    Ok(Tally::ONE.plus(Tally::ONE))
}

/// A pseudo-terminal with `run` on it.
struct Session {
    user: File,
    terminal: OwnedFd,
    child: OwnedChild,
    seen: String,
}

impl Session {
    fn start(options: &[&str]) -> Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let name = ptsname(&user, Vec::new())?;
        let terminal = File::options().read(true).write(true).open(name.to_str()?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").args(options).env("TERM", "dumb");
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
        // What came with it stays, for it may be expected next.
        let end = self.seen.find(text).map_or(0, |at| at + text.len());
        self.seen.drain(..end);
        Ok(())
    }

    fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(&self.terminal)?.local_modes.contains(LocalModes::ICANON))
    }

    /// Waits for the end of `run`, after which the terminal has to be as before and no process
    /// may be left, and gives its exit status.
    fn wait(&mut self, processes: &[u32]) -> Result<i32> {
        let status = self.child.wait_until(Instant::now() + Duration::from_secs(20))?;
        let status = status.context("it did not end")?.code().context("it was killed")?;
        ensure!(!self.is_raw()?, "the terminal was left in raw mode");
        ensure!(!processes.is_empty(), "there was no machine");
        let deadline = Instant::now() + END;
        while let Some(left) = processes.iter().find(|&&process| parent(process).is_some()) {
            ensure!(Instant::now() < deadline, "process {left} is left");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(status)
    }

    fn quit(&mut self, log: &mut Log) -> Result<()> {
        let processes = descendants(self.child.inner().id())?;
        self.user.write_all(b"\x01x")?;
        let status = self.wait(&processes)?;
        log.line(format_args!("Ctrl-A X: status {status}"));
        ensure!(status == 0, "status {status} after Ctrl-A X");
        Ok(())
    }
}

/// The parent of a process, unless the process has ended; a zombie has.
fn parent(process: u32) -> Option<u32> {
    // `PID (NAME) STATE PARENT ...`; the name may contain anything.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    (words.next()? != "Z").then_some(())?;
    words.next()?.parse().ok()
}

/// The processes that `ancestor` has started, and those that they have.
fn descendants(ancestor: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let id = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        parents.extend(id.and_then(|id: u32| Some((id, parent(id)?))));
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&one) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(id, _)| id));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn keys_and_quit(options: &[&str], log: &mut Log) -> Result<()> {
    let mut session = Session::start(options)?;
    session.expect(PROMPT)?;
    ensure!(session.is_raw()?, "the terminal is not in raw mode");
    session.user.write_all(b"echo $((6*7))$((1+1))\r")?;
    session.expect("422")?;
    // An interrupt is the guest's, not ours.
    session.user.write_all(b"sleep 1000\r")?;
    session.expect("sleep 1000")?;
    std::thread::sleep(Duration::from_millis(500));
    session.user.write_all(b"\x03")?;
    session.expect(PROMPT)?;
    session.quit(log)
}

fn killed(options: &[&str], ready: &str, log: &mut Log) -> Result<()> {
    let mut session = Session::start(options)?;
    session.expect(ready)?;
    let processes = descendants(session.child.inner().id())?;
    let id = i32::try_from(session.child.inner().id())?;
    let id = rustix::process::Pid::from_raw(id).context("no process")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = session.wait(&processes)?;
    log.line(format_args!("SIGTERM: status {status}"));
    ensure!(status == 143, "status {status} after SIGTERM");
    Ok(())
}
