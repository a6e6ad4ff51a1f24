// SPDX-License-Identifier: MIT OR Apache-2.0
//! Child processes that never outlive this one.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// How often a waiting loop looks at a child.
const POLL: Duration = Duration::from_millis(20);

/// A child process in a process group of its own, killed when dropped, when this process dies
/// in whatever way, and when the thread that started it ends.
#[derive(Debug)]
pub struct OwnedChild {
    child: Child,
}

impl OwnedChild {
    /// Starts `command`.
    ///
    /// # Errors
    /// When the program cannot be started; names it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = die_with_parent(command)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program_name(command)))?;
        Ok(Self { child })
    }

    /// The process itself.
    pub fn inner(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end until `deadline`; `None` when the time is up.
    ///
    /// # Errors
    /// When the operating system refuses to wait.
    pub fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Failure means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the child when the thread that starts it ends.
fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes
    // two plain system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::CANCELED.raw_os_error(),
                ));
            }
            Ok(())
        })
    }
}

/// The program's name as given.
pub fn program_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command as one would type it.
pub fn command_line(command: &Command) -> String {
    let mut line = program_name(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs `command` to its end with captured output, showing `what` as progress.
///
/// Ctrl-C on the terminal reaches the command too.
///
/// # Errors
/// When it cannot be started. Its failure is the caller's to judge.
pub fn capture(command: &mut Command, what: &str) -> Result<Output> {
    let progress = Progress::start(what);
    let output = capture_silently(command);
    drop(progress);
    output
}

/// Like [`capture`], without a word of what is waited for.
///
/// # Errors
/// When it cannot be started. Its failure is the caller's to judge.
pub fn capture_silently(command: &mut Command) -> Result<Output> {
    let mut child = die_with_parent(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program_name(command)))?;
    let error_pipe = child.stderr.take();
    let output_pipe = child.stdout.take();
    let reader = std::thread::spawn(move || read_all(error_pipe));
    let stdout = read_all(output_pipe)?;
    let stderr = reader.join().map_err(|_| anyhow::anyhow!("reading standard error failed"))??;
    let status = child.wait()?;
    Ok(Output { status, stdout, stderr })
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Like [`capture`], for commands that must succeed; gives their standard output.
///
/// # Errors
/// When the command fails: its last line on standard error, and what was run.
pub fn succeed(command: &mut Command, what: &str) -> Result<Vec<u8>> {
    let output = capture(command, what)?;
    if !output.status.success() {
        bail!(
            "{what}: '{}' failed ({}): {}",
            command_line(command),
            output.status,
            last_line(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// What [`last_line`] gives for a text without any.
pub const NO_MESSAGE: &str = "no message";

/// The last line that is not empty.
pub fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or(NO_MESSAGE)
        .to_owned()
}

/// Whether `program` is found on the search path.
pub fn on_path(program: &str) -> bool {
    // Debian keeps some of the programs used here where only root looks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_both_streams_and_reports_failure() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo one >&2; echo two >&2; exit 3"]);
        let output = capture(&mut command, "test").unwrap();
        assert_eq!((output.stdout, output.status.code()), (b"out\n".to_vec(), Some(3)));
        let mut command = Command::new("sh");
        let error = succeed(command.args(["-c", "echo one >&2; echo two >&2; exit 3"]), "test");
        assert!(error.unwrap_err().to_string().ends_with("two"));
    }

    #[test]
    fn an_owned_child_dies_when_dropped() {
        let mut child = OwnedChild::spawn(Command::new("sleep").arg("1000")).unwrap();
        let id = child.inner().id();
        assert!(child.wait_until(Instant::now()).unwrap().is_none());
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn last_line_skips_blank_ones() {
        assert_eq!(last_line(b"a\n b \n\n"), "b");
        assert_eq!(last_line(b""), NO_MESSAGE);
    }
}
