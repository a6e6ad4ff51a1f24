// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the emulator.

mod device_move;
mod events;
mod far;
mod faults;
pub(crate) mod machine;
mod memory;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
mod ports;
mod random;
mod robustness;
mod segments;
mod strings;
mod system;
mod tasks;
