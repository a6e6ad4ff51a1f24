// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a run went, and the exit status that says so.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use wire::{EndKind, RunReport, machine_exit};

use super::job::Job;
use super::options::RunOptions;
use super::plan::Plan;
use crate::console::pump::{Outcome, Stop};

/// Exit status for "time limit reached", as timeout(1) has it.
pub const TIMED_OUT: u8 = 124;
/// Exit status for "Alcazar or this tool failed".
pub const FAILED: u8 = 125;

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// How it went.
    pub status: Status,
    /// The co-kernel's report, if it got to write one.
    pub report: Option<RunReport>,
    /// Where to look for more.
    pub log: PathBuf,
    /// What went through the console.
    pub console: Outcome,
    /// When the machine was started.
    pub begin: Instant,
    /// From the machine's start to its end.
    pub seconds: f64,
}

/// How a run went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// The guest, its shell or its command ended with this status.
    Exited(u8),
    /// The time limit was reached.
    TimedOut,
    /// This process was asked to end.
    Signal(i32),
    /// It failed; says why.
    Failed(String),
}

impl Status {
    /// Exit status of this process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            Self::TimedOut => TIMED_OUT,
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(FAILED),
            Self::Failed(_) => FAILED,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
pub struct Json<'a> {
    status: u8,
    error: Option<&'a str>,
    output: String,
    seconds: f64,
    init_seconds: Option<f64>,
    log: &'a PathBuf,
    report: Option<&'a RunReport>,
}

impl Finished {
    /// Seconds from the machine's start until the guest's `/init`.
    pub fn init_seconds(&self) -> Option<f64> {
        Some(self.console.init_at?.duration_since(self.begin).as_secs_f64())
    }

    /// The form for programs.
    pub fn to_json(&self) -> Json<'_> {
        Json {
            status: self.status.exit_code(),
            error: match &self.status {
                Status::Failed(why) => Some(why),
                Status::TimedOut => Some("time limit reached"),
                Status::Exited(_) | Status::Signal(_) => None,
            },
            output: String::from_utf8_lossy(&self.console.kept).into_owned(),
            seconds: self.seconds,
            init_seconds: self.init_seconds(),
            log: &self.log,
            report: self.report.as_ref(),
        }
    }
}

/// How the machine's process ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineEnd {
    /// Its exit status; `None` if it was killed.
    pub code: Option<i32>,
    /// Its last words on standard error.
    pub message: String,
}

/// The exit status of QEMU when `code` is written to its `isa-debug-exit` device.
pub const fn exit_status(code: u8) -> i32 {
    (code as i32) << 1 & 0xFF | 1
}

/// Brings together what the console, the machine and the report say.
pub fn judge(
    plan: &Plan,
    options: &RunOptions,
    console: &Outcome,
    end: &MachineEnd,
    report: Option<&RunReport>,
) -> Status {
    match console.stop {
        Stop::Quit => return Status::Exited(0),
        Stop::Signal(number) => return Status::Signal(number),
        Stop::Deadline => return Status::TimedOut,
        Stop::MachineEnded => {}
    }
    if plan.machine.log.is_none() {
        return judge_bare(plan, console, end);
    }
    if let Some(failure) = machine_failure(plan.machine.engine.name(), end) {
        return Status::Failed(failure);
    }
    let Some(vm) = report.and_then(|report| report.vms.last()) else {
        return Status::Failed("the co-kernel ended without a report".into());
    };
    judge_guest(plan.job.as_ref(), options.timeout.is_some(), console.status, &vm.end)
}

/// What is wrong if the co-kernel did not get its work done.
fn machine_failure(engine: &str, end: &MachineEnd) -> Option<String> {
    let is = |code: u8| end.code == Some(exit_status(code));
    if is(machine_exit::DONE) {
        None
    } else if is(machine_exit::BAD_BUNDLE) {
        Some("the co-kernel refused the bundle".into())
    } else if is(machine_exit::PANIC) {
        Some("the co-kernel panicked".into())
    } else if is(machine_exit::UNSUPPORTED) {
        Some("the machine lacks what the co-kernel needs; choose another --cpu or --accel".into())
    } else {
        Some(match end.code {
            Some(1) => format!("{engine} failed: {}", end.message),
            Some(0) => "the co-kernel was reset (a triple fault of its own?)".into(),
            Some(code) => format!("{engine} ended with unknown status {code}: {}", end.message),
            None => format!("{engine} was killed or hangs: {}", end.message),
        })
    }
}

/// The status of a guest that the co-kernel has run.
fn judge_guest(
    job: Option<&Job>,
    time_limited: bool,
    shell: Option<u8>,
    end: &wire::End,
) -> Status {
    if let Some(status) = shell {
        if end.kind != EndKind::PowerOff {
            eprintln!("note: the guest did not switch itself off: {}", end.detail);
        }
        return Status::Exited(status);
    }
    match (end.kind, job) {
        (EndKind::Stopped, _) if time_limited => Status::TimedOut,
        (EndKind::PowerOff | EndKind::Reset, Some(Job::Command(_))) => {
            Status::Failed(format!("the guest ended before the command did: {}", end.detail))
        }
        // A panic of the guest's kernel resets it, too.
        (EndKind::Reset, Some(Job::Script)) => {
            Status::Failed(format!("the guest reset itself: {}", end.detail))
        }
        (EndKind::PowerOff | EndKind::Reset, _) => Status::Exited(0),
        (EndKind::ExitPort, _) => {
            Status::Exited(end.exit_code.map_or(0, |code| u8::try_from(code).unwrap_or(u8::MAX)))
        }
        _ => Status::Failed(format!("the guest ended abnormally: {}", end.detail)),
    }
}

/// The status of a guest on the bare machine, which knows less.
fn judge_bare(plan: &Plan, console: &Outcome, end: &MachineEnd) -> Status {
    match (console.status, end.code) {
        (Some(status), _) => Status::Exited(status),
        (None, Some(0)) if matches!(plan.job, Some(Job::Command(_))) => {
            Status::Failed("the guest ended before the command did".into())
        }
        (None, Some(0)) => Status::Exited(0),
        (None, Some(code)) if code & 1 == 1 && end.message == crate::process::NO_MESSAGE => {
            Status::Exited(u8::try_from(code >> 1).unwrap_or(u8::MAX))
        }
        (None, _) => Status::Failed(format!("QEMU failed: {}", end.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(kind: EndKind) -> wire::End {
        wire::End { kind, detail: "detail".into(), exit_code: Some(3) }
    }

    #[test]
    fn the_commands_status_counts_first() {
        let command = Job::Command("x".into());
        let powered_off = end(EndKind::PowerOff);
        assert_eq!(judge_guest(Some(&command), false, Some(7), &powered_off), Status::Exited(7));
        let early = judge_guest(Some(&command), false, None, &powered_off);
        assert!(matches!(early, Status::Failed(why) if why.contains("before the command")));
    }

    #[test]
    fn ends_without_a_status_are_told_apart() {
        let shell = Job::Shell { size: None, term: String::new() };
        let judge = |job, limited, kind| judge_guest(job, limited, None, &end(kind)).exit_code();
        assert_eq!(judge(Some(&shell), false, EndKind::PowerOff), 0);
        assert_eq!(judge(Some(&shell), false, EndKind::Reset), 0);
        assert_eq!(judge(Some(&Job::Script), false, EndKind::PowerOff), 0);
        assert_eq!(judge(Some(&Job::Script), false, EndKind::Reset), FAILED);
        assert_eq!(judge(None, false, EndKind::ExitPort), 3);
        assert_eq!(judge(None, true, EndKind::Stopped), TIMED_OUT);
        assert_eq!(judge(None, false, EndKind::Stopped), FAILED);
        assert_eq!(judge(None, false, EndKind::TripleFault), FAILED);
    }

    #[test]
    fn the_machines_exit_status_is_understood() {
        let failure = |code| machine_failure("QEMU", &MachineEnd { code, message: "why".into() });
        assert_eq!(failure(Some(33)), None);
        assert!(failure(Some(35)).unwrap().contains("bundle"));
        assert!(failure(Some(37)).unwrap().contains("panicked"));
        assert!(failure(Some(39)).unwrap().contains("lacks"));
        assert_eq!(failure(Some(1)).unwrap(), "QEMU failed: why");
        assert!(failure(Some(0)).is_some() && failure(None).is_some());
    }

    #[test]
    fn signals_and_limits_have_the_usual_statuses() {
        assert_eq!(Status::Signal(2).exit_code(), 130);
        assert_eq!(Status::TimedOut.exit_code(), 124);
        assert_eq!(Status::Failed(String::new()).exit_code(), 125);
    }
}
