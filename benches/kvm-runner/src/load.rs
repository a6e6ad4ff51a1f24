// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else Linux may have to do while the guest runs: processes of their own, as a VMM's
//! neighbours are.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cpus::Share;

/// The argument by which this program, as a child, works as the next argument says.
pub const WORK: &str = "work";

/// The argument by which this program, as a child, ends at once.
pub const NOTHING: &str = "nothing";

/// Where this program is in the initial RAM disk.
const THIS: &str = "/init";

/// Memory that is taken and given back, and the distance of what is touched in it.
const MEMORY: usize = 16 << 20;
const PAGE: usize = 4096;

/// Other work, without end.
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

    /// Its name.
    const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Fork => "fork",
        }
    }

    /// Starts a process with it on its share of the CPUs.
    ///
    /// # Errors
    /// When there is no process to be had.
    pub fn start(self, share: Share) -> Result<Running> {
        let child = thread::spawn(move || {
            // The process inherits what this thread has.
            share.take()?;
            let mut command = Command::new(THIS);
            command.args([WORK, self.name()]).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().with_context(|| format!("cannot start {THIS}"))
        });
        let child = child.join().map_err(|_| anyhow!("the load's thread panicked"))??;
        Ok(Running { load: self, child })
    }

    /// Works, in the process that was started for it.
    ///
    /// # Errors
    /// When it cannot go on.
    pub fn work(self) -> Result<Infallible> {
        match self {
            Self::Compute => compute(),
            Self::Memory => touch(),
            Self::Fork => loop {
                fork()?;
            },
        }
    }
}

/// A process that works.
pub struct Running {
    load: Load,
    child: Child,
}

impl Running {
    /// Sees that it still does.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        let end = self.child.try_wait()?;
        ensure!(end.is_none(), "the load '{}' ended before the guest", self.load.name());
        Ok(())
    }
}

fn compute() -> ! {
    let mut value = 1_u64;
    loop {
        value = black_box(value.wrapping_mul(3).wrapping_add(1));
    }
}

fn touch() -> ! {
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
        for load in [Load::Compute, Load::Memory, Load::Fork] {
            assert_eq!(Load::parse(load.name()).unwrap(), load);
        }
        assert!(Load::parse("work").unwrap_err().to_string().contains("'work'"));
    }
}
