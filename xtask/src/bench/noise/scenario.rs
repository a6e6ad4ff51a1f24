// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest runs on, and what goes on beside it.

use clap::ValueEnum;
use plotters::style::RGBColor;
use serde::Serialize;

use crate::bench::plot::palette;
use crate::platform::{bochs::config as bochs, qemu};

/// A scenario.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The emulated machine without any VMM.
    Bare,
    /// Under Alcazar.
    Alcazar,
    /// Under Linux KVM, Linux having nothing else to do.
    Kvm,
    /// Under Linux KVM, Linux having other work.
    KvmBusy,
    /// Under Alcazar on a machine of two CPUs, the other one idle.
    Alone,
    /// The same, the other CPU running a VM that works.
    Neighbour,
    /// Under Linux KVM on a machine of two CPUs, one of which the guest has for itself, Linux having
    /// nothing else to do.
    KvmAlone,
    /// The same, Linux having other work on the other CPU.
    KvmNeighbour,
}

impl Scenario {
    /// Name in tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare machine",
            Self::Alcazar => "Alcazar",
            Self::Kvm => "KVM, Linux idle",
            Self::KvmBusy => "KVM, Linux busy",
            Self::Alone => "Alcazar, 2 CPUs, alone",
            Self::Neighbour => "Alcazar, 2 CPUs, busy neighbour",
            Self::KvmAlone => "KVM, 2 CPUs, Linux idle",
            Self::KvmNeighbour => "KVM, 2 CPUs, other CPU busy",
        }
    }

    /// Whether it runs on the machine of two CPUs, where time is that of Bochs.
    pub const fn has_two_cpus(self) -> bool {
        matches!(self, Self::Alone | Self::Neighbour | Self::KvmAlone | Self::KvmNeighbour)
    }

    /// Whether it is Linux KVM.
    pub const fn is_kvm(self) -> bool {
        matches!(self, Self::Kvm | Self::KvmBusy | Self::KvmAlone | Self::KvmNeighbour)
    }

    /// Whether there is work beside the guest.
    pub const fn is_busy(self) -> bool {
        matches!(self, Self::KvmBusy | Self::Neighbour | Self::KvmNeighbour)
    }

    /// The same without work on the other CPU, if this one has it.
    pub const fn alone(self) -> Option<Self> {
        match self {
            Self::Neighbour => Some(Self::Alone),
            Self::KvmNeighbour => Some(Self::KvmAlone),
            _ => None,
        }
    }

    /// Frequency of its time-stamp counter where that counts instructions.
    pub fn tsc_hz(self) -> u64 {
        if self.has_two_cpus() {
            bochs::INSTRUCTIONS_PER_SECOND.into()
        } else {
            qemu::DETERMINISTIC_TSC_HZ
        }
    }

    /// Its colour in plots.
    pub const fn colour(self) -> RGBColor {
        match self {
            Self::Bare => palette::BARE,
            Self::Alcazar | Self::Alone | Self::Neighbour => palette::ALCAZAR,
            Self::Kvm | Self::KvmBusy | Self::KvmAlone | Self::KvmNeighbour => palette::KVM,
        }
    }
}
