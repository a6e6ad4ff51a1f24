// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUs of the Linux around the runner.

use std::fs;
use std::hint::spin_loop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where Linux has a folder for each CPU (Linux, `Documentation/core-api/cpu_hotplug.rst`).
const CPUS: &str = "/sys/devices/system/cpu";

/// The CPUs on which something runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Any, as Linux likes.
    Any,
    /// All before this one.
    Before(usize),
    /// This one alone.
    Only(usize),
}

impl Share {
    /// Has this thread, and what it starts, run nowhere else.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn take(self) -> Result<()> {
        let cpus = match self {
            Self::Any => return Ok(()),
            Self::Before(end) => 0..end,
            Self::Only(cpu) => cpu..cpu + 1,
        };
        let mut set = CpuSet::new();
        cpus.for_each(|cpu| set.set(cpu));
        sched_setaffinity(None, &set).with_context(|| format!("Linux refuses {self:?}"))
    }
}

/// The shares of `vcpus` vCPUs, each alone on one of the last CPUs, and that of other work, which
/// has what is before them.
///
/// # Errors
/// When there are too few CPUs.
pub fn apart(cpus: usize, vcpus: usize) -> Result<(Vec<Share>, Share)> {
    let first = cpus.saturating_sub(vcpus);
    ensure!(first > 0, "{vcpus} vCPUs apart from other work need more than {cpus} CPUs");
    Ok(((first..cpus).map(Share::Only).collect(), Share::Before(first)))
}

/// Brings up the CPUs that Linux has left alone, as `maxcpus=1` on its command line tells it.
///
/// That is for QEMU's `-icount`, with which QEMU 7.2 lets the CPUs run in turn up to the next
/// timer's deadline, and goes on to the next CPU before that only where one pauses or halts. Linux
/// waits for a starting CPU in a loop that does neither, so that the other never gets on; but it
/// lets tasks run in that loop, of which there is none yet while the kernel boots. Here is one,
/// which pauses.
///
/// # Errors
/// When Linux refuses.
pub fn bring_up() -> Result<()> {
    let waiting = offline(Path::new(CPUS))?;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                spin_loop();
            }
        });
        let result = waiting.iter().try_for_each(|file| {
            fs::write(file, "1").with_context(|| format!("cannot write 1 to {}", file.display()))
        });
        is_done.store(true, Ordering::Relaxed);
        result
    })
}

/// The files of those that can be brought up and are not.
fn offline(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
        let file = entry?.path().join("online");
        if fs::read_to_string(&file).is_ok_and(|state| state.trim() == "0") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_the_last_cpus_for_itself() {
        let (vcpus, others) = apart(4, 2).unwrap();
        assert_eq!(vcpus, [Share::Only(2), Share::Only(3)]);
        assert_eq!(others, Share::Before(2));
        for cpus in [0, 1, 2] {
            assert!(apart(cpus, 2).unwrap_err().to_string().contains("more than"), "{cpus}");
        }
    }

    #[test]
    fn cpus_that_are_off_are_found() {
        let folder = std::env::temp_dir().join(format!("kvm-runner-cpus-{}", std::process::id()));
        for (cpu, state) in [("cpu1", Some("1\n")), ("cpu2", Some("0\n")), ("cpuidle", None)] {
            fs::create_dir_all(folder.join(cpu)).unwrap();
            if let Some(state) = state {
                fs::write(folder.join(cpu).join("online"), state).unwrap();
            }
        }
        let found = offline(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.unwrap(), [folder.join("cpu2/online")]);
        assert!(offline(&folder).is_err());
    }
}
