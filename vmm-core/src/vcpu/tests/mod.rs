// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vCPU's loop and its exit handlers, on hardware made of plain fields.

#[cfg(test)]
mod apic;
#[cfg(test)]
mod brief;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod control;
#[cfg(test)]
pub(crate) mod devices;
#[cfg(test)]
mod events;
#[cfg(test)]
mod exits;
#[allow(clippy::unwrap_used, reason = "a model fails by panicking, as a test does")]
pub mod hostile;
#[cfg(test)]
mod input;
#[cfg(test)]
mod instructions;
#[cfg(test)]
mod interpret;
#[cfg(test)]
mod known_code;
#[cfg(test)]
pub(crate) mod machine;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod msrs;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod smp;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod timers;

#[cfg(test)]
pub use crate::mock_backend as hardware;
