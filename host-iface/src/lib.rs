// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the Alcazar VMM asks of the kernel that hosts it.
//!
//! A kernel author implements the one required trait, [`Host`], and whichever of the
//! optional capability traits ([`HostConsole`], [`HostWallClock`]) the kernel can offer.
//! The crate holds no logic beyond checked address arithmetic and depends on nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod capability;
mod host;
mod memory;

pub use address::HostPhysAddr;
pub use capability::{HostConsole, HostWallClock, InputListener, WallClockTime};
pub use host::{CpuId, Hertz, Host, HostError, RemoteTask, Tsc};
pub use memory::{NumaNode, PAGE_SIZE, PageRequest, PageRun};
