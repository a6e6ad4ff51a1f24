// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC platform and its devices for vmm-core.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
mod exit_port;
pub mod pci;
pub mod pm;
pub mod reset;

pub use exit_port::ExitPort;
