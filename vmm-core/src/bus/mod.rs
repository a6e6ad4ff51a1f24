// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which device answers where. What nobody claimed reads as all ones and ignores writes.

mod mmio;
mod port;

use alloc::string::String;
use core::fmt;

pub use mmio::MmioBus;
pub use port::PortBus;

/// Why a device could not have a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// Another device is there already.
    Overlap {
        /// Start of the wanted range.
        start: u64,
        /// Its last address.
        last: u64,
        /// The device that wants it.
        device: String,
        /// The device that has it.
        owner: String,
    },
    /// The range is empty, wraps, or is in the way of guest memory.
    BadRange {
        /// Start of the wanted range.
        start: u64,
        /// The device that wants it.
        device: String,
    },
    /// No more devices fit.
    Full,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { start, last, device, owner } => {
                write!(f, "{device} cannot have {start:#x}-{last:#x}: {owner} is there")
            }
            Self::BadRange { start, device } => {
                write!(
                    f,
                    "{device} cannot have a range at {start:#x}: it is empty, wraps, or \
                           covers guest memory"
                )
            }
            Self::Full => write!(f, "no more devices fit on this bus"),
        }
    }
}

impl core::error::Error for ClaimError {}

/// What a bus access met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A device answered.
    Device,
    /// Nobody did.
    Nobody,
}

impl Answer {
    const fn from_bool(answered: bool) -> Self {
        if answered { Self::Device } else { Self::Nobody }
    }

    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Device, Self::Device) => Self::Device,
            _ => Self::Nobody,
        }
    }
}
