// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time: the TSC, and one one-shot timer for each CPU. Nothing ticks.

#[cfg(target_os = "none")]
pub(crate) mod calibrate;
#[cfg(target_os = "none")]
mod clock;
pub mod scale;
#[cfg(target_os = "none")]
pub(crate) mod timer;

#[cfg(target_os = "none")]
pub use clock::{entry_tsc, microseconds_since_entry, spin_microseconds, tsc, tsc_hz};
#[cfg(target_os = "none")]
pub(crate) use clock::{set_entry_tsc, set_tsc_hz};
#[cfg(target_os = "none")]
pub use timer::{arm, cancel};
