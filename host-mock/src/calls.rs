// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of `Host`, and in which way each of them can fail.

/// A call of [`Host`](host_iface::Host).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the names are those of the methods")]
pub enum HostCall {
    AllocatePages,
    ReleasePages,
    PhysToVirt,
    CpuCount,
    CurrentCpu,
    RunOn,
    Kick,
    IdleWhile,
    TscFrequency,
    Tsc,
    ArmTimer,
    CancelTimer,
    Console,
    WallClock,
}

/// How it shows that a call has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The answer is an error.
    Refused,
    /// The answer is that there is no such thing.
    Absent,
    /// Nothing happens. The call has no answer, so nobody is told.
    Lost,
    /// It returns before what it waits for has come.
    Early,
}

impl HostCall {
    /// All of them, in the order of the trait.
    pub const ALL: [Self; 14] = [
        Self::AllocatePages,
        Self::ReleasePages,
        Self::PhysToVirt,
        Self::CpuCount,
        Self::CurrentCpu,
        Self::RunOn,
        Self::Kick,
        Self::IdleWhile,
        Self::TscFrequency,
        Self::Tsc,
        Self::ArmTimer,
        Self::CancelTimer,
        Self::Console,
        Self::WallClock,
    ];

    /// The method's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllocatePages => "allocate_pages",
            Self::ReleasePages => "release_pages",
            Self::PhysToVirt => "phys_to_virt",
            Self::CpuCount => "cpu_count",
            Self::CurrentCpu => "current_cpu",
            Self::RunOn => "run_on",
            Self::Kick => "kick",
            Self::IdleWhile => "idle_while",
            Self::TscFrequency => "tsc_frequency",
            Self::Tsc => "tsc",
            Self::ArmTimer => "arm_timer",
            Self::CancelTimer => "cancel_timer",
            Self::Console => "console",
            Self::WallClock => "wall_clock",
        }
    }

    /// How it fails. `None` for calls that only read what every host knows, and for the return of
    /// memory, which no host can refuse: their contract leaves nothing to go wrong.
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::AllocatePages | Self::RunOn => Some(Failure::Refused),
            Self::Console | Self::WallClock => Some(Failure::Absent),
            Self::Kick | Self::ArmTimer | Self::CancelTimer => Some(Failure::Lost),
            Self::IdleWhile => Some(Failure::Early),
            Self::ReleasePages
            | Self::PhysToVirt
            | Self::CpuCount
            | Self::CurrentCpu
            | Self::TscFrequency
            | Self::Tsc => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method that is added to the trait has to be added here, with the way in which it fails.
    #[test]
    fn every_method_of_the_trait_is_a_call() {
        let source = include_str!("../../host-iface/src/host.rs");
        let (_, definition) = source.split_once("pub trait Host:").unwrap();
        let (definition, _) = definition.split_once("\n}").unwrap();
        let methods: Vec<&str> = definition
            .lines()
            .filter_map(|line| line.strip_prefix("    fn "))
            .filter_map(|line| line.split_once('(').map(|(name, _)| name))
            .collect();
        assert_eq!(methods, HostCall::ALL.map(HostCall::name));
    }
}
