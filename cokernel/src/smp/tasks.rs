// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work sent to other CPUs.

use core::{fmt, sync::atomic::Ordering};

use super::{cpu, current_cpu, idle_while, kick};
use crate::cpu::percpu::{Task, this_cpu};

/// Why a task was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RunError {
    /// There is no such CPU.
    NoSuchCpu(u32),
    /// The CPU runs a task, is the boot CPU, or is the calling CPU.
    Busy(u32),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu(cpu) => write!(f, "there is no cpu{cpu}"),
            Self::Busy(cpu) => write!(f, "cpu{cpu} is busy"),
        }
    }
}

impl core::error::Error for RunError {}

/// Runs `task` to its end on CPU `index` and returns at once. It runs with interrupts enabled
/// on a stack of 128 KiB.
///
/// # Errors
/// [`RunError::NoSuchCpu`], or [`RunError::Busy`] if the CPU has a task, which is always so
/// for the calling CPU and for the boot CPU, which runs `main`.
pub fn run_on(index: u32, task: Task) -> Result<(), RunError> {
    let target = cpu(index).ok_or(RunError::NoSuchCpu(index))?;
    let free = index != current_cpu()
        && target.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if !free {
        return Err(RunError::Busy(index));
    }
    *target.task.lock() = Some(task);
    kick(index);
    Ok(())
}

/// True if CPU `index` would accept a task from another CPU now.
pub fn is_free(index: u32) -> bool {
    cpu(index).is_some_and(|cpu| !cpu.busy.load(Ordering::Acquire))
}

/// Runs the tasks sent to this CPU, for ever, and waits in between.
pub(crate) fn serve() -> ! {
    let this = this_cpu();
    loop {
        let mut task = None;
        idle_while(&mut || {
            task = this.task.lock().take();
            task.is_none()
        });
        if let Some(task) = task {
            task();
            this.busy.store(false, Ordering::Release);
        }
    }
}
