// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first serial port of Bochs: a pseudo-terminal in raw mode.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// How often the log is looked at before the co-kernel runs.
const LOOK: Duration = Duration::from_millis(50);

/// A pseudo-terminal.
pub struct Terminal {
    /// Our side.
    pub user: File,
    /// The machine's side. It stays open in child processes, so that our side sees its end when
    /// the last of them has ended, whether or not it has opened the terminal itself.
    pub machine: OwnedFd,
    /// Name of the machine's side.
    pub name: String,
}

impl Terminal {
    /// Makes one, in raw mode.
    ///
    /// # Errors
    /// When the operating system has none left.
    pub fn open() -> Result<Self> {
        let attempt = || -> rustix::io::Result<Self> {
            let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&user)?;
            unlockpt(&user)?;
            let name = ptsname(&user, Vec::new())?;
            let machine = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
            let mut settings = tcgetattr(&machine)?;
            settings.make_raw();
            tcsetattr(&machine, OptionalActions::Now, &settings)?;
            let name = name.to_string_lossy().into_owned();
            Ok(Self { user: user.into(), machine, name })
        };
        attempt().context("cannot make a pseudo-terminal")
    }
}

/// Moves bytes between the serial port and the standard streams until the machine ends.
///
/// Input waits until the co-kernel runs, which is when its log is no longer empty: what arrives
/// earlier is dropped by Bochs, which clears the line when it opens it.
///
/// # Errors
/// When the operating system refuses to wait, or nobody takes the output.
pub fn relay(mut port: File, log: PathBuf) -> Result<()> {
    rustix::io::ioctl_fionbio(&port, true)?;
    let stdin = rustix::stdio::stdin();
    let mut stdout = io::stdout().lock();
    let mut log = Some(log);
    let mut input_open = true;
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if log.as_ref().is_some_and(|log| log.metadata().is_ok_and(|data| data.len() > 0)) {
            log = None;
        }
        let wants_input = input_open && log.is_none() && pending.is_empty();
        let port_events =
            PollFlags::IN | if pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = vec![PollFd::new(&port, port_events)];
        if wants_input {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
        match poll(&mut fds, log.is_some().then_some(&look)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the console"),
        }
        let ready = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
        let (from_port, from_user) = (ready(0), ready(1));
        if from_port.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match port.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    stdout.write_all(buffer.get(..count).unwrap_or_default())?;
                    stdout.flush()?;
                }
                Err(error) if is_transient(&error) => {}
                // EIO: the machine's side is closed.
                Err(_) => return Ok(()),
            }
        }
        if from_port.contains(PollFlags::OUT) {
            match port.write(&pending) {
                Ok(count) => drop(pending.drain(..count)),
                Err(error) if is_transient(&error) => {}
                Err(_) => return Ok(()),
            }
        }
        if !from_user.is_empty() {
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) => input_open = false,
                Ok(count) => pending.extend(buffer.iter().take(count)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => input_open = false,
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
