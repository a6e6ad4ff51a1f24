// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many rounds of a VM that does its worst, beside one that must not notice.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{Counter, HostMemory, VmDescription};

/// Name of the bundle member that holds a [`Torture`], if there is one.
pub const TORTURE_NAME: &str = "torture.json";

/// Marks the line of the log channel that carries a [`TortureReport`].
pub const TORTURE_PREFIX: &str = "@torture ";

/// Starts the line of the log channel that says that a round begins; the seed follows in decimal.
pub const ROUND_PREFIX: &str = "@round ";

/// A byte on the machine's first serial port after which no further round begins.
pub const STOP_BYTE: u8 = b'q';

/// The byte that a neighbour reads from its first serial port when all rounds are over: "end of
/// transmission" of ASCII.
pub const NEIGHBOUR_END_BYTE: u8 = 0x04;

/// What is run after the stages of the [`Manifest`](crate::Manifest): rounds, each with a VM of
/// its own, and one VM that runs beside all of them.
///
/// Before the first round and after each, the co-kernel makes sure that what it does not change
/// is as it was: the constant parts of its image, its address space, and memory that it filled
/// and gave to nobody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Torture {
    /// The VM of a round. The word `seed=N` is added to its command line; it should have a time
    /// limit.
    pub vm: VmDescription,
    /// N of the first round; it counts up from there.
    pub first_seed: u64,
    /// Most rounds; without, until [`STOP_BYTE`] arrives.
    #[serde(default)]
    pub rounds: Option<u64>,
    /// A VM that runs beside all rounds. It is told of their end by [`NEIGHBOUR_END_BYTE`].
    #[serde(default)]
    pub neighbour: Option<VmDescription>,
    /// Most memory that is filled and watched, in MiB.
    pub watched_mib: u64,
    /// Guests' states that the machine under the co-kernel is known to let them have, but not to
    /// enter: a refused entry whose reason has one of these texts is no fault.
    #[serde(default)]
    pub tolerated: Vec<String>,
    /// Does damage that has to be noticed. Only images that are built with the feature
    /// `fault-injection` do so; others refuse it.
    #[serde(default)]
    pub damage: Option<Damage>,
}

/// What is changed behind the back of those who watch, in the first round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A byte of the memory that belongs to nobody.
    Canary,
    /// A byte of the co-kernel's constants.
    Image,
    /// A page more in the co-kernel's address space.
    AddressSpace,
}

/// Why a [`Torture`] was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TortureError(String);

impl fmt::Display for TortureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TORTURE_NAME}: {}", self.0)
    }
}

impl core::error::Error for TortureError {}

impl Torture {
    /// Reads and validates it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, TortureError> {
        let torture: Self = serde_json::from_slice(json)
            .map_err(|error| TortureError(alloc::format!("{error}")))?;
        torture.validate()?;
        Ok(torture)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self) -> Result<(), TortureError> {
        for vm in self.vms() {
            let refused = |why| Err(TortureError(alloc::format!("VM '{}' {why}", vm.name)));
            if vm.vcpus == 0 || vm.memory_mib == 0 {
                return refused("has no vCPU or no memory");
            }
            if vm.console == crate::GuestConsole::Serial {
                return refused("has the serial port, which takes the order to stop");
            }
        }
        match self.rounds {
            Some(0) => Err(TortureError("no round is to be run".into())),
            _ => Ok(()),
        }
    }

    /// The VMs.
    pub fn vms(&self) -> impl Iterator<Item = &VmDescription> {
        core::iter::once(&self.vm).chain(&self.neighbour)
    }
}

/// What came of a [`Torture`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TortureReport {
    /// Rounds that were run.
    pub rounds: u64,
    /// How many rounds ended in which way, by the names of [`EndKind`](crate::EndKind).
    pub ends: Vec<Counter>,
    /// Exits of the VMs of all rounds, by reason.
    pub exits: Vec<Counter>,
    /// How often memory was found as it was.
    pub checks: u64,
    /// Memory that is watched, in bytes.
    pub watched_bytes: u64,
    /// What was not as it should be; at most the first few.
    pub faults: Vec<TortureFault>,
    /// The least and the most that was in use between two rounds.
    pub least: HostMemory,
    /// See `least`.
    pub most: HostMemory,
}

/// Something that should not have happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TortureFault {
    /// Seed of the round in which it was found.
    pub seed: u64,
    /// What was found.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString};

    fn torture(more: &str) -> Result<Torture, TortureError> {
        let vm = r#"{"name":"a","memory_mib":16,"vcpus":1,"kernel":"k","console":"log"}"#;
        let json = format!(r#"{{"vm":{vm},"first_seed":7,"watched_mib":1{more}}}"#);
        Torture::from_json(json.as_bytes())
    }

    #[test]
    fn little_is_needed() {
        let read = torture("").unwrap();
        assert_eq!((read.first_seed, read.rounds, read.vms().count()), (7, None, 1));
        let again = serde_json::to_vec(&read).unwrap();
        assert_eq!(Torture::from_json(&again), Ok(read));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let serial = r#","neighbour":{"name":"n","memory_mib":16,"vcpus":1,"kernel":"k"}"#;
        let no_cpu =
            r#","neighbour":{"name":"n","memory_mib":16,"vcpus":0,"kernel":"k","console":"log"}"#;
        for (more, reason) in [
            (r#","rounds":0"#, "no round"),
            (serial, "serial port"),
            (no_cpu, "VM 'n' has no vCPU"),
            (r#","surprise":1"#, "unknown field"),
        ] {
            let error = torture(more).unwrap_err().to_string();
            assert!(error.starts_with(TORTURE_NAME) && error.contains(reason), "{error}");
        }
    }
}
