// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vCPU's loop and its exit handlers, on hardware made of plain fields.

mod apic;
mod brief;
mod clock;
mod control;
pub(crate) mod devices;
mod events;
mod exits;
mod input;
mod instructions;
mod interpret;
mod known_code;
pub(crate) mod machine;
mod memory;
mod msrs;
mod ports;
mod smp;
mod tasks;
mod timers;

pub use crate::mock_backend as hardware;
