// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that measure, from inside, the machine they run on.
//!
//! The very same program runs on the bare machine, under Alcazar and under Linux KVM; what differs
//! is the machine's doing. The runtime is that of the bare-metal test guests. Built for any other
//! target than `x86_64-unknown-none` this crate is empty.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
mod apic;
#[cfg(target_os = "none")]
mod clock;
#[cfg(target_os = "none")]
pub mod compute;
#[cfg(target_os = "none")]
pub mod exits;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod noise;
#[cfg(target_os = "none")]
pub mod paging;
#[cfg(target_os = "none")]
mod samples;
