// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs: which are online, and where a thread runs.

use std::fs;
use std::io;
use std::mem;

/// Where the kernel shows and takes the state of CPUs.
pub const CPU_FOLDER: &str = "/sys/devices/system/cpu";

/// Numbers of the CPUs that are online, in order.
///
/// # Errors
/// When the kernel does not say.
pub fn online() -> io::Result<Vec<usize>> {
    let list = fs::read_to_string(format!("{CPU_FOLDER}/online"))?;
    parse_list(&list).ok_or_else(|| io::Error::other(format!("no CPU list: {list:?}")))
}

/// Reads a list such as `0-2,5`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let number = |text: &str| text.parse::<usize>().ok();
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(number(first)?..=number(last)?);
    }
    Some(cpus)
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// When that CPU is not there or not online.
pub fn bind(cpu: usize) -> io::Result<()> {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `cpu` is within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is live and as long as told; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPU that the calling thread runs on.
pub fn current() -> Option<usize> {
    // SAFETY: takes no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_lists() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("x-3"), None);
    }

    #[test]
    fn a_thread_runs_where_it_is_bound() {
        let bound = std::thread::spawn(|| {
            let cpu = current().unwrap();
            bind(cpu).map(|()| current() == Some(cpu)).unwrap()
        });
        assert!(bound.join().unwrap());
    }
}
