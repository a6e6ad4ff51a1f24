// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storm of processes: forked, and started anew, on all CPUs at once.

use std::env;
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::report::Report;
use crate::{CHILD, Options, affinity};

/// What the threads counted.
#[derive(Default)]
struct Counts {
    forked: u64,
    started: u64,
    wrong: u64,
}

/// Starts processes for a while and looks at what each ends with.
pub fn run(report: &mut Report, options: &Options) {
    let end = Instant::now() + Duration::from_secs(options.get("seconds").unwrap_or(3));
    let Some(cpus) = report.need("online", affinity::online()) else { return };
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|_| scope.spawn(|| storm(end))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).fold(
            Counts::default(),
            |sum, one| Counts {
                forked: sum.forked + one.forked,
                started: sum.started + one.started,
                wrong: sum.wrong + one.wrong,
            },
        )
    });
    let Counts { forked, started, wrong } = counts;
    let good = wrong == 0 && forked > 0 && started > 0;
    report.check("storm", good, format!("{forked} forked, {started} started, {wrong} wrong"));
}

fn storm(end: Instant) -> Counts {
    let mut counts = Counts::default();
    while Instant::now() < end {
        let status = (counts.forked & 0x7F) as u8;
        counts.forked += 1;
        counts.wrong += u64::from(fork(status).ok() != Some(status));
        counts.started += 1;
        counts.wrong += u64::from(start(status).ok() != Some(i32::from(status)));
    }
    counts
}

/// A child that ends with `status` at once; what its parent hears.
fn fork(status: u8) -> io::Result<u8> {
    // SAFETY: the child calls nothing but _exit, which is safe after a fork of threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes an integer and does not return.
        unsafe { libc::_exit(status.into()) };
    }
    let mut ended = 0;
    // SAFETY: the kernel writes one integer.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut ended, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    if !libc::WIFEXITED(ended) {
        return Err(io::Error::other("the child was killed"));
    }
    u8::try_from(libc::WEXITSTATUS(ended)).map_err(io::Error::other)
}

/// This program once more, to end with `status`.
fn start(status: u8) -> io::Result<i32> {
    let ended = Command::new(env::current_exe()?).args([CHILD, &status.to_string()]).status()?;
    ended.code().ok_or_else(|| io::Error::other("the child was killed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_as_it_was_told() {
        assert_eq!(fork(42).unwrap(), 42);
    }
}
