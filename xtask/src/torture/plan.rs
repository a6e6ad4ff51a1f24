// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the co-kernel is told to do.

use anyhow::Result;
use wire::{Damage, FORMAT_VERSION, Manifest, TORTURE_NAME, Torture, VmDescription};

use super::machine::Limit;
use crate::cargo_build::bare_metal_binaries;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::platform::bochs::models::{self, Vendor};
use crate::run::bundle::Member;
use crate::run::options::Paging;
use crate::test::bare_metal::{self, Departures};

/// The guest that tortures.
pub const GUEST: &str = "torture";
/// The guest beside it.
pub const NEIGHBOUR: &str = "neighbour";

/// CPUs: for the co-kernel, the VM and its neighbour.
pub const CPUS: u32 = 3;

/// Memory of each VM, in MiB; the guest knows where it ends.
const MEMORY_MIB: u64 = 16;

/// A machine, and what is to happen on it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Machine.
    pub platform: Platform,
    /// CPU model.
    pub cpu: String,
    /// What the user asked for.
    pub paging: Option<Paging>,
    /// When it is over.
    pub limit: Limit,
    /// What the co-kernel reads.
    pub torture: Torture,
}

/// What is different where instructions are slow.
struct Pace {
    /// Attempts in a round.
    attempts: u32,
    /// Milliseconds after which a VM is ended, in the machine's own time.
    limit_ms: u64,
    /// Memory that is watched.
    watched_mib: u64,
}

impl Plan {
    /// A plan for these options.
    ///
    /// # Errors
    /// When there is no such CPU model.
    pub fn new(
        platform: Platform,
        cpu: &str,
        paging: Option<Paging>,
        seed: u64,
        limit: Limit,
    ) -> Result<Self> {
        let (pace, departures) = match platform {
            Platform::Qemu => {
                let departures = match paging {
                    Some(Paging::Shadow) => Departures::TcgShadow,
                    _ => Departures::Tcg,
                };
                (Pace { attempts: 300, limit_ms: 1000, watched_mib: 256 }, departures)
            }
            Platform::Bochs => {
                let departures = match models::find(cpu)?.vendor {
                    Vendor::Amd => Departures::BochsSvm,
                    Vendor::Intel => Departures::None,
                };
                (Pace { attempts: 100, limit_ms: 300, watched_mib: 64 }, departures)
            }
        };
        let words = format!("{} attempts={}", departures.word(), pace.attempts);
        let vm = |name, command_line: String, time_limit_ms| VmDescription {
            memory_mib: MEMORY_MIB,
            paging: paging.map(Into::into),
            time_limit_ms,
            ..bare_metal::vm(name, name, command_line)
        };
        let torture = Torture {
            vm: vm(GUEST, words.trim().to_owned(), Some(pace.limit_ms)),
            first_seed: seed,
            rounds: match limit {
                Limit::Rounds(rounds) => Some(rounds),
                Limit::Time(_) => None,
            },
            neighbour: Some(vm(NEIGHBOUR, String::new(), None)),
            watched_mib: pace.watched_mib,
            tolerated: tolerated(platform, paging),
            damage: None,
        };
        Ok(Self { platform, cpu: cpu.to_owned(), paging, limit, torture })
    }

    /// The same with damage that has to be noticed.
    #[must_use]
    pub fn with_damage(mut self, damage: Damage) -> Self {
        self.torture.damage = Some(damage);
        self
    }

    /// The manifest, which has no stages.
    pub fn manifest() -> Manifest {
        Manifest { version: FORMAT_VERSION, stages: Vec::new() }
    }

    /// What belongs into the bundle; `folder` gets the file for what the co-kernel reads.
    ///
    /// # Errors
    /// When the guests cannot be built or the file not be written.
    pub fn members(&self, paths: &Paths, folder: &std::path::Path) -> Result<Vec<Member>> {
        self.torture.validate().map_err(anyhow::Error::msg)?;
        let file = folder.join(TORTURE_NAME);
        std::fs::write(&file, serde_json::to_vec(&self.torture)?)?;
        let mut members = vec![Member { name: TORTURE_NAME.into(), path: file }];
        let built = bare_metal_binaries(paths, bare_metal::PACKAGE)?;
        let wanted = built.into_iter().filter(|(name, _)| [GUEST, NEIGHBOUR].contains(&&**name));
        members.extend(wanted.map(|(name, path)| Member { name, path }));
        Ok(members)
    }

    /// Name of the way of paging, as asked for.
    pub fn paging_name(&self) -> &'static str {
        self.paging.map_or("default", Paging::name)
    }
}

/// What QEMU's TCG (7.2) does not check when the guest does it, and then does at the next VMRUN: that
/// a code segment is of one size, and with nested paging, where a guest's writes to CR0 do not
/// exit, those. With shadow paging the VMM checks them all.
fn tolerated(platform: Platform, paging: Option<Paging>) -> Vec<String> {
    const SEGMENT: &str = "CS.L and CS.D in long mode";
    const WRITES: [&str; 3] = [
        "CR0.NW without CR0.CD",
        "CR0.PG without CR0.PE",
        "CR0, as the guest wrote it without an exit",
    ];
    let reasons: &[&[&str]] = match (platform, paging) {
        (Platform::Bochs, _) => &[],
        (Platform::Qemu, Some(Paging::Shadow)) => &[&[SEGMENT]],
        (Platform::Qemu, _) => &[&[SEGMENT], &WRITES],
    };
    reasons.concat().into_iter().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_plans_are_valid() {
        for (platform, cpu) in [(Platform::Qemu, "max"), (Platform::Bochs, "tigerlake")] {
            for paging in [None, Some(Paging::Nested), Some(Paging::Shadow)] {
                let plan = Plan::new(platform, cpu, paging, 5, Limit::Rounds(2)).unwrap();
                assert_eq!(plan.torture.validate(), Ok(()));
                let shadow = plan.torture.vm.command_line.contains("tcg-shadow");
                assert_eq!(shadow, platform == Platform::Qemu && paging == Some(Paging::Shadow));
            }
        }
        assert_eq!(Plan::manifest().validate(), Ok(()));
        assert!(Plan::new(Platform::Bochs, "max", None, 5, Limit::Rounds(2)).is_err());
    }
}
