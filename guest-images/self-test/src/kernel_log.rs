// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's log must hold no complaint.

use std::io;

use crate::Options;
use crate::report::Report;

/// What a kernel in trouble writes.
const COMPLAINTS: [&str; 9] = [
    "BUG:",
    "Oops",
    "Call Trace",
    "WARNING: CPU",
    "stall",
    "lockup",
    "hung_task",
    "unstable",
    "nobody cared",
];

/// `SYSLOG_ACTION_READ_ALL` and `SYSLOG_ACTION_SIZE_BUFFER` of syslog(2).
const READ_ALL: libc::c_int = 3;
const SIZE_BUFFER: libc::c_int = 10;

/// Reads the log.
pub fn run(report: &mut Report, _: &Options) {
    let Some(log) = report.need("log", read()) else { return };
    let complaints: Vec<&str> = log.lines().filter(|line| is_complaint(line)).collect();
    report.check(
        "complaints",
        complaints.is_empty(),
        format_args!("{} of {} lines {complaints:?}", complaints.len(), log.lines().count()),
    );
}

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| line.contains(complaint))
}

fn read() -> io::Result<String> {
    // SAFETY: this action takes no buffer.
    let size = unsafe { libc::klogctl(SIZE_BUFFER, std::ptr::null_mut(), 0) };
    let size = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;
    let mut buffer = vec![0u8; size];
    let length = libc::c_int::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which the buffer has.
    let read = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), length) };
    buffer.truncate(usize::try_from(read).map_err(|_| io::Error::last_os_error())?);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_complaint() {
        assert!(is_complaint("<0>[ 1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!"));
        assert!(!is_complaint("<6>[ 1.0] smpboot: Total of 4 processors activated"));
    }
}
