// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves bytes between a machine's console and the user until one of them has had enough.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::escape::Escape;
use super::filter::{Filter, Marker, Piece};
use super::input::PipedInput;
use crate::progress::Progress;

/// Bytes moved at once.
const CHUNK: usize = 16 << 10;
/// Input that waits for the machine; beyond this the user's side waits.
const INPUT_LIMIT: usize = 4 << 10;
/// Output kept for a caller that wants it, not a limit on what is passed on.
const KEPT_LIMIT: usize = 64 << 20;

/// Where the guest's input comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nowhere.
    None,
    /// A terminal in raw mode.
    Keys,
    /// A pipe or file for the shell of our own image: held until it is ready, its end passed on.
    Script,
    /// A pipe or file for an unknown guest: forwarded at once, its end ignored.
    Raw,
}

/// Which of the guest's output is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// All of it.
    All,
    /// That of the command: what is between its begin and end markers.
    Command,
}

/// Where the output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Kept in memory.
    Kept,
}

/// How the console is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where input comes from.
    pub source: Source,
    /// Which output counts.
    pub show: Show,
    /// Where it goes.
    pub sink: Sink,
    /// The run's nonce, if the guest uses markers.
    pub nonce: Option<String>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Copy of everything the guest wrote.
    pub transcript: Option<std::path::PathBuf>,
    /// What is waited for until the first output.
    pub waiting_for: Option<&'static str>,
}

/// Why the pump stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The machine closed its console: it has ended.
    MachineEnded,
    /// Ctrl-A X.
    Quit,
    /// This signal.
    Signal(i32),
    /// The deadline.
    Deadline,
}

/// What went through the console.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub stop: Stop,
    /// Status of the command or shell, if its end was seen.
    pub status: Option<u8>,
    /// The guest's time-stamp counter at `/init`, if it said.
    pub init_tsc: Option<u64>,
    /// The guest kernel's clock at `/init` in nanoseconds, if it said.
    pub init_clock: Option<u64>,
    /// When `/init` was seen.
    pub init_at: Option<Instant>,
    /// Whether the marker of `/init` was the first output of the guest.
    pub init_was_first: bool,
    /// Output, if it was to be kept.
    pub kept: Vec<u8>,
}

/// Runs the console of a machine whose serial port is `output` (from it) and `input` (to it).
///
/// # Errors
/// When the user's side cannot be written, or the operating system refuses to wait.
pub fn run(
    output: impl Read + AsFd,
    input: impl Write + AsFd,
    settings: Settings,
) -> Result<Outcome> {
    let signals = signal_pipe()?;
    rustix::io::ioctl_fionbio(&input, true).context("cannot set up the machine's console")?;
    let transcript = settings.transcript.as_ref().map(File::create).transpose()?;
    let waiting = settings.waiting_for.map(Progress::start);
    let pump = Pump {
        filter: Filter::new(settings.nonce.as_deref()),
        open: settings.show == Show::All,
        input_open: settings.source != Source::None,
        ready: settings.source != Source::Script,
        escape: Escape::default(),
        piped: PipedInput::default(),
        pending: Vec::new(),
        seen_output: false,
        transcript,
        waiting,
        settings,
        outcome: Outcome {
            stop: Stop::MachineEnded,
            status: None,
            init_tsc: None,
            init_clock: None,
            init_at: None,
            init_was_first: false,
            kept: Vec::new(),
        },
    };
    pump.run(output, input, signals)
}

/// A socket that becomes readable with the number of a signal that asks to end.
fn signal_pipe() -> Result<UnixStream> {
    let (read, write) = UnixStream::pair().context("cannot make a socket pair")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let write = write.try_clone()?;
        write.set_nonblocking(true)?;
        let number = u8::try_from(signal)?;
        // SAFETY: the action only writes one byte to a socket, which is async-signal-safe and
        // neither allocates nor takes a lock.
        unsafe {
            signal_hook::low_level::register(signal, move || {
                let _ = (&write).write(&[number]);
            })?;
        }
    }
    Ok(read)
}

struct Pump {
    settings: Settings,
    filter: Filter,
    escape: Escape,
    piped: PipedInput,
    /// Whether output is being passed on.
    open: bool,
    /// Whether there may be more input.
    input_open: bool,
    /// Whether the guest may be sent input.
    ready: bool,
    /// Input the machine has not taken yet.
    pending: Vec<u8>,
    seen_output: bool,
    transcript: Option<File>,
    waiting: Option<Progress>,
    outcome: Outcome,
}

impl Pump {
    fn run(
        mut self,
        mut output: impl Read + AsFd,
        mut input: impl Write + AsFd,
        mut signals: UnixStream,
    ) -> Result<Outcome> {
        loop {
            let events = self.wait(output.as_fd(), input.as_fd(), signals.as_fd())?;
            if events.signal {
                let mut number = [0];
                signals.read_exact(&mut number)?;
                return Ok(self.stop(Stop::Signal(i32::from(number[0]))));
            }
            if events.output && !self.take_output(&mut output)? {
                return Ok(self.stop(Stop::MachineEnded));
            }
            if events.keys && self.take_input()? {
                return Ok(self.stop(Stop::Quit));
            }
            if let Some(end_of_file) = self.piped.repeat(Instant::now()) {
                self.pending.push(end_of_file);
            }
            if events.room {
                self.feed(&mut input)?;
            }
            if self.settings.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(self.stop(Stop::Deadline));
            }
        }
    }

    /// Waits until something can be done.
    fn wait(
        &self,
        output: BorrowedFd<'_>,
        input: BorrowedFd<'_>,
        signals: BorrowedFd<'_>,
    ) -> Result<Events> {
        let stdin = rustix::stdio::stdin();
        let nothing = PollFlags::empty();
        let wants_keys = self.input_open && self.ready && self.pending.len() < INPUT_LIMIT;
        let wants_room = !self.pending.is_empty() && !self.piped.stopped();
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(output, PollFlags::IN),
        ];
        if wants_room {
            fds.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
        }
        if wants_keys {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        let next = [self.settings.deadline, self.piped.repeat_at()].into_iter().flatten().min();
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the console"),
        }
        let mut ready = fds.iter().map(|fd| fd.revents() != nothing);
        let mut next = |wanted: bool| wanted && ready.next().unwrap_or(false);
        Ok(Events {
            signal: next(true),
            output: next(true),
            room: next(wants_room),
            keys: next(wants_keys),
        })
    }

    /// Reads from the machine; false at its end.
    fn take_output(&mut self, output: &mut impl Read) -> Result<bool> {
        let mut buffer = vec![0; CHUNK];
        let count = match output.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error).context("cannot read the machine's console"),
        };
        buffer.truncate(count);
        if let Some(transcript) = &mut self.transcript {
            transcript.write_all(&buffer).context("cannot write the console's transcript")?;
        }
        if self.settings.source == Source::Script {
            self.piped.watch_output(&mut buffer);
        }
        for piece in self.filter.push(&buffer) {
            match piece {
                Piece::Text(text) => self.show(&text)?,
                Piece::Marker(marker) => self.heed(marker),
            }
        }
        Ok(true)
    }

    fn show(&mut self, text: &[u8]) -> Result<()> {
        self.seen_output = true;
        if !self.open {
            return Ok(());
        }
        self.waiting = None;
        match self.settings.sink {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(text)
                    .and_then(|()| stdout.flush())
                    .context("cannot write to standard output")
            }
            Sink::Kept => {
                let room = KEPT_LIMIT.saturating_sub(self.outcome.kept.len());
                self.outcome.kept.extend(text.iter().take(room));
                Ok(())
            }
        }
    }

    fn heed(&mut self, marker: Marker) {
        match marker {
            Marker::Init(tsc) => {
                self.outcome.init_tsc = Some(tsc);
                self.outcome.init_at = Some(Instant::now());
                self.outcome.init_was_first = !self.seen_output;
            }
            Marker::Clock(nanoseconds) => self.outcome.init_clock = Some(nanoseconds),
            Marker::Ready => {
                self.ready = true;
                self.waiting = None;
            }
            Marker::Begin => {
                self.open = true;
                self.waiting = None;
            }
            Marker::End(status) => {
                self.outcome.status = Some(status);
                self.open = self.settings.show == Show::All;
            }
        }
    }

    /// Reads from the user; true if that is to quit.
    fn take_input(&mut self) -> Result<bool> {
        let mut buffer = [0; 1024];
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(false),
            // A terminal that is gone, or a closed descriptor.
            Err(_) => 0,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            self.input_open = false;
            if self.settings.source == Source::Script {
                let end = self.piped.end(Instant::now());
                self.pending.extend(end);
            }
            return Ok(self.settings.source == Source::Keys);
        }
        if self.settings.source == Source::Keys {
            let keys = self.escape.push(bytes);
            self.pending.extend(keys.forward);
            return Ok(keys.quit);
        }
        self.piped.sent(bytes);
        self.pending.extend_from_slice(bytes);
        Ok(false)
    }

    /// Writes to the machine what it takes.
    fn feed(&mut self, input: &mut impl Write) -> Result<()> {
        match input.write(&self.pending) {
            Ok(count) => {
                self.pending.drain(..count);
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            // The machine is ending; its output says so next.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.pending.clear();
                self.input_open = false;
                Ok(())
            }
            Err(error) => Err(error).context("cannot write to the machine's console"),
        }
    }

    fn stop(mut self, stop: Stop) -> Outcome {
        let rest = self.filter.finish();
        // What failed to be written before will not be now.
        let _ = self.show(&rest);
        self.outcome.stop = stop;
        self.outcome
    }
}

/// What can be done without waiting.
struct Events {
    signal: bool,
    output: bool,
    room: bool,
    keys: bool,
}
