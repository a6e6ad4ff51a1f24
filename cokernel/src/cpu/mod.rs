// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of one CPU: control registers, descriptor tables, per-CPU data.

#[cfg(target_os = "none")]
mod control;
#[cfg(target_os = "none")]
pub(crate) mod descriptors;
pub mod interrupt_flag;
#[cfg(target_os = "none")]
pub(crate) mod percpu;

#[cfg(target_os = "none")]
pub(crate) use control::enable_features;
