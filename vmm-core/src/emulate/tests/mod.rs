// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the emulator.

#[cfg(test)]
mod device_move;
#[cfg(test)]
mod events;
#[cfg(test)]
mod far;
#[cfg(test)]
mod faults;
pub mod hostile;
pub mod machine;
#[cfg(test)]
mod memory;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod native;
#[cfg(test)]
mod ports;
pub mod race;
pub mod random;
#[cfg(test)]
mod robustness;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod strings;
#[cfg(test)]
mod system;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod user;
