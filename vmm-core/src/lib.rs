// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-agnostic virtual machine monitor core.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod address;
pub mod state;

pub use address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE};
