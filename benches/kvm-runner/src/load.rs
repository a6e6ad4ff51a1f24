// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else Linux may have to do while the guest runs.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::cpus::Share;

/// The argument by which this program, as a child, ends at once.
pub const NOTHING: &str = "nothing";

/// Where this program is in the initial RAM disk.
const THIS: &str = "/init";

/// Memory that is taken and given back, and the distance of what is touched in it.
const MEMORY: usize = 16 << 20;
const PAGE: usize = 4096;

/// Other work, each a thread without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Computes.
    Compute,
    /// Takes memory, touches it and gives it back.
    Memory,
    /// Starts processes that end at once.
    Fork,
}

impl Load {
    /// The load with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "compute" => Self::Compute,
            "memory" => Self::Memory,
            "fork" => Self::Fork,
            _ => bail!("load: there is no '{name}', only compute, memory and fork"),
        })
    }

    /// Starts it on its share of the CPUs.
    ///
    /// # Errors
    /// When there is no thread or no process to be had.
    pub fn start(self, share: Share) -> Result<()> {
        let work: fn() = match self {
            Self::Compute => compute,
            Self::Memory => touch,
            Self::Fork => {
                // Later nobody would see that it does not work.
                fork()?;
                || while fork().is_ok() {}
            }
        };
        let (sender, taken) = mpsc::channel();
        let work = move || {
            let share = share.take();
            let is_there = share.is_ok();
            // The receiver waits for it.
            let _ = sender.send(share);
            if is_there {
                work();
            }
        };
        thread::Builder::new().spawn(work).context("cannot start the load")?;
        taken.recv().context("the load ended")?
    }
}

fn compute() {
    let mut value = 1_u64;
    loop {
        value = black_box(value.wrapping_mul(3).wrapping_add(1));
    }
}

fn touch() {
    loop {
        let mut memory = vec![0_u8; MEMORY];
        for byte in memory.iter_mut().step_by(PAGE) {
            *byte = 1;
        }
        black_box(memory);
    }
}

fn fork() -> Result<()> {
    let mut command = Command::new(THIS);
    command.arg(NOTHING).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().with_context(|| format!("cannot start {THIS}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_have_names() {
        assert_eq!(Load::parse("fork").unwrap(), Load::Fork);
        assert!(Load::parse("work").unwrap_err().to_string().contains("'work'"));
    }
}
